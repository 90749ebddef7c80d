"""What an embedder is: whatever maps images to unit vectors; and checks of what it answers."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.embedders.options import EmbedderOptions
from index.errors import ImageError, RetrievalError, UnansweredError, UsageError
from index.images.decode import MARGIN, Photo
from index.images.file import ImageFile
from index.vectors import UNIT_FLOATS, VectorType


@dataclass(frozen=True)
class Calls:
    """How a model is best called.

    One is `paid` whose answers have a price, or come from code that is not ours: it is asked through
    `index.teachers.client`, which remembers every answer and scales it to unit length.
    """

    batch: int = 32  # images a call
    concurrency: int = 1  # calls at a time that keep it busy
    seconds: float = 3600.0  # after so many a call has surely ended
    rate: float | None = None  # images a second that it may be asked about; None sets no limit
    paid: bool = False
    replaceable: bool = False  # whether to ask again first, for there may be another model under its key


@dataclass(frozen=True)
class RankedList:
    """What a ranker answered about one list, by content digests."""

    query: str
    candidates: Sequence[str]
    ranks: Sequence[int]  # of the candidates, from 1; 0 is unranked

    def __post_init__(self) -> None:
        if len(self.candidates) != len(self.ranks):
            raise ValueError(f"{len(self.ranks)} ranks of {len(self.candidates)} candidates")


class Embedder(ABC):
    """Maps images to vectors."""

    lessons: Mapping[str, int] = MappingProxyType({})  # learnt of how to call it; a ledger keeps them
    unit = "image"  # what it is asked about, for messages
    remarks = ""  # to say at the end of a command, such as what was assumed
    ranker: Mapping[str, Any] = MappingProxyType({})  # `Ranker.facts`, if it learnt from the orders of one
    ranked: Sequence[RankedList] = ()  # that it learnt from
    megabytes: float | None = None  # of its files, where that is known
    key: str  # identity: two embedders with one key give the same vectors
    name: str  # what to call it in messages
    spec: str  # what `open_embedder` opens it by,
    options: EmbedderOptions  # together with these
    provider = ""  # of ONNX Runtime, that it runs on
    side = 1  # of the square that it makes of an image, in pixels; of a model that makes none the least
    dim = 0  # length of its vectors; 0 before the first answer of a model that does not say
    calls: Calls  # how it is best called
    vector_type: VectorType = UNIT_FLOATS

    @cached_property
    def decode_side(self) -> int:
        """How wide and high, in pixels, an image must at least be decoded for it."""
        return MARGIN * self.side

    @abstractmethod
    def prepare(self, photo: Photo) -> Any:
        """Make the input for one image, in any thread; ImageError says why there is nothing for it."""

    @abstractmethod
    def embed(self, batch: Sequence[Any]) -> NDArray[np.float32]:
        """Map n prepared inputs to `(n, dim)` float32 unit rows. Safe in `calls.concurrency` threads.

        Raises:
            UnansweredError: It answered for some of them only.
        """

    def describe_input(self, photo: Photo, made: Any) -> tuple[str, int]:
        """Give the content digest of what is sent for an image, `made` by `prepare`, and count its bytes."""
        return photo.digest, 0

    def take_fewer(self, most: int) -> None:
        """Learn that calls of more inputs are refused, whatever these are."""
        self.lessons = {**self.lessons, "batch": most}  # an endpoint keeps to it in later runs, too

    def find_missing(
        self, files: Sequence[ImageFile], digests: Sequence[str] | None = None
    ) -> Mapping[int, str]:
        """Find the images that it has no vector for, before anything is made of the others.

        Digests are the files' content digests, where they are known. Returns why, by the place in `files`:
        nothing, of a model that can be asked. Raises UsageError if its options allow none to be missing.
        """
        return {}


def embed_many(embedder: Embedder, inputs: Sequence[NDArray[Any]], batch: int = 32) -> NDArray[np.float32]:
    """Embed n prepared inputs, `batch` at a time, to `(n, dim)` float32 unit rows."""
    chunks = [inputs[start : start + batch] for start in range(0, len(inputs), batch)]
    return np.concatenate([embedder.embed(list(chunk)) for chunk in chunks])


def embed_checked(embedder: Embedder, batch: Sequence[Any], names: Sequence[str]) -> NDArray[np.float32]:
    """Embed n prepared inputs to `(n, dim)` float32 unit rows, and refuse whatever is not that.

    Raises:
        UnansweredError: The model answered for some of the images only.
        RetrievalError: Names the model, the fault and the first such image, by its place in `names`.
    """
    vectors = np.asarray(embedder.embed(batch), embedder.vector_type.dtype)
    if vectors.shape != (len(names), embedder.dim):
        raise RetrievalError(
            f"{embedder.name} answered {vectors.shape} for {len(names)} images ({names[0]}, ...), "
            f"not ({len(names)}, {embedder.dim})."
        )
    wrong = np.flatnonzero(embedder.vector_type.is_damaged(vectors))
    if len(wrong):
        length = np.linalg.norm(vectors[wrong[0]])
        raise RetrievalError(
            f"{embedder.name} answered for {names[wrong[0]]} with a vector of length {length:.3g}, not 1."
        )
    return vectors


def unit_rows(rows: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    """Scale `(n, dim)` rows of a model to unit length; UnansweredError names those without a direction."""
    reasons = {i: fault for i, row in enumerate(rows) if (fault := find_fault(row))}
    if reasons:
        raise UnansweredError(f"{name} {next(iter(reasons.values()))}", reasons)
    wide = rows.astype(np.float64)  # the squares of small numbers vanish in float32
    return (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32)


def find_fault(row: NDArray[np.float32]) -> str:
    """Why a vector cannot be an answer; empty if it can."""
    if not len(row):
        return "answered without a vector"
    if not np.isfinite(row).all():
        return "answered with a vector that is not finite, or not of its usual length"
    return "" if row.any() else "answered with a vector of zeros"


class AbsentEmbedder(Embedder):
    """Stands for a teacher by its key, so that its answers are found. It has none of its own."""

    calls = Calls(batch=1)

    def __init__(self, was: Mapping[str, Any], spec: str, options: EmbedderOptions) -> None:
        """Take what the run.json of a student says of its teacher, and what would open it."""
        self.key, self.name, self.dim = was["key"], was["name"], was["dim"]
        self.ranker, self.megabytes = was.get("ranker", {}), was.get("megabytes")
        self.spec, self.options = spec, options

    def prepare(self, photo: Photo) -> Any:
        """Raise ImageError."""
        raise ImageError(f"{self.name} cannot be asked")

    def embed(self, batch: Sequence[Any]) -> NDArray[np.float32]:
        """Raise UsageError."""
        raise UsageError(f"{self.name} cannot be asked. Give --teacher.")

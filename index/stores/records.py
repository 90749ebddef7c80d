"""What an index holds, as records: items, files, failures, vector spaces, manifest."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pyarrow as pa

from index.vectors import CODES, UNIT_FLOATS, VectorType

FORMAT = 2  # of a manifest; 1 had its files beside it, and every copy of an image as an item
UNFINISHED = "unfinished"  # the folder of a run that is not complete
RUN = "run.json"  # what `distill` notes of a student, beside it
CHUNK = 1024  # items that are read or written at a time
KINDS = {str: pa.string(), int: pa.int64()}


@dataclass(frozen=True)
class File:
    """A file that holds an image: its attributes are as in `Item`."""

    path: str
    name: str
    mtime: int


@dataclass(frozen=True)
class Item:
    """One image of the gallery; its id is its place in the list. No two items have the same content."""

    path: str  # absolute, links kept, of the first file that holds it; see `ImageFile.location`
    name: str  # its path below the folder that was indexed
    digest: str  # of its content
    size: int  # bytes
    width: int  # pixels, upright
    height: int
    mtime: int  # nanoseconds since 1970, of the file or, of a member, of its shard
    copies: tuple[File, ...] = ()  # the other files that hold it

    @property
    def files(self) -> list[File]:
        """All files that hold it, the first one first."""
        return [File(self.path, self.name, self.mtime), *self.copies]

    def in_files(self, files: Iterable[File]) -> "Item":
        """The same image in other files, the first one first."""
        first, *copies = files
        return replace(self, **vars(first), copies=tuple(copies))


@dataclass(frozen=True)
class Failure:
    """An image that could not be read, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Space:
    """One set of vectors over all items, and the FAISS index that searches it."""

    key: str  # identity of the embedder
    name: str  # its name, for people
    dim: int  # length of the vectors
    # What searches, how, and how well: as in `index.stores.faiss.tuning.TunedIndex`.
    factory: str = ""
    asked: float = 1.0
    recall: float = 0.0
    probes: int = 0
    refine: int = 0
    milliseconds: float = field(default=0.0, compare=False)  # no two measurements are the same
    dtype: str = UNIT_FLOATS.dtype  # as in `VectorType`
    metric: str = UNIT_FLOATS.metric
    queries: str = ""  # identity of the embedder of queries, if it is a later one than made the vectors
    rescore: int = 0  # results that the floats of a query order again, where the vectors are codes
    memory: float = 1.0  # as in `SearchTarget`: what was asked for beside recall
    given: bool = False  # whether the factory was asked for by its name

    def __post_init__(self) -> None:
        _ = self.type  # refuses what only a later version knows

    @property
    def type(self) -> VectorType:
        """How its vectors are stored and compared."""
        return VectorType(self.dtype, self.metric)

    @property
    def bits(self) -> int:
        """Bits of a code; 0 where its vectors are none."""
        return 8 * self.dim if self.type == CODES else 0

    @property
    def vector_bytes(self) -> int:
        """Bytes of a vector as it lies in files."""
        return self.dim * self.type.stored.itemsize


@dataclass(frozen=True)
class Stored:
    """A file of the data as it was written: its bytes and their content digest."""

    size: int
    digest: str


@dataclass(frozen=True)
class Manifest:
    """What the index is."""

    format: int  # version of the layout
    generation: int  # how often it was written; names the folder of the data
    created: str  # date and time, UTC
    sources: list[str]  # what was indexed
    count: int  # items
    copies: int  # further files with the content of an item
    failed: int  # images that were refused
    teacher: str | None  # what opens the teacher again, if there was one, together with its `EmbedderOptions`
    teacher_options: dict[str, Any] = field(default_factory=dict)
    # By name: `student`, `teacher`, and `projected`, the teacher's vectors in the student's space.
    spaces: dict[str, Space] = field(default_factory=dict)
    files: dict[str, Stored] = field(default_factory=dict)  # of the data, by name


def columns_of(record: type) -> list[tuple[str, pa.DataType]]:
    """The attributes of a record that are columns of a table, with their types."""
    return [(name, KINDS[kind]) for name, kind in record.__annotations__.items() if kind in KINDS]


def from_facts(facts: dict[str, Any]) -> Manifest:
    """Make a manifest of what `as_facts` gave; of something else KeyError, TypeError or AttributeError."""
    spaces = {str(name): Space(**space) for name, space in facts["spaces"].items()}
    files = {name: Stored(**stored) for name, stored in facts["files"].items()}
    return Manifest(**{**facts, "spaces": spaces, "files": files})


def as_facts(manifest: Manifest) -> dict[str, Any]:
    """A manifest as it is written: what is by default is not named, and earlier versions read it."""
    facts = asdict(manifest)
    for name, space in manifest.spaces.items():
        for later in ("dtype", "metric", "queries", "rescore", "memory", "given"):
            if getattr(space, later) == getattr(Space, later):
                del facts["spaces"][name][later]
    return facts

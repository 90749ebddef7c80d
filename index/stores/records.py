"""What an index holds, as records: items, files, failures, vector spaces, manifest."""

from dataclasses import asdict, dataclass, field
from typing import Any

from index.vectors import UNIT_FLOATS, VectorType

FORMAT = 2  # of a manifest; 1 had its files beside it, and every copy of an image as an item
UNFINISHED = "unfinished"  # the folder of a run that is not complete
CHUNK = 1024  # items that are read or written at a time


@dataclass(frozen=True)
class File:
    """A file that holds an image.

    Attributes:
        path: Absolute path, links kept.
        name: Path below the folder that was indexed.
        mtime: Nanoseconds since 1970.
    """

    path: str
    name: str
    mtime: int


@dataclass(frozen=True)
class Item:
    """One image of the gallery; its id is its place in the list. No two items have the same content.

    Attributes:
        path: Absolute path, links kept, of the first file that holds it; see `ImageFile.location`.
        name: Path below the folder that was indexed.
        digest: Content digest.
        size: Bytes.
        width: Pixels, upright.
        height: Pixels, upright.
        mtime: Nanoseconds since 1970, of the file or, of a member, of its shard.
        copies: The other files that hold it.
    """

    path: str
    name: str
    digest: str
    size: int
    width: int
    height: int
    mtime: int
    copies: tuple[File, ...] = ()

    @property
    def files(self) -> list[File]:
        """All files that hold it, the first one first."""
        return [File(self.path, self.name, self.mtime), *self.copies]


@dataclass(frozen=True)
class Failure:
    """An image that could not be read, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Space:
    """One set of vectors over all items, and the FAISS index that searches it.

    Attributes:
        key: Identity of the embedder.
        name: Its name for people.
        dim: Length of the vectors.
        factory: As in `index.stores.faiss.tuning.TunedIndex`, as are the others: what
            searches, how, and how well.
        dtype: As in `VectorType`,
        metric: as is this.
        queries: Identity of the embedder of queries, where a later one than made the vectors embeds them.
    """

    key: str
    name: str
    dim: int
    factory: str = ""
    asked: float = 1.0
    recall: float = 0.0
    probes: int = 0
    refine: int = 0
    milliseconds: float = field(default=0.0, compare=False)  # no two measurements are the same
    dtype: str = UNIT_FLOATS.dtype
    metric: str = UNIT_FLOATS.metric
    queries: str = ""

    def __post_init__(self) -> None:
        _ = self.type  # refuses what only a later version knows

    @property
    def type(self) -> VectorType:
        """How its vectors are stored and compared."""
        return VectorType(self.dtype, self.metric)


@dataclass(frozen=True)
class Stored:
    """A file of the data as it was written: its bytes and their content digest."""

    size: int
    digest: str


@dataclass(frozen=True)
class Manifest:
    """What the index is.

    Attributes:
        format: Version of the layout.
        generation: How often it was written; names the folder of the data.
        created: Date and time, UTC.
        sources: What was indexed.
        count: Items.
        copies: Further files with the content of an item.
        failed: Images that were refused.
        teacher: What opens the teacher again, if there was one,
        teacher_options: together with these `EmbedderOptions`.
        spaces: Sets of vectors by name: `student`, `teacher`, and `projected` (the teacher's vectors in the
            student's space).
        files: The files of the data by name.
    """

    format: int
    generation: int
    created: str
    sources: list[str]
    count: int
    copies: int
    failed: int
    teacher: str | None
    teacher_options: dict[str, Any] = field(default_factory=dict)
    spaces: dict[str, Space] = field(default_factory=dict)
    files: dict[str, Stored] = field(default_factory=dict)


def as_facts(manifest: Manifest) -> dict[str, Any]:
    """A manifest as it is written: what is by default is not named, and earlier versions read it."""
    facts = asdict(manifest)
    for name, space in manifest.spaces.items():
        if space.type == UNIT_FLOATS:
            del facts["spaces"][name]["dtype"], facts["spaces"][name]["metric"]
        if not space.queries:
            del facts["spaces"][name]["queries"]
    return facts

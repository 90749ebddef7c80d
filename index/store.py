"""The index folder on disk: written beside its place and renamed whole, so that a crash loses nothing."""

import json
import os
import shutil
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from index.ann import read_ann, write_ann
from index.embedder import Embedder, OnnxEmbedder
from index.errors import RetrievalError, UsageError

if TYPE_CHECKING:
    import faiss

FORMAT = 1
MANIFEST, ITEMS, ERRORS, STUDENT = "manifest.json", "items.parquet", "errors.parquet", "student.onnx"
COMPANIONS = ("run.json", "student.fp16.onnx", "student.int8.onnx")  # kept as well, where they lie beside it


@dataclass(frozen=True)
class Item:
    """One image of the gallery; its id is its place in the list.

    Attributes:
        path: Absolute path, links kept.
        name: Path below the folder that was indexed.
        digest: Content digest.
        size: Bytes.
        width: Pixels, upright.
        height: Pixels, upright.
        mtime: Seconds since 1970.
    """

    path: str
    name: str
    digest: str
    size: int
    width: int
    height: int
    mtime: int


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
        factory: FAISS factory string.
        recall: Recall@10 of that index against exact search, measured when it was built.
    """

    key: str
    name: str
    dim: int
    factory: str
    recall: float


@dataclass(frozen=True)
class Manifest:
    """What the index is.

    Attributes:
        format: Version of the layout.
        created: Date and time, UTC.
        count: Items.
        failed: Images that were refused.
        teacher: What opens the teacher again, if there was one,
        spaces: Sets of vectors by name: `student`, `teacher`, and `projected` (the teacher's vectors in the
            student's space).
        teacher_options: `EmbedderOptions` of the teacher.
    """

    format: int
    created: str
    count: int
    failed: int
    teacher: str | None
    spaces: dict[str, Space]
    teacher_options: dict[str, Any] = field(default_factory=dict)


class Index:
    """An index folder, opened to read."""

    def __init__(self, path: Path) -> None:
        """Open `path`.

        Raises:
            UsageError: It is no index, or one of another format.
        """
        self.path = path
        try:
            manifest = json.loads((path / MANIFEST).read_text())
            spaces = {name: Space(**space) for name, space in manifest.pop("spaces").items()}
            self.manifest = Manifest(spaces=spaces, **manifest)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UsageError(f"{path} is not an index. Make one with `retrieval index`.") from error
        if self.manifest.format != FORMAT:
            raise UsageError(
                f"{path} has format {self.manifest.format}, not {FORMAT}. Index the images again."
            )

    def __len__(self) -> int:
        return self.manifest.count

    @property
    def model_file(self) -> Path:
        """The student that made this index."""
        return self.path / STUDENT

    def companion(self, name: str) -> Path:
        """Where a file of `COMPANIONS` is, if it was kept."""
        return self.path / name

    @cached_property
    def items(self) -> list[Item]:
        """The gallery, by id."""
        return [Item(**row) for row in pq.read_table(self.path / ITEMS).to_pylist()]

    @cached_property
    def failures(self) -> list[Failure]:
        """The images that were refused."""
        return [Failure(**row) for row in pq.read_table(self.path / ERRORS).to_pylist()]

    @cached_property
    def ids_by_digest(self) -> dict[str, list[int]]:
        """Ids of the items with a given content."""
        ids: dict[str, list[int]] = {}
        for i, item in enumerate(self.items):
            ids.setdefault(item.digest, []).append(i)
        return ids

    def vectors(self, space: str) -> NDArray[np.float32]:
        """Memory-map the `(count, dim)` float32 vectors of a space."""
        return np.load(self.path / f"{space}.npy", mmap_mode="r", allow_pickle=False)

    def ann(self, space: str) -> "faiss.Index":
        """Read the FAISS index of a space."""
        return read_ann(self.path / f"{space}.faiss")

    def require_model(self, space: str, key: str, name: str) -> None:
        """Refuse a model that is not the one which made the vectors of a space.

        Raises:
            UsageError: Names both models.
        """
        made_by = self.manifest.spaces[space]
        if made_by.key != key:
            raise UsageError(
                f"{self.path} was made with another {space}: {made_by.name} ({made_by.key[-8:]}), "
                f"not {name} ({key[-8:]}). Index the images again, or give that model."
            )


class IndexWriter:
    """Writes an index folder in a hidden folder beside it. Without `commit`, leaving removes everything."""

    def __init__(self, out: Path) -> None:
        """Start to write `out`.

        Raises:
            UsageError: `out` is something else than an index, or its parent does not exist.
        """
        self._out = out.absolute()
        if self._out.exists() and not (self._out / MANIFEST).is_file() and not _is_empty_folder(self._out):
            raise UsageError(f"{out} exists and is not an index. Give another --out.")
        if not self._out.parent.is_dir():
            raise UsageError(f"{self._out.parent} does not exist. Make it, or give another --out.")
        self._beside = self._out.with_name(f".{self._out.name}.partial-{os.getpid()}")
        self._beside.mkdir()
        self._spaces: dict[str, Space] = {}
        self._arrays: dict[str, _ArrayFile] = {}
        self._items: list[Item] = []
        self._failures: list[Failure] = []

    def __enter__(self) -> "IndexWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for array in self._arrays.values():
            array.close()
        shutil.rmtree(self._beside, ignore_errors=True)

    @property
    def count(self) -> int:
        """Items written so far."""
        return len(self._items)

    @property
    def first_failure(self) -> str:
        """The first image that was refused, with its reason."""
        return f"{self._failures[0].path}: {self._failures[0].reason}"

    def add_space(self, name: str, key: str, model: str, dim: int) -> None:
        """Declare a space before anything is appended."""
        self._spaces[name] = Space(key, model, dim, "", 0.0)
        self._arrays[name] = _ArrayFile(self._beside / f"{name}.npy", dim)

    def append(
        self, items: list[Item], vectors: dict[str, NDArray[np.float32]], failures: list[Failure]
    ) -> None:
        """Add n items, with `(n, dim)` vectors for each space, and the failures that came with them."""
        self._items.extend(items)
        self._failures.extend(failures)
        for name, rows in vectors.items():
            self._arrays[name].append(rows)

    def finish_vectors(self) -> dict[str, NDArray[np.float32]]:
        """Close the vector files and map them to read, by space."""
        for array in self._arrays.values():
            array.close()
        return {
            name: np.load(self._beside / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in self._arrays
        }

    def add_ann(self, name: str, ann: "faiss.Index", factory: str, recall: float) -> None:
        """Store the FAISS index of a space."""
        write_ann(ann, self._beside / f"{name}.faiss")
        space = self._spaces[name]
        self._spaces[name] = Space(space.key, space.name, space.dim, factory, recall)

    def keep_model(self, student: OnnxEmbedder) -> None:
        """Copy the student and what tells of it, so that the index can be searched wherever it is taken."""
        (self._beside / STUDENT).write_bytes(student.data)
        for companion in COMPANIONS:
            if (file := Path(student.spec).with_name(companion)).is_file():
                shutil.copyfile(file, self._beside / companion)

    def commit(self, teacher: Embedder | None) -> Index:
        """Write the tables and the manifest, and put the folder in its place.

        Args:
            teacher: The teacher, if there is one. How to open it again is remembered; no key is.

        Raises:
            RetrievalError: The folder could not be put there.
        """
        _write_table(self._beside / ITEMS, Item, self._items)
        _write_table(self._beside / ERRORS, Failure, self._failures)
        created = datetime.now(UTC).isoformat(timespec="seconds")
        manifest = Manifest(
            FORMAT,
            created,
            len(self._items),
            len(self._failures),
            teacher.spec if teacher else None,
            self._spaces,
            asdict(teacher.options) if teacher else {},
        )
        (self._beside / MANIFEST).write_text(json.dumps(asdict(manifest), indent=2) + "\n")
        old = self._out.with_name(f".{self._out.name}.old-{os.getpid()}")
        try:
            if self._out.exists():
                self._out.rename(old)
            self._beside.rename(self._out)
        except OSError as error:
            raise RetrievalError(f"{self._out} could not be written: {error.strerror}.") from error
        shutil.rmtree(old, ignore_errors=True)
        return Index(self._out)


class _ArrayFile:
    """A .npy file of float32 rows that grows: NumPy pads the header, so the row count can be set last."""

    def __init__(self, path: Path, dim: int) -> None:
        self._file: BinaryIO = path.open("wb")
        self._dim = dim
        self._rows = 0
        self._write_header()

    def _write_header(self) -> None:
        header = {"descr": "<f4", "fortran_order": False, "shape": (self._rows, self._dim)}
        self._file.seek(0)
        np.lib.format.write_array_header_1_0(self._file, header)

    def append(self, rows: NDArray[np.float32]) -> None:
        self._file.write(np.ascontiguousarray(rows, "<f4").tobytes())
        self._rows += len(rows)

    def close(self) -> None:
        if not self._file.closed:
            self._write_header()
            self._file.close()


def _write_table(path: Path, kind: type, rows: list) -> None:
    types = {"str": pa.string(), "int": pa.int64(), str: pa.string(), int: pa.int64()}
    schema = pa.schema([(field.name, types[field.type]) for field in fields(kind)])
    pq.write_table(pa.Table.from_pylist([asdict(row) for row in rows], schema), path, compression="zstd")


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())

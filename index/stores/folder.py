"""The index folder on disk, opened to read.

A small manifest names the folder of the data, and replacing it is what makes a new index: a crash at any
moment leaves the old one. `index.stores.folder_writer` writes it, `index.build.journal` keeps what is
embedded before that.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from index.embedders.teacher_space import TEACHER_SPACE
from index.errors import UsageError
from index.io import chunks, file_digest, forget, require_utf8
from index.stores.base import Store
from index.stores.faiss.codes import open_ann
from index.stores.faiss.vector_index import EXACT, SearchParams, VectorIndex, read_ann
from index.stores.records import CHUNK, FORMAT, Failure, File, Item, Manifest, from_facts
from index.vectors import Vectors

if TYPE_CHECKING:
    import faiss

MANIFEST, ITEMS, ERRORS, STUDENT = "manifest.json", "items.parquet", "errors.parquet", "student.onnx"
# Kept as well, where they lie beside it.
COMPANIONS = ("run.json", TEACHER_SPACE, "student.fp16.onnx", "student.int8.onnx")
METADATA = "metadata.parquet"
_REPLACED = "{} was replaced meanwhile. Open it again."
_AGAIN = "Index the images again, without --update or --resume."
_DAMAGED = f"{{}} is damaged. {_AGAIN}"


class Index(Store):
    """An index folder, opened to read."""

    # The overrides below are attributes that are read when they are first asked for.
    engine: Mapping[str, str] = {"Searched by": "FAISS"}

    def __init__(self, path: Path, allowed: Sequence[str] = ()) -> None:
        """Open a folder.

        Raises:
            UsageError: It is no index, a damaged one, one of another format, or its name is not UTF-8.
        """
        require_utf8(path)
        self.path, self.allowed = path, allowed
        self.manifest = _read_manifest(path)
        self.data = data_folder(path, self.manifest.generation)
        self._vectors: dict[str, Vectors] = {}

    @property
    def model_file(self) -> Path:  # type: ignore[override]
        """The student that made this index."""
        return self._file(STUDENT)

    @cached_property
    def items(self) -> list[Item]:  # type: ignore[override]
        """The gallery, by id."""
        return list(self.iter_items())

    def iter_items(self) -> Iterator[Item]:
        """Read the gallery in bounded memory, by rising id."""
        for batch in self.iter_batches():
            for row in batch.to_pylist():
                yield Item(**{**row, "copies": tuple(File(**copy) for copy in row["copies"])})

    def iter_batches(self) -> Iterator[pa.RecordBatch]:
        """Read the gallery as columns named as the attributes of `Item`, some items at a time."""
        return _batches(self._file(ITEMS))

    def read_columns(self, *names: str) -> pa.Table:
        """Read some attributes of all items, by id."""
        with _explain_damage(file := self._file(ITEMS)):
            return pq.read_table(file, columns=list(names))

    @cached_property
    def failures(self) -> list[Failure]:  # type: ignore[override]
        """The images that were refused."""
        return read_failures(self._file(ERRORS))

    @cached_property
    def ids_by_digest(self) -> dict[str, list[int]]:  # type: ignore[override]
        """Ids of the items with a given content."""
        return {item.digest: [i] for i, item in enumerate(self.items)}

    def vectors(self, space: str) -> Vectors:
        """Memory-map the `(count, dim)` float32 vectors of a space."""
        if space not in self._vectors:
            file = self._file(f"{space}.npy")
            try:
                self._vectors[space] = np.load(file, mmap_mode="r", allow_pickle=False)
            except Exception as error:  # a header with broken bytes raises anything
                raise UsageError(_DAMAGED.format(file)) from error
        return self._vectors[space]

    def rows(self, space: str, ids: NDArray[np.int64] | None = None) -> Vectors:
        """The `(len(ids), dim)` vectors of some items; None takes all."""
        return self.vectors(space) if ids is None else self.vectors(space)[ids]

    def read_rows(self, space: str, ids: NDArray[np.int64]) -> Vectors:
        """As `rows`, of what is read once: it is not kept mapped."""
        vectors = self.vectors(space)
        taken = vectors[ids]
        forget(vectors)
        return taken

    def iter_rows(self, space: str) -> Iterator[Vectors]:
        """As `Store.iter_rows`; what was read is not kept mapped."""
        return chunks(self.vectors(space), CHUNK)

    def check_space(self, space: str) -> Iterator[str]:
        """As `Store.check_space`: there are as many vectors as items, and the FAISS file is of as many."""
        vectors, ann, made = self.vectors(space), self.ann(space), self.manifest.spaces[space]
        if vectors.shape != (wanted := (len(self), made.dim)):
            yield f"vectors {vectors.shape}, not {wanted}"
        elif ann is not None and (ann.ntotal, ann.d) != (wanted := (len(self), made.bits or made.dim)):
            yield f"the FAISS file has {ann.ntotal} vectors of {ann.d}, not {wanted}"

    def open_space(self, space: str, device: str) -> VectorIndex:
        """Join the FAISS index of a space and its vectors."""
        made = self.manifest.spaces[space]
        effort = SearchParams(made.probes, made.refine)
        return open_ann(self.ann(space), self.vectors(space), effort, device, made.rescore)

    def ann(self, space: str) -> "faiss.Index | None":
        """Read the FAISS index of a space; None where its vectors are searched themselves."""
        if self.manifest.spaces[space].factory == EXACT:
            return None
        return read_ann(self._file(f"{space}.faiss"), bool(self.manifest.spaces[space].bits))

    @cached_property
    def metadata(self) -> pa.Table | None:  # type: ignore[override]
        """What `index.stores.filters` keeps of the items, if there is anything."""
        if METADATA not in self.manifest.files:
            return None
        with _explain_damage(file := self._file(METADATA)):
            return pq.read_table(file)

    def pin(self) -> None:
        """Open everything now, to be read whatever becomes of the folder; UsageError if it was replaced."""
        _ = self.ids_by_digest, self.failures, self.metadata
        for space in self.manifest.spaces:
            self.vectors(space)
        if _read_manifest(self.path) != self.manifest:
            raise UsageError(_REPLACED.format(self.path))

    def is_replaced(self) -> bool:
        """Whether its manifest has become another; one that is gone or broken replaces nothing."""
        try:
            return _read_manifest(self.path) != self.manifest
        except (UsageError, OSError):
            return False

    def faults(self, thorough: bool = True) -> Iterator[str]:
        """As `Store.faults`; unless it is `thorough`, sizes alone are looked at, and no file is read."""
        for name, stored in self.manifest.files.items():
            file = self.data / name
            if not file.is_file():
                yield f"{file} is missing"
            elif file.stat().st_size != stored.size:
                yield f"{file} has {file.stat().st_size} bytes, not {stored.size}"
            elif thorough and file_digest(file) != stored.digest:
                yield f"{file} is not as it was written"

    def require_whole(self, thorough: bool = True) -> None:
        """Raise UsageError for a damaged index: built upon, with new digests, nobody would see it."""
        for fault in self.faults(thorough):
            raise UsageError(f"{fault}. {_AGAIN}")

    def _file(self, name: str) -> Path:
        path = self.data / name
        if not path.exists():
            meanwhile = _read_manifest(self.path).generation != self.manifest.generation
            raise UsageError(
                _REPLACED.format(self.path) if meanwhile else f"{path} is missing. Index the images again."
            )
        stored = self.manifest.files.get(name)
        if stored and path.stat().st_size != stored.size:
            raise UsageError(_DAMAGED.format(path))
        return path


def data_folder(path: Path, generation: int) -> Path:
    """Where an index keeps its data."""
    return path / f"data-{generation}"


def _read_manifest(path: Path) -> Manifest:
    file = path / MANIFEST
    if not file.is_file():
        raise UsageError(f"{path} is not an index. Make one with `retrieval index`.")
    try:
        facts = json.loads(file.read_text())
        if facts["format"] == FORMAT:
            return from_facts(facts)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"{file} is damaged. Remove {path}, and index the images again.") from error
    raise UsageError(
        f"{path} has format {facts['format']}, not {FORMAT}. Remove it, and index the images again."
    )


def read_failures(file: Path) -> list[Failure]:
    """Read a file of images that were refused."""
    return [Failure(**row) for batch in _batches(file) for row in batch.to_pylist()]


def _batches(file: Path) -> Iterator[pa.RecordBatch]:
    with _explain_damage(file), pq.ParquetFile(file) as table:
        yield from table.iter_batches(CHUNK)


@contextmanager
def _explain_damage(file: Path) -> Iterator[None]:
    """Turn what a broken file raises into one line with the remedy."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise UsageError(_DAMAGED.format(file)) from error

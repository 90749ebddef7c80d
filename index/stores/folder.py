"""The index folder on disk, opened to read.

A small manifest names the folder of the data, and replacing it is what makes a new index: a crash at any
moment leaves the old one. `index.stores.folder_writer` writes it, `index.build.journal` keeps what is
embedded before that.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from index.embedders.teacher_space import TEACHER_SPACE
from index.errors import UsageError
from index.io import FEW, Release, chunks, file_digest, forget, require_utf8
from index.stores.base import Store
from index.stores.faiss.codes import open_ann
from index.stores.faiss.vector_index import EXACT, SearchParams, VectorIndex, read_ann
from index.stores.records import CHUNK, Failure, Manifest, from_facts
from index.stores.tables import AGAIN, Digests, Items, map_batches, sound
from index.vectors import Vectors

if TYPE_CHECKING:
    import faiss

FORMAT, FORMER = 3, 2  # of an index folder, whose tables were in Parquet before
MANIFEST, ITEMS, ERRORS, STUDENT = "manifest.json", "items.arrow", "errors.arrow", "student.onnx"
# Kept as well, where they lie beside it.
COMPANIONS = ("run.json", TEACHER_SPACE, "student.fp16.onnx", "student.int8.onnx")
METADATA, DIGESTS = "metadata.arrow", "digests.npy"
_REPLACED = "{} was replaced meanwhile. Open it again."
_DAMAGED = f"{{}} is damaged. {AGAIN}"


class Index(Store):
    """An index folder, opened to read."""

    # The overrides below are attributes that are read when they are first asked for.
    engine: Mapping[str, str] = {"Searched by": "FAISS"}
    format = FORMAT

    def __init__(self, path: Path, allowed: Sequence[str] = ()) -> None:
        """Open a folder.

        Raises:
            UsageError: It is no index, a damaged one, one of another format, or its name is not UTF-8.
        """
        require_utf8(path)
        self.path, self.allowed = path, allowed
        self.manifest = read_manifest(path, self.format)
        self.data = data_folder(path, self.manifest.generation)
        self._mapped: dict[str, NDArray[Any]] = {}

    @property
    def model_file(self) -> Path:  # type: ignore[override]
        """The student that made this index."""
        return self._file(STUDENT)

    @cached_property
    def items(self) -> Items:  # type: ignore[override]
        """The gallery, by id."""
        return Items(*_batches(self._file(ITEMS)))

    def iter_batches(self) -> Iterator[pa.RecordBatch]:
        """As `Store.iter_batches`: mapped, and to be checked by `sound` unless the file was."""
        return iter(self.items.batches)

    @cached_property
    def failures(self) -> list[Failure]:  # type: ignore[override]
        """The images that were refused."""
        return read_failures(self._file(ERRORS))

    @cached_property
    def ids_by_digest(self) -> Digests:  # type: ignore[override]
        """Ids of the items with a given content."""
        return Digests(self._map(DIGESTS), self.items)

    def vectors(self, space: str) -> Vectors:
        """Memory-map the `(count, dim)` float32 vectors of a space."""
        return self._map(f"{space}.npy")

    def _map(self, name: str) -> NDArray[Any]:
        if name not in self._mapped:
            file = self._file(name)
            try:
                self._mapped[name] = np.load(file, mmap_mode="r", allow_pickle=False)
            except Exception as error:  # a header with broken bytes raises anything
                raise UsageError(_DAMAGED.format(file)) from error
        return self._mapped[name]

    def rows(self, space: str, ids: NDArray[np.int64] | None = None) -> Vectors:
        """The `(len(ids), dim)` vectors of some items; None takes all."""
        if ids is not None and len(ids) > FEW:
            return self.read_rows(space, ids)
        return self.vectors(space) if ids is None else self.vectors(space)[ids]

    def read_rows(self, space: str, ids: NDArray[np.int64]) -> Vectors:
        """As `rows`, of what is read once, or is much: it is not kept mapped."""
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
    def metadata(self) -> pa.RecordBatch | None:  # type: ignore[override]
        """What `index.stores.metadata` keeps of the items, if there is anything."""
        return _batches(self._file(METADATA))[0][0] if METADATA in self.manifest.files else None

    def pin(self) -> None:
        """Open everything now, to be read whatever becomes of the folder; UsageError if it was replaced."""
        _ = self.ids_by_digest, self.failures, self.metadata
        for space in self.manifest.spaces:
            self.vectors(space)
        if read_manifest(self.path) != self.manifest:
            raise UsageError(_REPLACED.format(self.path))

    def is_replaced(self) -> bool:
        """Whether its manifest has become another; one that is gone or broken replaces nothing."""
        try:
            return read_manifest(self.path) != self.manifest
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
            raise UsageError(f"{fault}. {AGAIN}")

    def _file(self, name: str) -> Path:
        path = self.data / name
        if not path.exists():
            meanwhile = read_manifest(self.path).generation != self.manifest.generation
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


def read_manifest(path: Path, *formats: int) -> Manifest:
    """Read the manifest of an index folder of some formats; none takes all. UsageError as for `Index`."""
    file = path / MANIFEST
    if not file.is_file():
        raise UsageError(f"{path} is not an index. Make one with `retrieval index`.")
    try:
        facts = json.loads(file.read_text())
        if (found := facts["format"]) in (formats or (FORMAT, FORMER)):
            return from_facts(facts)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"{file} is damaged. Remove {path}, and index the images again.") from error
    if found == FORMER:
        raise UsageError(f"{path} is of an earlier version. Convert it: retrieval index compact {path}")
    raise UsageError(f"{path} has format {found}, not {FORMAT}. Remove it, and index the images again.")


def read_failures(file: Path) -> list[Failure]:
    """Read a file of images that were refused."""
    return [Failure(**row) for batch in _batches(file)[0] for row in sound(batch).to_pylist()]


def _batches(file: Path) -> tuple[list[pa.RecordBatch], Release]:
    try:
        return map_batches(file)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UsageError(_DAMAGED.format(file)) from error

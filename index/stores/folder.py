"""The index folder on disk, opened to read.

A small manifest names the folder of the data, and replacing it is what makes a new index: a crash at any
moment leaves the old one. `index.stores.writing.writer` writes it, `index.build.journal` keeps what is
embedded before that.

A large index has a second part once it was updated: files that begin with `later-`, which are searched
exactly, and the places in the first part of what is gone from there, or has become another.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from index.embedders.teacher_space import TEACHER_SPACE
from index.errors import UsageError
from index.io import FEW, chunks, file_digest, forget, require_utf8
from index.stores.base import Searchable, Store
from index.stores.faiss.codes import open_ann
from index.stores.faiss.joined import JoinedIndex
from index.stores.faiss.vector_index import EXACT, SearchParams, read_ann
from index.stores.metadata.columns import ITEM, Metadata, decode
from index.stores.metadata.join import PATH
from index.stores.records import CHUNK, RUN, Failure, Manifest, from_facts
from index.stores.tables import AGAIN, Digests, Items, Places, map_batches, numbers, read_failures
from index.vectors import Vectors

FORMAT, PARTED = 3, 4  # of an index folder: in one part, in two
FORMER = 2  # with tables in Parquet
MANIFEST, ITEMS, ERRORS, STUDENT = "manifest.json", "items.arrow", "errors.arrow", "student.onnx"
# Kept as well, where they lie beside it.
COMPANIONS = (RUN, TEACHER_SPACE, "student.fp16.onnx", "student.int8.onnx")
METADATA, DIGESTS = "metadata.arrow", "digests.npy"
LATER, GONE = "later-", "gone.npy"  # what the files of a second part begin with; `Places.gone`
_REPLACED = "{} was replaced meanwhile. Open it again."
_DAMAGED = f"{{}} is damaged. {AGAIN}"


class Index(Store):
    """An index folder, opened to read."""

    # The overrides below are attributes that are read when they are first asked for.
    engine: Mapping[str, str] = {"Searched by": "FAISS"}
    formats: tuple[int, ...] = (FORMAT, PARTED)

    def __init__(self, path: Path, allowed: Sequence[str] = ()) -> None:
        """Open a folder; UsageError if it is no index, a damaged one, one of another format, or not UTF-8."""
        require_utf8(path)
        self.path, self.allowed = path, allowed
        self.manifest = read_manifest(path, *self.formats)
        self.data = data_folder(path, self.manifest.generation)
        self.prefixes = ("", LATER) if GONE in self.manifest.files else ("",)  # of the files of its parts
        self._mapped: dict[str, NDArray[Any]] = {}

    @property
    def model_file(self) -> Path:  # type: ignore[override]
        """The student that made this index."""
        return self._file(STUDENT)

    @cached_property
    def places(self) -> Places:
        """Where the items lie in the parts; UsageError for what leads elsewhere."""
        gone = self._map(GONE) if GONE in self.manifest.files else np.empty(0, np.int64)
        inside = np.diff(gone, prepend=-1, append=self.first_part) > 0
        if gone.dtype != np.int64 or gone.ndim > 1 or not inside.all():
            raise UsageError(_DAMAGED.format(self._file(GONE)))
        return Places(gone)

    @cached_property
    def first_part(self) -> int:
        """How many items the first part has, those that are gone from it included."""
        return int(self._map(DIGESTS).shape[-1]) if len(self.prefixes) > 1 else len(self)

    @property
    def counts(self) -> list[int]:
        """How many items each part has, likewise."""
        stored = len(self) + len(self.places.gone)
        return [self.first_part, stored - self.first_part][: len(self.prefixes)]

    @cached_property
    def items(self) -> Items:  # type: ignore[override]
        """The gallery, by id."""
        tables = [map_batches(self._file(prefix + ITEMS)) for prefix in self.prefixes]
        return Items([batch for table, _ in tables for batch in table], tables[0][1], self.places)

    def iter_batches(self) -> Iterator[pa.RecordBatch]:
        """As `Store.iter_batches`: mapped, and to be checked by `sound` unless the file was."""
        return self.items.batches()

    @cached_property
    def failures(self) -> list[Failure]:  # type: ignore[override]
        """The images that were refused."""
        return read_failures(self._file(ERRORS))

    @cached_property
    def ids_by_digest(self) -> Digests:  # type: ignore[override]
        """Ids of the items with a given content."""
        return Digests([self._map(prefix + DIGESTS) for prefix in self.prefixes], self.items, self.places)

    def vectors(self, space: str) -> Vectors:
        """The `(count, dim)` vectors of a space: mapped, or, of two parts, copied together."""
        parts = self._parts(space)
        return parts[0] if len(parts) == 1 else np.concatenate(list(self.iter_rows(space)))

    def _parts(self, space: str) -> list[Vectors]:
        return [self._map(f"{prefix}{space}.npy") for prefix in self.prefixes]

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
        if ids is None:
            return self.vectors(space)
        if len(ids) > FEW:
            return self.read_rows(space, ids)
        first, *later = self._parts(space)
        if not later:
            return first[ids]
        places, taken = self.places.of(ids), np.empty((len(ids), first.shape[1]), first.dtype)
        early = places < len(first)
        taken[early], taken[~early] = first[places[early]], later[0][places[~early] - len(first)]
        return taken

    def read_rows(self, space: str, ids: NDArray[np.int64]) -> Vectors:
        """As `rows`, of what is read once, or is much: it is not kept mapped."""
        parts = [self.rows(space, ids[start : start + FEW]) for start in range(0, max(len(ids), 1), FEW)]
        forget(self._parts(space)[0])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def iter_rows(self, space: str) -> Iterator[Vectors]:
        """As `Store.iter_rows`; what was read is not kept mapped."""
        start = 0
        for part in self._parts(space):
            for rows in chunks(part, CHUNK):
                there = self.places.there(start, len(rows))
                yield rows if there is None else rows[there]
                start += len(rows)

    def check_space(self, space: str) -> Iterator[str]:
        """As `Store.check_space`: there are as many vectors as items, and the FAISS file is of as many."""
        made, first = self.manifest.spaces[space], self.first_part
        for vectors, count in zip(self._parts(space), self.counts, strict=True):
            if vectors.shape != (wanted := (count, made.dim)):
                yield f"vectors {vectors.shape}, not {wanted}"
                return
        ann = self.ann(space)
        if ann is not None and (ann.ntotal, ann.d) != (wanted := (first, made.bits or made.dim)):
            yield f"the FAISS file has {ann.ntotal} vectors of {ann.d}, not {wanted}"

    def open_space(self, space: str, device: str) -> Searchable:
        """Join the FAISS index of a space and its vectors."""
        made, (first, *later) = self.manifest.spaces[space], self._parts(space)
        effort = SearchParams(made.probes, made.refine)
        opened = open_ann(self.ann(space), first, effort, device, made.rescore)
        if not later:
            return opened
        parts = [opened, *(open_ann(None, part) for part in later)]
        return JoinedIndex(parts, self.places, lambda ids: self.read_rows(space, ids), made.rescore)

    def ann(self, space: str) -> Any:
        """Read the FAISS index of a space, or of its first part; None where it needs none."""
        if self.manifest.spaces[space].factory == EXACT:
            return None
        return read_ann(self._file(f"{space}.faiss"), bool(self.manifest.spaces[space].bits))

    @cached_property
    def parts_known(self) -> list[pa.RecordBatch]:  # type: ignore[override]
        """What `index.stores.metadata` keeps of the items of each part, if there is anything."""
        names = [prefix + METADATA for prefix in self.prefixes if METADATA in self.manifest.files]
        return [map_batches(self._file(name))[0][0] for name in names]

    @cached_property
    def _known(self) -> Metadata:
        return Metadata(lambda: self.items.stored, self.counts, self.parts_known, self.places)

    @property
    def tables(self) -> list[pa.Table]:
        """What is known of the files of each part, as `index.stores.metadata.join.Joined.table`."""
        tables = [decode(known) for known in self.parts_known]
        if len(tables) > 1:  # the second has taken over what was known of what is gone from the first
            owners = numbers(self.parts_known[0].column(ITEM), np.int32)
            gone = pa.chunked_array([pa.array(np.isin(owners, self.places.gone))])
            taken = pc.is_in(tables[0][PATH], tables[1][PATH].combine_chunks())
            tables[0] = tables[0].filter(pc.invert(pc.or_(gone, taken)))
        return tables

    def pin(self) -> None:
        """Open everything now, to be read whatever becomes of the folder; UsageError if it was replaced."""
        _ = self.ids_by_digest, self.failures, self.parts_known
        for space in self.manifest.spaces:
            self._parts(space)
        if read_manifest(self.path) != self.manifest:
            raise UsageError(_REPLACED.format(self.path))

    def is_replaced(self) -> bool:
        """Whether its manifest has become another; one that is gone or broken replaces nothing."""
        try:
            return read_manifest(self.path) != self.manifest
        except (UsageError, OSError):
            return False

    def faults(self, read: str | None = "") -> Iterator[str]:
        """As `Store.faults`; only files whose names begin so are read, of others sizes are looked at."""
        for name, stored in self.manifest.files.items():
            file = self.data / name
            if not file.is_file():
                yield f"{file} is missing"
            elif file.stat().st_size != stored.size:
                yield f"{file} has {file.stat().st_size} bytes, not {stored.size}"
            elif read is not None and name.startswith(read) and file_digest(file) != stored.digest:
                yield f"{file} is not as it was written"

    def require_whole(self, read: str | None = "") -> None:
        """Raise UsageError for a damaged index: built upon, with new digests, nobody would see it."""
        for fault in self.faults(read):
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
    if re.match(r"milvus(\+https)?:/", str(path)):  # of two slashes a path keeps one
        raise UsageError(
            "This takes an index folder, no Milvus collection. Write one with `retrieval index --out`."
        )
    if not file.is_file():
        raise UsageError(f"{path} is not an index. Make one with `retrieval index`.")
    try:
        facts = json.loads(file.read_text())
        if (found := facts["format"]) in (formats or (FORMAT, PARTED, FORMER)):
            return from_facts(facts)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"{file} is damaged. Remove {path}, and index the images again.") from error
    if found == FORMER:
        raise UsageError(f"{path} is of an earlier version. Convert it: retrieval index compact {path}")
    raise UsageError(f"{path} has format {found}, not {FORMAT}. Remove it, and index the images again.")

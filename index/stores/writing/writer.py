"""Write an index folder: the data into a folder of its own, then the manifest, in one step."""

import errno
import json
import os
import shutil
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from index.embedders.onnx import OnnxEmbedder
from index.errors import UsageError
from index.io import atomic_write, file_digest, sync
from index.progress import say
from index.stores.faiss.tuning import GIB, TunedIndex, build_tuned
from index.stores.faiss.vector_index import write_ann
from index.stores.folder import (
    COMPANIONS,
    DIGESTS,
    ERRORS,
    FORMAT,
    GONE,
    ITEMS,
    LATER,
    MANIFEST,
    METADATA,
    PARTED,
    STUDENT,
    Index,
    data_folder,
    read_manifest,
)
from index.stores.metadata.columns import encode
from index.stores.metadata.join import carry_over, list_files
from index.stores.options import AUTO, SearchTarget
from index.stores.records import Failure, Item, Manifest, Space, Stored, as_facts
from index.stores.tables import (
    ITEM_SCHEMA,
    Items,
    as_row,
    map_batches,
    read_failures,
    sort_keys,
    write_failures,
    write_rows,
)
from index.vectors import Ids, Vectors


class IndexWriter(AbstractContextManager["IndexWriter"]):
    """Writes the next generation of an index, whose `Journal` is open; without `commit` it is removed."""

    def __init__(self, out: Path, sources: Iterable[str]) -> None:
        """Start to write into an index folder, which exists; what is indexed is remembered."""
        generation = read_manifest(out).generation + 1 if (out / MANIFEST).is_file() else 1
        self._out, self._data = out, data_folder(out, generation)
        shutil.rmtree(self._data, ignore_errors=True)  # of a run that was killed while it wrote
        self._data.mkdir()
        self._manifest = Manifest(FORMAT, generation, "", list(sources), 0, 0, 0, None)
        self._prefix, self._written = "", 0  # of a part: what its files begin with, and how many items it has
        self._linked: dict[str, Stored] = {}

    def __exit__(self, *_: object) -> None:
        named = (self._out / MANIFEST).is_file() and read_manifest(self._out).generation
        if named != self._manifest.generation:  # it is what was written a moment before `commit` has ended
            shutil.rmtree(self._data, ignore_errors=True)

    def add_items(self, items: Iterable[Item]) -> None:
        """Write the gallery, in bounded memory."""
        self._written = write_rows(self._path(ITEMS), ITEM_SCHEMA, map(as_row, items))
        written = list(self.items.batches())
        np.save(self._path(DIGESTS), sort_keys(batch["digest"] for batch in written))
        count = self._manifest.count + self._written
        copies = self._manifest.copies + sum(len(batch["copies"].flatten()) for batch in written)
        self._manifest = replace(self._manifest, count=count, copies=copies)

    def _path(self, name: str) -> Path:
        return self._data / f"{self._prefix}{name}"

    def go_on(self, index: Index, gone: Ids, copies: int) -> None:
        """Keep the first part of an index, less `gone` places, with so many copies: a second part follows."""
        left = {STUDENT, *COMPANIONS, ERRORS, GONE}
        self._link(index, [n for n in index.manifest.files if n not in left and not n.startswith(LATER)])
        np.save(self._data / GONE, gone)
        count = index.first_part - len(gone)
        self._manifest, self._prefix = replace(self._manifest, count=count, copies=copies), LATER

    def add_failures(self, failures: Iterable[Failure]) -> None:
        """Write the images that were refused."""
        self._manifest = replace(self._manifest, failed=write_failures(self._data / ERRORS, failures))

    def add_space(self, name: str, space: Space, chunks: Iterable[Vectors]) -> Vectors:
        """Write the vectors of all items, `(n, dim)` rows at a time, after these, and map them to read."""
        path = self._path(f"{name}.npy")
        shape = (self._written, space.dim)
        with path.open("wb") as file:
            descr = np.lib.format.dtype_to_descr(space.type.stored)
            header = {"descr": descr, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for rows in chunks:
                file.write(space.type.to_bytes(rows))
        self._manifest.spaces[name] = space
        return np.load(path, mmap_mode="r", allow_pickle=False)

    def carry_metadata(self, base: Index) -> pa.Table | None:
        """What another index knows of the items, after the items: it goes with what was moved."""
        if not (tables := base.tables):
            return None
        return carry_over(pa.concat_tables(tables), list_files(base.items), list_files(self.items))

    def count_gone(self, base: Index) -> int:
        """How many images of another index have no file any more, after items and failures."""
        old, new = list_files(base.items), list_files(self.items)
        refused = pa.array([failure.path for failure in read_failures(self._data / ERRORS)], pa.string())
        there = pc.is_in(old["digest"], new["digest"].combine_chunks())
        for paths in (new["path"].combine_chunks(), refused):  # of those that were changed, too
            there = pc.or_(there, pc.is_in(old["path"], paths))
        left = old.filter(there)["digest"].combine_chunks()
        return pc.count_distinct(old["digest"].filter(pc.invert(pc.is_in(old["digest"], left)))).as_py()

    @property
    def items(self) -> Items:
        """The gallery that was written."""
        return Items(*map_batches(self._path(ITEMS)))

    def add_metadata(self, table: pa.Table, like: pa.RecordBatch | None = None) -> None:
        """Store what is known of the items, after the items: `Joined.table`; `like` is as in `encode`."""
        known = encode(table, list_files(self.items), like)
        with pa.ipc.new_file(str(self._path(METADATA)), known.schema) as file:
            file.write_batch(known)

    def add_ann(self, name: str, ann: Any, served: TunedIndex) -> int:
        """Store the FAISS index of a space, if it has one, and how it is searched; return its bytes."""
        file = self._data / f"{name}.faiss"
        try:
            if ann is not None:
                write_ann(ann, file)
        except RuntimeError as error:  # all that FAISS makes of an error of the system is its text
            code = errno.ENOSPC if os.strerror(errno.ENOSPC) in str(error) else errno.EIO
            raise OSError(code, os.strerror(code)) from error
        self._change_space(name, **asdict(served))
        return 0 if ann is None else file.stat().st_size

    def _change_space(self, name: str, **facts: Any) -> None:
        self._manifest.spaces[name] = replace(self._manifest.spaces[name], **facts)

    def add_search(
        self, name: str, vectors: Vectors, target: SearchTarget, factory: str, held: bool = False
    ) -> None:
        """Build what searches a space that was written, and store it; a factory `held` from before may go."""
        try:
            ann, served = build_tuned(vectors, target, factory)
        except UsageError:  # what is left may be too little to train it
            if not held:
                raise
            factory = AUTO
            ann, served = build_tuned(vectors, target, factory)
        size = self.add_ann(name, ann, served)
        if factory == AUTO:
            self._change_space(name, given=False)
        say(f"{name}: {served}.")
        # No kind of index is as small as that, or the factory was given.
        if size > target.memory * GIB and (factory == AUTO or not held):
            say(f"{name}: its index takes {size / GIB:.2g} GiB, more than --memory {target.memory:g} allows.")

    def add_model(self, data: bytes, beside: Path) -> None:
        """Store the student, so that the index can be searched anywhere, and what tells of it `beside` it."""
        (self._data / STUDENT).write_bytes(data)
        for companion in COMPANIONS:
            if (file := beside / companion).is_file():
                shutil.copyfile(file, self._data / companion)

    def take_over(self, index: Index) -> None:
        """Take over all of another index but its student: files that never change are linked, not copied."""
        own, manifest = self._manifest, index.manifest
        self._manifest = replace(
            manifest, format=FORMAT, generation=own.generation, spaces={**manifest.spaces}
        )
        kept = manifest.files.keys() - {STUDENT, *COMPANIONS}
        self._link(index, [name for name in kept if not name.endswith(".parquet")])  # of the format before

    def take_vectors(self, index: Index) -> None:
        """Take over what is searched of an index of the same contents, likewise."""
        for name, space in index.manifest.spaces.items():
            self._manifest.spaces[name] = replace(space, queries="")
            self._link(index, index.manifest.files.keys() & {f"{name}.npy", f"{name}.faiss"})

    def _link(self, index: Index, names: Iterable[str]) -> None:
        for name in names:
            self._linked[name] = index.manifest.files[name]
            try:
                os.link(index.data / name, self._data / name)
            except OSError:  # of a disk that knows no links
                shutil.copyfile(index.data / name, self._data / name)

    def embed_queries_with(self, student: OnnxEmbedder) -> None:
        """Store a later student whose vectors can be compared with those of the one that made the index."""
        self._change_space("student", queries=student.key)
        self.add_model(student.data, Path(student.spec).parent)

    def equals(self, index: Index) -> bool:
        """Whether the items, failures and metadata written are those of another index."""
        own = {path.name for path in self._data.iterdir()} | {METADATA, GONE} & index.manifest.files.keys()
        return all(self.has(name, index) for name in own)

    def has(self, name: str, index: Index) -> bool:
        """Whether a file that was written is that of another index."""
        file, known = self._data / name, index.manifest.files.get(name)
        return known is not None and file.is_file() and file_digest(file) == known.digest

    def commit(self, teacher: str | None, teacher_options: dict[str, Any]) -> Index:
        """Make what was written the index, which names its teacher, and remove what was before."""
        files = {}
        for path in sorted(self._data.iterdir()):
            sync(path)
            linked = self._linked.get(path.name)
            files[path.name] = linked or Stored(path.stat().st_size, file_digest(path))
        sync(self._data)
        manifest = replace(
            self._manifest,
            format=PARTED if GONE in files else FORMAT,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            teacher=teacher,
            teacher_options=teacher_options,
            files=files,
        )
        with atomic_write(self._out / MANIFEST, durable=True) as beside:
            beside.write_text(json.dumps(as_facts(manifest), indent=2) + "\n")
        remove_old(self._out, manifest.generation)
        return Index(self._out)


def remove_old(out: Path, generation: int) -> None:
    """Remove the data of every generation but one, and a manifest that was not written to its end."""
    for file in out.glob(f".{MANIFEST}.*"):
        file.unlink()
    for folder in out.glob("data-*"):
        if folder != data_folder(out, generation):
            shutil.rmtree(folder, ignore_errors=True)

"""Write an index folder again without reading its images: less what is gone, or with a later student."""

from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from errno import ENOENT, ENOTDIR
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from index.build.journal import Journal
from index.embedders.onnx import OnnxEmbedder
from index.errors import ImageError, RetrievalError, UsageError
from index.images.remote import is_address
from index.images.sources import image_at
from index.io import explain_disk
from index.progress import say
from index.stores.faiss.tuning import asked_factory
from index.stores.folder import FORMER, MANIFEST, Index, read_manifest
from index.stores.options import SearchTarget
from index.stores.records import CHUNK, Failure, Item
from index.stores.registry import open_store
from index.stores.tables import as_item
from index.stores.writing.writer import IndexWriter, remove_old


@dataclass(frozen=True)
class Compacted:
    """What was dropped: files that are gone, and bytes on the disk."""

    files: int
    bytes: int


def compact_index(where: str | Path) -> Compacted:
    """Drop the files that are gone, and what dead runs left on the disk. A file that changed stays.

    An index of the format before is converted, and nothing of it dropped.

    Raises:
        UsageError: There is no index folder, a damaged one, or an unfinished run.
        RetrievalError: None of the images is there, another process writes the index, or the disk is full.
    """
    if (Path(where) / MANIFEST).is_file() and read_manifest(Path(where)).format == FORMER:
        return _convert(FormerIndex(Path(where)))
    index = open_store(where)
    if not isinstance(index, Index):
        raise UsageError(
            f"{index} is no index folder. `retrieval index --update` drops what is gone from it."
        )
    before, kept = _bytes_in(index.path), array("q")
    with _rewriting(index) as writer:
        writer.add_items(_present_items(index, kept))
        if not kept:
            raise RetrievalError(
                f"None of the images of {index.path} is there. Is a disk missing? All was left."
            )
        writer.add_failures(failure for failure in index.failures if _is_there(failure.path))
        if (table := writer.carry_metadata(index)) is not None:
            writer.add_metadata(table)
        made = index if writer.equals(index) else _commit_kept(writer, index, kept)
    return Compacted(_count_files(index) - _count_files(made), max(before - _bytes_in(index.path), 0))


def replace_student(path: Path, student: OnnxEmbedder) -> Index:
    """Put a later student in the place of the one that embeds queries. No image is read, no vector changed.

    It was taught to stay in the space of the one that made the index.

    Raises:
        UsageError: There is no index, a damaged one, an unfinished run, or vectors of another length.
        RetrievalError: Another process writes the index, or the disk is full.
    """
    index = Index(path)
    if (dim := index.manifest.spaces["student"].dim) != student.dim:
        raise UsageError(
            f"{index} holds vectors of length {dim}; those of {student.name} have {student.dim}."
        )
    with _rewriting(index) as writer:
        writer.take_over(index)
        writer.embed_queries_with(student)
        return writer.commit(index.manifest.teacher, index.manifest.teacher_options)


@contextmanager
def _rewriting(index: Index) -> Iterator[IndexWriter]:
    """Keep others out, see that the index is whole, and start its next generation."""
    with explain_disk(index.path), Journal(index.path) as journal:
        journal.start({}, resume=False)
        index.require_whole()
        remove_old(index.path, index.manifest.generation)
        with IndexWriter(index.path, index.manifest.sources) as writer:
            yield writer


class FormerIndex(Index):
    """An index folder of the format before, with tables in Parquet."""

    formats = (FORMER,)


def _convert(former: FormerIndex) -> Compacted:
    """Write the tables again, and link all else."""
    before, manifest, data = _bytes_in(former.path), former.manifest, former.data
    with _rewriting(former) as writer:
        with pq.ParquetFile(data / "items.parquet") as table:
            rows = (row for batch in table.iter_batches() for row in batch.to_pylist())
            writer.add_items(map(as_item, rows))
        writer.add_failures(Failure(**row) for row in pq.read_table(data / "errors.parquet").to_pylist())
        if (name := "metadata.parquet") in manifest.files:
            writer.add_metadata(pq.read_table(data / name))
        writer.add_model(former.model_file.read_bytes(), data)
        writer.take_over(former)
        writer.commit(manifest.teacher, manifest.teacher_options)
    say(f"{former} is of today's format now.")
    return Compacted(0, max(before - _bytes_in(former.path), 0))  # what is mapped is not compressed


def _commit_kept(writer: IndexWriter, index: Index, kept: "array[int]") -> Index:
    manifest = index.manifest
    for name, space in manifest.spaces.items():
        parts = (index.read_rows(name, np.asarray(kept[i : i + CHUNK])) for i in range(0, len(kept), CHUNK))
        vectors = writer.add_space(name, space, parts)
        target, factory = SearchTarget(space.asked, space.memory), asked_factory(space, index.first_part)
        writer.add_search(name, vectors, target, factory, held=True)
    writer.add_model(index.model_file.read_bytes(), index.data)
    return writer.commit(manifest.teacher, manifest.teacher_options)


def _present_items(index: Index, kept: "array[int]") -> Iterator[Item]:
    """Yield the items of which a file is there, and note their ids."""
    for i, item in enumerate(index.items):
        present = [file for file in item.files if _is_there(file.path)]
        if present:
            kept.append(i)
            yield item.in_files(present)


def _is_there(location: str) -> bool:
    if is_address(location):  # which is not asked: an index may come from anyone
        return True
    try:
        image_at(location, location).status()
    except ImageError as reason:  # what may not be looked at is not gone
        if (cause := reason.__cause__) is None:
            return not str(reason).endswith(("has no such file", "not a file"))
        return isinstance(cause, OSError) and cause.errno not in (ENOENT, ENOTDIR)
    return True


def _count_files(index: Index) -> int:
    return index.manifest.count + index.manifest.copies + index.manifest.failed


def _bytes_in(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())

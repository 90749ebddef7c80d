"""Drop from an index what is not there any more, without any model."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

import numpy as np

from index.build.journal import Journal
from index.errors import ImageError, RetrievalError, UsageError
from index.images.remote import is_address
from index.images.sources import image_at
from index.io import explain_disk
from index.stores.folder import Index
from index.stores.folder_writer import IndexWriter, remove_old
from index.stores.options import SearchTarget
from index.stores.records import CHUNK, Item
from index.stores.registry import open_store


@dataclass(frozen=True)
class Compacted:
    """What was dropped: files that are gone, and bytes on the disk."""

    files: int
    bytes: int


def compact_index(where: str | Path) -> Compacted:
    """Drop the files that are gone, and what dead runs left on the disk. A file that changed stays.

    Raises:
        UsageError: There is no index folder, a damaged one, or an unfinished run.
        RetrievalError: None of the images is there, another process writes the index, or the disk is full.
    """
    index = open_store(where)
    if not isinstance(index, Index):
        raise UsageError(
            f"{index} is no index folder. `retrieval index --update` drops what is gone from it."
        )
    path, before = index.path, _bytes_in(index.path)
    with explain_disk(path), Journal(path) as journal:
        journal.start({}, resume=False)
        index.require_whole()
        remove_old(path, index.manifest.generation)
        made = _write_present(index)
    return Compacted(_count_files(index) - _count_files(made), before - _bytes_in(path))


def _write_present(index: Index) -> Index:
    """Write what is there as a new generation, if anything is gone."""
    manifest, kept = index.manifest, array("q")
    with IndexWriter(index.path, manifest.sources) as writer:
        writer.add_items(_present_items(index, kept))
        writer.add_failures(failure for failure in index.failures if _is_there(failure.path))
        if writer.equals(index):
            return index
        if not kept:
            raise RetrievalError(
                f"None of the images of {index.path} is there. Is a disk missing? All was left."
            )
        for name, space in manifest.spaces.items():
            parts = (
                index.read_rows(name, np.asarray(kept[i : i + CHUNK])) for i in range(0, len(kept), CHUNK)
            )
            vectors = writer.add_space(name, space, parts)
            writer.add_search(name, vectors, SearchTarget(space.asked, inf), space.factory)
        if (table := writer.carry_metadata(index)) is not None:
            writer.add_metadata(table)
        writer.add_model(index.model_file.read_bytes(), index.data)
        return writer.commit(manifest.teacher, manifest.teacher_options)


def _present_items(index: Index, kept: "array[int]") -> Iterator[Item]:
    """Yield the items of which a file is there, and note their ids."""
    for i, item in enumerate(index.iter_items()):
        present = [file for file in item.files if _is_there(file.path)]
        if present:
            kept.append(i)
            first, *copies = present
            yield replace(item, **vars(first), copies=tuple(copies))


def _is_there(location: str) -> bool:
    if is_address(location):  # which is not asked: an index may come from anyone
        return True
    try:
        image_at(location, location).status()
    except ImageError:
        return False
    return True


def _count_files(index: Index) -> int:
    return index.manifest.count + index.manifest.copies + index.manifest.failed


def _bytes_in(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())

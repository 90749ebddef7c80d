"""Pieces of an index that workers made on their own: files that are whole where they are found at all."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from index.build.embed import Embedded
from index.errors import RetrievalError
from index.io import atomic_write
from index.stores.records import Failure, Item, columns_of

SUFFIX = ".piece"
_COLUMNS = dict(columns_of(Item))


def write_piece(path: Path, embedded: Embedded) -> None:
    """Write what became of some files: beside, then renamed, so that the name is the mark that it is done."""
    items, spaces = embedded.items, embedded.vectors
    columns = {
        name: pa.array([getattr(item, name) for item in items], kind) for name, kind in _COLUMNS.items()
    }
    for space, rows in spaces.items():
        columns[f"vectors of {space}"] = pa.FixedSizeListArray.from_arrays(rows.ravel(), rows.shape[1])
    failures = json.dumps([vars(failure) for failure in embedded.failures])
    table = pa.table(columns).replace_schema_metadata({"failures": failures})
    with atomic_write(path, durable=True) as beside:
        pq.write_table(table, beside, compression="none", use_dictionary=False, write_page_checksum=True)


def read_piece(path: Path) -> Embedded:
    """Read a piece. RetrievalError says that it is damaged."""
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        items = [Item(*row.values()) for row in table.select(list(_COLUMNS)).to_pylist()]
        vectors = {}
        for name in table.column_names[len(_COLUMNS) :]:
            rows = table[name].combine_chunks()
            flat = rows.flatten().to_numpy(zero_copy_only=False)
            vectors[name.removeprefix("vectors of ")] = flat.reshape(len(items), -1)
        failures = [Failure(**one) for one in json.loads(table.schema.metadata[b"failures"])]
    except (OSError, KeyError, ValueError, TypeError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise RetrievalError(f"{path} is damaged: {reason}. Remove it, then go on with --resume.") from error
    return Embedded(items, vectors, failures)


def join(parts: Sequence[Embedded]) -> Embedded:
    """Put outcomes together, in their order."""
    spaces = {space for part in parts for space in part.vectors}
    return Embedded(
        [item for part in parts for item in part.items],
        {s: np.concatenate([part.vectors[s] for part in parts if s in part.vectors]) for s in sorted(spaces)},
        [failure for part in parts for failure in part.failures],
    )


def still_true(piece: Embedded, is_listed: Callable[[Item], bool]) -> Embedded:
    """What of a piece that an earlier run left is so still: files that are listed, and as they were."""
    kept = [i for i, item in enumerate(piece.items) if is_listed(item)]
    vectors = {name: rows[kept] for name, rows in piece.vectors.items()}
    return replace(piece, items=[piece.items[i] for i in kept], vectors=vectors, failures=[])

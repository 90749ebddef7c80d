"""What is kept of an index: what a page has computed, beside it until it changes, and what people judge."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from index.io import atomic_write, content_digest
from index.stores.base import Store


def read_kept(index: Store, name: str, columns: Sequence[str]) -> list[NDArray[Any]] | None:
    """Read what was kept beside the data under a name; None if there is nothing, or nothing of ours."""
    try:
        table = pq.read_table(_file(index, name))
        return [table[column].to_numpy() for column in columns]
    except (OSError, pa.ArrowException, KeyError):
        return None


def keep(index: Store, name: str, columns: Mapping[str, NDArray[Any]]) -> None:
    """Write it into the index folder; where that cannot be written, it is computed again another time."""
    path = _file(index, name)
    with suppress(OSError):
        with atomic_write(path) as beside:
            pq.write_table(pa.table(dict(columns)), beside, compression="zstd")
        for old in set(index.data.glob(f"{name}-*.parquet")) - {path}:
            old.unlink()


def _file(index: Store, name: str) -> Path:
    """Name the file by the manifest, which changes with every change of the index or its models."""
    manifest = json.dumps(asdict(index.manifest), sort_keys=True)
    return index.data / f"{name}-{content_digest(manifest.encode())}.parquet"


def judged_as(index: Store) -> str:
    """Name an index by its place and models, for what people judge of it: made again, it keeps its name."""
    spaces = index.manifest.spaces
    models = [spaces[name].key for name in ("student", "teacher") if name in spaces]
    return content_digest("\n".join([str(index.path.resolve()), *models]).encode())


def sample_items(index: Store, most: int) -> NDArray[np.int64]:
    """Draw at most so many items of an index, `(n,)` rising ids, the same ones each time."""
    count = len(index)
    return np.sort(np.random.default_rng(0).choice(count, min(most, count), replace=False))

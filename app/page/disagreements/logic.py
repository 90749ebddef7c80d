"""How far student and teacher agree on each image of the gallery: computed once, and kept with the index."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from index.errors import UsageError
from index.evaluation.metrics import overlap_at_k, rank_biased_overlap
from index.io import atomic_write, content_digest
from index.search import Searcher
from index.stores.base import Store

DEPTH = 10
MOST = 10_000  # queries: of a larger gallery a random sample is asked for
CHUNK = 128  # queries at a time: between two of them, others can search
PREFIX = "agreement-"


@dataclass(frozen=True)
class Agreements:
    """Images of the gallery, the worst agreement first.

    Attributes:
        items: `(n,)` int64 item ids.
        overlap: `(n,)` overlap@10 of what student and teacher find for each, rising.
        rbo: `(n,)` rank-biased overlap of the same lists, rising where the overlap is equal.
    """

    items: NDArray[np.int64]
    overlap: NDArray[np.float64]
    rbo: NDArray[np.float64]

    def __post_init__(self) -> None:
        if not self.items.shape == self.overlap.shape == self.rbo.shape or self.items.ndim != 1:
            raise ValueError("Items and their agreement do not fit.")
        if not ((self.overlap >= 0) & (self.overlap <= 1)).all():
            raise ValueError("An overlap lies between 0 and 1.")
        if (np.diff(self.overlap) < 0).any():
            raise ValueError("The worst agreement must come first.")

    def __len__(self) -> int:
        return len(self.items)

    def select(self, names: Sequence[str], prefix: str, most: float) -> "Agreements":
        """Select those with a name that begins with `prefix` and an overlap of at most `most`.

        `names` are all names, in the order of `items`.
        """
        end = int(np.searchsorted(self.overlap, most + 1e-9, "right"))
        chosen = [row for row in range(end) if names[row].startswith(prefix)]
        return Agreements(self.items[chosen], self.overlap[chosen], self.rbo[chosen])


def find_disagreements(searcher: Searcher, report: Callable[[float], None]) -> Agreements:
    """Read the agreement of a gallery, or compute and keep it. No model is asked.

    Raises:
        UsageError: The index was made without a teacher.
    """
    kept = _read(searcher.index)
    if kept is not None:
        return kept
    found = compute_agreements(searcher, report)
    _keep(searcher.index, found)
    return found


def compute_agreements(searcher: Searcher, report: Callable[[float], None], most: int = MOST) -> Agreements:
    """Search with at most `most` random images of the gallery, in the student's and the teacher's space.

    Raises:
        UsageError: The index was made without a teacher.
    """
    if "teacher" not in searcher.stored_modes:
        raise UsageError("This index was made without a teacher: there is nothing to compare.")
    count = len(searcher.index)
    items = np.sort(np.random.default_rng(0).choice(count, min(most, count), replace=False))
    overlap, rbo = np.empty(len(items)), np.empty(len(items))
    for start in range(0, len(items), CHUNK):
        rows = slice(start, start + CHUNK)
        asked = items[rows].tolist()
        student, teacher = (searcher.search_items(asked, mode, DEPTH).ids for mode in ("student", "teacher"))
        overlap[rows] = overlap_at_k(student, teacher)
        rbo[rows] = rank_biased_overlap(student, teacher)
        report(min(start + CHUNK, len(items)) / len(items))
    order = np.lexsort((items, rbo, overlap))
    return Agreements(items[order], overlap[order], rbo[order])


def _name(index: Store) -> str:
    """Name the file by the manifest, which changes with every change of the index or its models."""
    manifest = json.dumps(asdict(index.manifest), sort_keys=True)
    return f"{PREFIX}{content_digest(manifest.encode())}.parquet"


def _read(index: Store) -> Agreements | None:
    try:
        table = pq.read_table(index.data / _name(index))
        found = Agreements(*(table[name].to_numpy() for name in ("item", "overlap", "rbo")))
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):  # none yet, or not one of ours
        return None
    known = found.items.dtype.kind == "i" and np.isin(found.items, np.arange(len(index))).all()
    return found if len(found) and known else None


def _keep(index: Store, found: Agreements) -> None:
    """Write it into the index folder; where that cannot be written, it is computed again another time."""
    path = index.data / _name(index)
    table = pa.table({"item": found.items, "overlap": found.overlap, "rbo": found.rbo})
    with suppress(OSError):
        with atomic_write(path) as beside:
            pq.write_table(table, beside, compression="zstd")
        for old in set(index.data.glob(f"{PREFIX}*.parquet")) - {path}:
            old.unlink()

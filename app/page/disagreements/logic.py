"""How far student and teacher agree on each image of the gallery: computed once, and kept with the index."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.page.kept import keep, read_kept, sample_items
from index.errors import UsageError
from index.evaluation.metrics import overlap_at_k, rank_biased_overlap
from index.search import Searcher

DEPTH = 10
MOST = 10_000  # queries: of a larger gallery a random sample is asked for
CHUNK = 128  # queries at a time: between two of them, others can search
KEPT, COLUMNS = "agreement", ("item", "overlap", "rbo")


@dataclass(frozen=True)
class Agreements:
    """Images of the gallery, the worst agreement first."""

    items: NDArray[np.int64]  # `(n,)` int64 item ids
    overlap: NDArray[np.float64]  # `(n,)` overlap@10 of what student and teacher find for each, rising
    # `(n,)` rank-biased overlap of the same lists, rising where the overlap is equal
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
        """Select those of all `names` that begin with `prefix`, and have an overlap of at most `most`."""
        end = int(np.searchsorted(self.overlap, most + 1e-9, "right"))
        chosen = [row for row in range(end) if names[row].startswith(prefix)]
        return Agreements(self.items[chosen], self.overlap[chosen], self.rbo[chosen])


def find_disagreements(searcher: Searcher, report: Callable[[float], None]) -> Agreements:
    """Read the agreement of a gallery, or compute and keep it; no model is asked. UsageError: no teacher."""
    kept = read_kept(searcher.index, KEPT, COLUMNS)
    with suppress(TypeError, ValueError):  # not one of ours
        if kept and np.array_equal(np.sort(kept[0]), sample_items(searcher.index, MOST)):
            return Agreements(*kept)
    found = compute_agreements(searcher, report)
    keep(searcher.index, KEPT, dict(zip(COLUMNS, (found.items, found.overlap, found.rbo), strict=True)))
    return found


def compute_agreements(searcher: Searcher, report: Callable[[float], None], most: int = MOST) -> Agreements:
    """Search with at most `most` random images of a gallery in both spaces; UsageError without a teacher."""
    if "teacher" not in searcher.stored_modes:
        raise UsageError(
            "This index was made without a teacher: there is nothing to compare. Index again with --teacher."
        )
    items = sample_items(searcher.index, most)
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

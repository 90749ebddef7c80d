"""How strong a match is, by what similarity means in this gallery: neighbours, and photos at random."""

from dataclasses import dataclass

import numpy as np

from app.page.kept import sample_items
from index.duplicates import NEIGHBOURS, least_similarity
from index.search import MODES, Searcher

SAMPLE, FEWEST = 500, 50  # images of the gallery that are looked at, and at least
SCALED = ("student", "teacher")  # modes whose similarities compare like with like


@dataclass(frozen=True)
class Scale:
    """What the similarities of one model say."""

    strong: float  # the median of an image and its nearest neighbour
    likely: float  # above it 95 % of images have their nearest neighbour
    weak: float  # above it lies one of twenty pairs at random; below it nothing is close
    near: float = 2.0  # from here on they are near-duplicates: `index.duplicates.least_similarity`

    def name(self, similarity: float) -> str:
        """Name the strength of a match: strong, likely, weak or far."""
        steps = (("strong", self.strong), ("likely", max(self.likely, self.weak)), ("weak", self.weak))
        return next((name for name, least in steps if similarity >= least), "far")


def measure_scale(searcher: Searcher, mode: str) -> Scale | None:
    """Measure what similarity means in a gallery, by stored vectors; None where it has too few images."""
    if len(searcher.index) < FEWEST or mode not in searcher.stored_modes:
        return None
    items = sample_items(searcher.index, SAMPLE)
    nearest = searcher.search_items(items.tolist(), mode, NEIGHBOURS).scores
    space = MODES[mode][1]
    rows = searcher.index.rows(space, items)
    pairs = searcher.index.manifest.spaces[space].type.similarity(rows, rows)
    apart = pairs[np.triu_indices(len(items), 1)]
    strong, likely = np.percentile(nearest[:, 0], (50, 5)).tolist()
    return Scale(strong, likely, float(np.percentile(apart, 95)), least_similarity(nearest))


def measure_scales(searcher: Searcher, found: dict[str, Scale]) -> dict[str, Scale]:
    """Put the scales that a gallery has into `found`, by mode."""
    for mode in SCALED:
        if scale := measure_scale(searcher, mode):
            found[mode] = scale
    return found

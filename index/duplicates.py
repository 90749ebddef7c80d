"""Near-duplicates of a gallery: groups of images within a radius of one of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.errors import UsageError
from index.progress import count, printable
from index.stores.base import Store
from index.stores.registry import open_store
from index.vectors import CODES, Ids, Scores

SAMPLE = 2000  # images whose neighbours tell the radius
NEIGHBOURS = 5  # that hardly any image has within twice the radius
USUAL = 95  # percent of images that have fewer
FIRST = 16  # neighbours that are looked at first; four times as many where all are within the radius
BATCH = 1024  # images searched with at a time
FEW_CODES = 1000  # images: of fewer, those of different things may share a code
FEW = f"Codes of fewer than {FEW_CODES} images put different things together: look before you remove any."
SLACK = 1e-6  # of similarities, by which sums in another order differ


@dataclass(frozen=True)
class Near:
    """An image of a group: its paths, and its cosine distance to the first image of the group."""

    id: int
    distance: float
    name: str
    paths: list[str]


@dataclass(frozen=True)
class Duplicates:
    """The groups of a gallery, the largest first, each with the image first that is near to most."""

    radius: float
    images: int
    groups: list[list[Near]]
    warning: str = ""  # why they may be no duplicates

    def __str__(self) -> str:
        spare = sum(len(near.paths) for group in self.groups for near in group) - len(self.groups)
        lines = [
            f"{count(len(self.groups), 'group')} of near-duplicates, within a distance of {self.radius:.4f}; "
            f"{count(spare, 'file')} to spare, of {count(self.images, 'image')}"
        ]
        if self.warning:
            lines.append(self.warning)
        for number, group in enumerate(self.groups, 1):
            for near in group:
                lines += [f"{number:5} {near.distance:.4f} {printable(path)}" for path in near.paths]
        return "\n".join(lines)


def list_duplicates(where: str | Path, space: str = "student", radius: float | None = None) -> Duplicates:
    """Find the near-duplicates of a gallery by name, by the vectors or codes of `space`.

    Without a radius, `least_similarity` chooses it. Files of the same bytes are one image of several paths.
    Codes of few images tell little, as its `warning` says then.

    Raises:
        UsageError: There is no such gallery or space, or the radius is not between 0 and 2.
    """
    index = open_store(where)
    if space not in index.manifest.spaces:
        raise UsageError(f"{index} has no vectors of {space!r}, only of {', '.join(index.manifest.spaces)}.")
    if radius is not None and not 0 <= radius <= 2:
        raise UsageError(f"--radius is a cosine distance between 0 and 2, not {radius}.")
    least = _measure(index, space) if radius is None else 1 - radius
    groups = []
    for group in group_near(index, space, least):
        entries = [(item, round(max(1 - score, 0.0), 6), index.items[item]) for item, score in group]
        groups.append([Near(i, far, item.name, [f.path for f in item.files]) for i, far, item in entries])
    few = len(index) < FEW_CODES and index.manifest.spaces[space].type == CODES
    return Duplicates(round(1 - least, 6), len(index), groups, FEW if few else "")


def least_similarity(neighbours: NDArray[np.float32]) -> float:
    """Choose from which similarity on images are near-duplicates.

    Photos of one thing are neighbours, too, but seldom this near: it is half of the distance within which
    95 of 100 images do not have five others.

    Args:
        neighbours: `(n, k)` similarities of images to their nearest others, falling; the fifth counts.
    """
    if not neighbours.size:
        return 1.0
    return (1 + float(np.percentile(neighbours[:, :NEIGHBOURS][:, -1], USUAL))) / 2


def _measure(index: Store, space: str) -> float:
    drawn = np.random.default_rng(0).choice(len(index), min(SAMPLE, len(index)), replace=False)
    found = [row for row, _ in _neighbours(index, space, np.sort(drawn), NEIGHBOURS + 1)]
    fewest = min(map(len, found), default=0)
    return least_similarity(np.array([row[:fewest] for row in found], np.float32))


def _neighbours(index: Store, space: str, items: Ids, k: int) -> Iterator[tuple[Scores, Ids]]:
    """Yield the similarities and ids of the nearest of each item but itself, k with itself."""
    searchable, k = index.open_space(space, "cpu"), min(k, len(index))
    for start in range(0, len(items), BATCH):
        some = items[start : start + BATCH]
        scores, ids = searchable.search(index.rows(space, some), k)
        for item, line, found in zip(some, scores, ids, strict=True):
            others = (found != item) & (found >= 0)
            yield line[others], found[others]


def group_near(index: Store, space: str, least: float) -> list[list[tuple[int, float]]]:
    """Group items that are at least so similar to the first of their group; each is in one group at most.

    The item that is near to most begins, those near to it are taken, and so on. An item of several files is a
    group by itself.

    Returns:
        Groups, the largest first, of ids and similarities to the first, falling.
    """
    near: dict[int, tuple[Scores, Ids]] = {}
    left, k = np.arange(len(index)), FIRST
    while len(left):
        full = []
        for item, (scores, ids) in zip(left, _neighbours(index, space, left, k), strict=True):
            inside = scores >= least - SLACK
            if inside.all() and len(ids) < len(index) - 1 and k < len(index):
                full.append(item)
            elif inside.any():
                near[int(item)] = scores[inside], ids[inside]
        left, k = np.array(full, np.int64), 4 * k
    taken = np.zeros(len(index), bool)
    groups = []
    for first in sorted(near, key=lambda item: (-len(near[item][1]), item)):
        scores, ids = near[first]
        free = ~taken[ids]
        if free.any() and not taken[first]:
            groups.append([(first, 1.0), *zip(ids[free].tolist(), scores[free].tolist(), strict=True)])
            taken[first] = taken[ids] = True
    groups += [[(i, 1.0)] for i, item in enumerate(index.items) if item.copies and not taken[i]]
    return sorted(groups, key=len, reverse=True)


def fold_near(index: Store, ids: Sequence[int], least: float) -> dict[int, int]:
    """Fold a ranked list by the student's vectors: map what is near to an earlier item to that item."""
    rows = index.rows("student", np.array(ids, np.int64))
    near = index.manifest.spaces["student"].type.similarity(rows, rows) >= least - SLACK
    first: dict[int, int] = {}
    for place, item in enumerate(ids):
        for other in np.flatnonzero(near[place, :place]).tolist():
            if ids[other] not in first:
                first[item] = ids[other]
                break
    return first

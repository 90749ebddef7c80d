"""Every photo of a gallery as a point, near to its neighbours: by the student's vectors, by the teacher's.

t-SNE (van der Maaten and Hinton 2008) of 50 principal components, computed once and kept with the index. The
teacher's starts from the student's and is turned onto it, so that what moves between the two differs.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.page.kept import keep, read_kept, sample_items
from index.errors import needs
from index.feedback import as_floats
from index.search import Searcher

with needs("demo"):
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

MOST = 20_000  # photos: of a larger gallery a random sample is shown
COMPONENTS = 50
PERPLEXITY = 30  # about as many neighbours of each photo count
ROUNDS = 750
SPREAD = 1e-4  # deviation of what t-SNE starts from
COLOURS = 10  # values of a column that have a colour of their own
Places = NDArray[np.float32]  # `(n, 2)`, from 0 to 1


@dataclass(frozen=True)
class PhotoMap:
    """Where photos lie, by the spaces of their vectors: `items` are `(n,)` ids, rising."""

    items: NDArray[np.int64]
    places: Mapping[str, Places]


def sketch(searcher: Searcher) -> PhotoMap:
    """Place photos by their two first principal components, which takes no time."""
    spaces: list[str] = [name for name in ("student", "teacher") if name in searcher.index.manifest.spaces]
    items = sample_items(searcher.index, MOST)
    flat = {name: _components(searcher, name, items)[:, :2] for name in spaces}
    return PhotoMap(items, _together(flat))


def find_map(searcher: Searcher) -> PhotoMap:
    """Read the map of a gallery, or compute and keep it; of less than four photos it stays a sketch."""
    first = sketch(searcher)
    names = [f"{axis} {name}" for name in first.places for axis in "xy"]
    kept = read_kept(searcher.index, "map", ["item", *names])
    if kept and np.array_equal(kept[0], first.items):
        parts = np.split(np.stack(kept[1:], 1), len(first.places), axis=1)
        return PhotoMap(kept[0], dict(zip(first.places, parts, strict=True)))
    if len(first.items) < 4:
        return first
    made: dict[str, Places] = {}
    for name in first.places:
        rows = _components(searcher, name, first.items)
        start = rows[:, :2] if not made else made["student"]
        start = (start - start.mean(0)) * (SPREAD / max(float(start.std()), 1e-12))
        near = min(PERPLEXITY, (len(rows) - 1) / 3)
        tsne = TSNE(perplexity=near, init=start.astype(np.float32), max_iter=ROUNDS, random_state=0)
        made[name] = tsne.fit_transform(rows)
    places = _together(made)
    axes = np.hstack([*places.values()]).T
    keep(searcher.index, "map", {"item": first.items, **dict(zip(names, axes, strict=True))})
    return PhotoMap(first.items, places)


def colour_by(searcher: Searcher, items: NDArray[np.int64]) -> dict[str, tuple[list[str], NDArray[np.uint8]]]:
    """Read by what photos can be coloured: folders, and columns of the metadata.

    Returns:
        For each the names of its most frequent values, and for each item the place of its value among them;
        of any other value as many as there are names.
    """
    index = searcher.index
    folders = [index.items[item].name.split("/")[:-1] for item in items]
    depth = next((d for d in range(9) if len({tuple(each[: d + 1]) for each in folders}) > 1), -1)
    values = {"folder": ["/".join(each[: depth + 1]) for each in folders]} if depth >= 0 else {}
    rows = [index.metadata_of(int(item)) for item in items] if index.columns else []
    values |= {column: [row.get(column, "") for row in rows] for column in index.columns}
    found = {}
    for column, each in values.items():
        names = [name for name, _ in Counter(filter(None, each)).most_common(COLOURS)]
        known = {name: place for place, name in enumerate(names)}
        found[column] = names, np.array([known.get(value, len(names)) for value in each], np.uint8)
    return found


def _components(searcher: Searcher, space: str, items: NDArray[np.int64]) -> NDArray[np.float32]:
    rows = as_floats(np.asarray(searcher.index.rows(space, items)))
    if len(rows) < 2:
        return np.zeros((len(rows), 2), np.float32)
    most = min(COMPONENTS, *rows.shape)
    found = PCA(most, svd_solver="randomized", random_state=0).fit_transform(rows).astype(np.float32)
    return np.pad(found, ((0, 0), (0, max(2 - most, 0))))


def _together(places: Mapping[str, NDArray[np.float32]]) -> dict[str, Places]:
    """Bring maps to the same size and turn them onto the first: orthogonal Procrustes."""
    made: dict[str, Places] = {}
    for name, rows in places.items():
        each = rows - rows.mean(0)
        each = each / max(float(np.abs(each).max()), 1e-12)
        if made:
            left, _, right = np.linalg.svd(each.T @ made["student"])
            each = each @ left @ right
        made[name] = each.astype(np.float32)
    # Turned, a corner reaches 1.42.
    return {name: (each / 2.9 + 0.5).clip(0, 1) for name, each in made.items()}

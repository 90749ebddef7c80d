"""A large gallery in lists of photos near each other, so that a search gets the few that it visits.

A list has a file with all its rows, as roughly as tells which of them are worth a look, and files of `PART`
photos each with their rows and what is known of them.
"""

import json
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np

from app.site.folder import SiteFolder
from app.site.gallery import facts_of, fold, pack_rows
from index.errors import needs
from index.feedback import as_floats
from index.progress import progress, say
from index.stores.base import Store
from index.stores.records import Item, Space
from index.vectors import Ids, Vectors

with needs("cpu"):
    import faiss

WHOLE_ROWS, WHOLE_CODES = 50_000, 200_000  # photos of a gallery that a visit loads as a whole
LIST, MOST_LISTS = 64, 4096  # photos of a list, at least; the centres of so many lists are a megabyte
PART = 32  # photos of a part
ROUGH, LEVELS = 8, 512  # steps from 0 to 1 of the numbers in lists, and in parts and centres
RECALL = 0.95  # share of the ten nearest that lie in the lists which a search visits
QUERIES, DEPTH = 500, 10  # photos of the gallery that this is measured with
TRAIN_PER_LIST, ROUNDS = 40, 10  # of k-means


def is_large(index: Store) -> bool:
    """Whether a visitor had better not load all of it."""
    return len(index) > (WHOLE_CODES if index.manifest.spaces["student"].bits else WHOLE_ROWS)


@dataclass(frozen=True)
class Lists:
    """Which photos lie together."""

    centres: Vectors  # `(lists, dim)` rows that the photos of each list are near, as the site has them
    places: Ids  # `(photos,)` list of each item
    visits: int  # how many lists a search visits
    recall: float  # share of the ten nearest of photos of the gallery that lie in those

    @classmethod
    def of(cls, index: Store, known: Vectors | None = None) -> "Lists":
        """Divide a gallery; by centres that are known, if they are about as many as it needs."""
        shuffled = np.random.default_rng(0).permutation(len(index))
        wanted = max(min(len(index) // LIST, MOST_LISTS), 1)
        held = min(QUERIES, -(-len(index) // 10))
        own, rest = np.sort(shuffled[:held]), np.sort(shuffled[held:][: TRAIN_PER_LIST * wanted])
        if known is None or not wanted / 2 <= len(known) <= 2 * wanted:
            say(f"Dividing {len(index):,} photos into {wanted:,} lists.")
            sample = as_floats(index.rows("student", rest))
            kmeans = faiss.Kmeans(
                sample.shape[1], wanted, niter=ROUNDS, seed=1, spherical=True, min_points_per_centroid=1
            )
            kmeans.train(sample)
            known = np.round(kmeans.centroids * LEVELS).astype(np.float32) / LEVELS
        queries, places, start = as_floats(index.rows("student", own)), list[Ids](), 0
        nearest = faiss.ResultHeap(len(own), DEPTH + 1, keep_max=True)
        for some in index.iter_rows("student"):
            rows = np.ascontiguousarray(as_floats(some))
            places.append(np.argmax(rows @ known.T, axis=1))
            metric = faiss.METRIC_INNER_PRODUCT
            scores, ids = faiss.knn(queries, rows, min(DEPTH + 1, len(rows)), metric=metric)
            nearest.add_result(scores, ids + start)
            start += len(rows)
        nearest.finalize()
        lists = np.concatenate(places)
        others = np.argsort(own[:, None] == nearest.I, axis=1, kind="stable")[:, :DEPTH]
        visited = np.argsort(np.argsort(-queries @ known.T, axis=1), axis=1)  # when each list is
        when = np.take_along_axis(visited, lists[np.take_along_axis(nearest.I, others, 1)], 1)
        share = np.bincount(when.ravel(), minlength=len(known)).cumsum() / when.size
        visits = int(np.searchsorted(share, RECALL))
        return cls(known, lists, visits + 1, round(float(share[visits]), 4))


def write_lists(folder: SiteFolder, index: Store, items: list[Item], lists: Lists) -> dict[str, Any]:
    """Write a gallery in lists, by digest in each, and return what the manifest says of it."""
    space = index.manifest.spaces["student"]
    order = np.lexsort((np.array([item.digest for item in items]), lists.places))
    starts = np.searchsorted(lists.places[order], np.arange(1, len(lists.centres)))
    rough, table = sqrt(space.bits) if space.bits else ROUGH, list[tuple[int, str]]()
    with progress(len(items), "Lists") as bar:
        for ids in np.split(order, starts):
            files = [pack_list(as_floats(index.rows("student", ids)), rough)]
            for start in range(0, len(ids), PART):
                some = ids[start : start + PART]
                rows = pack_rows(index.rows("student", some), LEVELS)
                files.append(rows + facts_of(index, items, some))
            table.append((len(ids), folder.pack_together(files)))
            bar.update(len(ids))
    return {
        "of": [space.key, lists.centres.shape[1]],
        "centres": folder.pack(pack_rows(lists.centres, LEVELS)),
        "table": folder.pack(json.dumps(table).encode()),
        "part": PART,
        "rough": rough,
        "visits": lists.visits,
        "recall": lists.recall,
    }


def pack_list(rows: Vectors, rough: float) -> bytes:
    """Write `(n, dim)` rows roughly, a byte for each number: their mean, then what each differs by."""
    whole = np.round(rows * rough)
    mean = np.round(whole.mean(axis=0)) if len(whole) else np.zeros(rows.shape[1])
    return fold(np.vstack([mean, whole - mean])).astype(np.uint8).tobytes()


def read_centres(folder: SiteFolder, space: Space) -> Vectors | None:
    """The centres that the site in a folder has, if they are of such vectors."""
    known, dim = folder.manifest.get("lists"), space.bits or space.dim
    if not known or known["of"] != [space.key, dim]:
        return None
    low, high = np.frombuffer(folder.read(known["centres"]), np.uint8).astype(np.int32).reshape(2, -1)
    folded = low | high << 8
    rows = (folded >> 1 ^ -(folded & 1)).reshape(dim, -1).T
    return (rows / LEVELS).astype(np.float32)

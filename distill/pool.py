"""The pool: distinct images that can be read, small, with what free networks say of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray

from distill.model.backbone import Backbone
from distill.model.student import StageMeans, embed
from distill.photos import PhotoReader
from index.embedders.base import Embedder, embed_many, unit_rows
from index.embedders.options import EmbedderOptions
from index.embedders.registry import open_embedder
from index.errors import ImageError, UsageError
from index.images.decode import MARGIN, square
from index.images.file import ImageFile
from index.parallel import BATCH, bounded_map
from index.progress import count, progress
from index.stores.records import Failure

MOST = 4000  # images of a pool that are used: bounds the time and the memory
ALIKE = 1e-3  # spread of unit vectors that say the same of all images


@dataclass(frozen=True)
class Pool:
    """What may be asked about and learnt from: distinct images that can be read."""

    files: list[ImageFile]  # n image files
    digests: list[str]  # content digest of each
    pixels: NDArray[np.uint8]  # `(n, side, side, 3)` uint8
    features: NDArray[np.float32]  # `(n, features)` float32 of the whole backbone, as in `StageMeans`
    free_dim: int  # how many of them, the last, are what helpers and the backbone itself say of an image
    # Files that cannot be read, or that a file of vectors lacks
    failures: list[Failure] = field(default_factory=list)
    reader: PhotoReader = field(default_factory=PhotoReader)  # what read them
    also: frozenset[str] = frozenset()  # digests of images that are asked about before all others
    there: frozenset[str] = frozenset()  # digests of images that were preferred, and given
    helpers: tuple[str, ...] = ()  # keys of the helpers

    @property
    def free(self) -> NDArray[np.float32]:
        """Take the `(n, free_dim)` vectors of the free networks, the backbone and helpers, at no query."""
        return self.features[:, -self.free_dim :]


def extract_features(
    files: Sequence[ImageFile],
    digests: Sequence[str],
    backbone: Backbone,
    side: int,
    fabric: Fabric,
    reader: PhotoReader | None = None,
    helpers: Sequence[Embedder] = (),
) -> Pool:
    """Decode files once, to squares of `side` pixels and to features of the whole backbone at its own size.

    The vectors of `helpers` join what the backbone itself says. Files that cannot be read are left out, with
    their digests.
    """
    reader = reader or PhotoReader(0)
    needed = max(MARGIN * max(side, backbone.side), *(helper.decode_side for helper in helpers), 0)

    def prepare(file: ImageFile) -> list[Any] | Failure:
        try:
            photo = reader.read(file, needed)
            inputs = [helper.prepare(photo) for helper in helpers]
        except ImageError as reason:
            return Failure(file.location, str(reason))
        return [square(photo.image, side, reduced=True), square(photo.image, backbone.side), *inputs]

    rows: list[int] = []
    small: list[NDArray[np.uint8]] = []
    failures: list[Failure] = []
    describe = StageMeans(backbone)
    said: list[list[NDArray[np.float32]]] = []  # of each batch, by the backbone and by each helper
    with progress(len(files), "features") as bar:
        waiting: list[list[Any]] = []
        for i, views in enumerate(bounded_map(prepare, files, ahead=2 * BATCH)):
            if isinstance(views, Failure):
                failures.append(views)
            else:
                rows.append(i)
                small.append(views[0])
                waiting.append(views[1:])
            if waiting and (len(waiting) == BATCH or i + 1 == len(files)):
                whole, *inputs = zip(*waiting, strict=True)
                own = embed(describe, torch.from_numpy(np.stack(whole)), fabric).numpy()
                asked = zip(helpers, inputs, strict=True)
                helped = [unit_rows(embed_many(one, some, one.calls.batch), one.name) for one, some in asked]
                said.append([own, *helped])
                waiting.clear()
            bar.update()
    pixels = np.stack(small) if small else np.zeros((0, side, side, 3), np.uint8)
    none = [np.zeros((0, backbone.dim), np.float32)]
    found, *vectors = [np.concatenate(parts) for parts in zip(*said, strict=True)] or none
    kept, named = [files[i] for i in rows], [digests[i] for i in rows]
    keys = tuple(helper.key for helper in helpers)
    before, after = np.split(found, [found.shape[1] - backbone.dim], axis=1)
    moved = [rows - rows.mean(axis=0) for rows in vectors]
    # Scaled to vary as much as what the backbone itself says
    scaled = [rows * (_spread(after) / max(_spread(rows), ALIKE)) for rows in moved]
    joined = np.concatenate([before, *scaled, after], axis=1, dtype=np.float32)
    free = joined.shape[1] - before.shape[1]
    return Pool(kept, named, pixels, joined, free, failures, reader, helpers=keys)


def open_helpers(helpers: Sequence[str | Embedder], device: str) -> list[Embedder]:
    """Open embedders of the whole pool by their specs, as `open_embedder` does; some may be open already."""
    lenient = EmbedderOptions(allow_missing=True)
    return [one if isinstance(one, Embedder) else open_embedder(one, device, lenient) for one in helpers]


def require_all(helper: Embedder, files: Sequence[ImageFile], digests: Sequence[str]) -> None:
    """Raise UsageError if a helper has no vector for some of the files with these digests."""
    if missing := helper.find_missing(files, digests):
        lacking = f"{len(missing)} of {count(len(files), 'image')}"
        raise UsageError(f"--helper {helper.name} lacks {lacking}. Give a vector for each, or leave it out.")


def _spread(rows: NDArray[np.float32]) -> float:
    """Root of the mean squared distance of rows from their mean."""
    return float(np.sqrt(rows.var(axis=0, dtype=np.float64).sum()))

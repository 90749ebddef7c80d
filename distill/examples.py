"""What the student learns from: images of the pool, and where they belong."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray

from distill.model.backbone import Backbone
from distill.model.pooling import StageMeans
from distill.model.student import embed
from index.errors import ImageError
from index.images.decode import read_photo, square
from index.images.file import ImageFile
from index.parallel import BATCH, WORKERS, bounded_map
from index.progress import progress
from index.stores.records import Failure

MOST = 4000  # images of the pool that are looked at: bounds the time and the memory
FEWEST_HELD_OUT = 5  # fewer tell nothing
HELD_OUT = 110  # answers that are held out where the budget allows: about 100 bound agreement to 5 points
LARGEST_SHARE = 0.2  # of the answers that is held out


@dataclass(frozen=True)
class Examples:
    """Images and where they belong.

    Attributes:
        pixels: `(n, stored_side, stored_side, 3)` uint8.
        targets: `(n, dim)` unit rows in teacher space.
        answered: How many of them, from the first, have the teacher's answer as target. The rest have a
            prediction of it.
    """

    pixels: NDArray[np.uint8]
    targets: NDArray[np.float32]
    answered: int

    def __post_init__(self) -> None:
        assert len(self.pixels) == len(self.targets) >= self.answered > 0


@dataclass(frozen=True)
class PoolFeatures:
    """What was seen of the files that can be read.

    Attributes:
        rows: `(n,)` positions of those files.
        pixels: `(n, side, side, 3)` uint8.
        features: `(n, features)` of the whole backbone, as in `StageMeans`.
        free_dim: How many of them, the last, are what the backbone itself says of an image.
        failures: Files that cannot be read, with the reason.
    """

    rows: NDArray[np.int64]
    pixels: NDArray[np.uint8]
    features: NDArray[np.float32]
    free_dim: int
    failures: list[Failure]

    @property
    def free(self) -> NDArray[np.float32]:
        """`(n, free_dim)` vectors of the free network: the backbone, which costs no query."""
        return self.features[:, -self.free_dim :]


def look(files: Sequence[ImageFile], backbone: Backbone, side: int, fabric: Fabric) -> PoolFeatures:
    """Decode files once, to small squares and to features of the backbone at its own size.

    Args:
        files: What to look at; those that cannot be read are left out.
        backbone: Whole, as it was pretrained.
        side: Of the small squares, in pixels.
        fabric: Where to compute.
    """

    def prepare(file: ImageFile) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | Failure:
        try:
            photo = read_photo(file, max(side, backbone.side))
        except ImageError as reason:
            return Failure(file.location, str(reason))
        return square(photo.image, side), square(photo.image, backbone.side)

    rows: list[int] = []
    small: list[NDArray[np.uint8]] = []
    failures: list[Failure] = []
    describe = StageMeans(backbone)
    features: list[NDArray[np.float32]] = []
    with ThreadPoolExecutor(WORKERS) as pool, progress(len(files), "look") as bar:
        outcomes = enumerate(bounded_map(pool, prepare, files, ahead=2 * BATCH))
        waiting: list[NDArray[np.uint8]] = []
        for i, views in outcomes:
            if isinstance(views, Failure):
                failures.append(views)
            else:
                rows.append(i)
                small.append(views[0])
                waiting.append(views[1])
            if waiting and (len(waiting) == BATCH or i + 1 == len(files)):
                features.append(embed(describe, torch.from_numpy(np.stack(waiting)), fabric).numpy())
                waiting.clear()
            bar.update()
    pixels = np.stack(small) if small else np.zeros((0, side, side, 3), np.uint8)
    found = np.concatenate(features) if features else np.zeros((0, backbone.dim), np.float32)
    return PoolFeatures(np.array(rows, np.int64), pixels, found, backbone.dim, failures)


def hold_out(digests: Sequence[str], share: float | None = None) -> NDArray[np.bool_]:
    """Choose which answers to keep from training: about a share of them, decided by the image alone.

    A larger budget holds out a smaller share, so that what it holds out a smaller budget holds out too.
    Nothing is held out where little would be left.

    Args:
        digests: Content digest, in hexadecimal, of each of n answered images.
        share: How much to hold out; None for about `HELD_OUT` images, and no more than `LARGEST_SHARE`.

    Returns:
        `(n,)` whether it is held out.
    """
    if share is None:
        share = min(LARGEST_SHARE, HELD_OUT / max(len(digests), 1))
    held = np.array([int(digest[:8], 16) < share * 16**8 for digest in digests], bool)
    enough = FEWEST_HELD_OUT <= held.sum() <= len(held) // 2
    return held if enough else np.zeros(len(held), bool)


def gather(
    looked: PoolFeatures,
    answered: NDArray[np.int64],
    held: NDArray[np.int64],
    places: NDArray[np.float32],
    others: bool,
) -> Examples:
    """Put the answered images first, and those without an answer behind them.

    Args:
        looked: What was seen of the pool.
        answered: `(k,)` rows of the images that are learnt from with their answers.
        held: `(m,)` rows of those that are held out, and not learnt from in any way.
        places: `(n, dim)` where each image of the pool belongs.
        others: Whether the rest is learnt from.
    """
    without = np.setdiff1d(np.arange(len(looked.pixels)), np.concatenate([answered, held]))
    rows = np.concatenate([answered, without]) if others else answered
    return Examples(looked.pixels[rows], places[rows], len(answered))

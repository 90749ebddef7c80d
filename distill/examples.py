"""What the student learns from: answered images, and predictions for images without an answer.

The whole ImageNet backbone, at its own input size, knows much that a short student at a small size does not.
A ridge regression from its features to the answers tells where an image without an answer probably belongs.
It costs no query.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F  # noqa: N812

from distill.model.backbone import Backbone
from distill.model.student import embed, fit_head
from index.errors import ImageError
from index.images.decode import read_photo, square
from index.images.file import ImageFile
from index.parallel import BATCH, WORKERS, bounded_map
from index.progress import progress
from index.stores.records import Failure

MOST = 4000  # images of the pool that are looked at: bounds the time and the memory
FEWEST_HELD_OUT = 5  # fewer tell nothing
PENALTY = 0.1  # of the regression, relative to the variance of the features


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
        features: `(n, features)` of the backbone.
        failures: Files that cannot be read, with the reason.
    """

    rows: NDArray[np.int64]
    pixels: NDArray[np.uint8]
    features: NDArray[np.float32]
    failures: list[Failure]


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
    features = [np.zeros((0, backbone.dim), np.float32)]
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
                features.append(embed(backbone, torch.from_numpy(np.stack(waiting)), fabric).numpy())
                waiting.clear()
            bar.update()
    pixels = np.stack(small) if small else np.zeros((0, side, side, 3), np.uint8)
    return PoolFeatures(np.array(rows, np.int64), pixels, np.concatenate(features), failures)


def hold_out(digests: Sequence[str], share: float) -> NDArray[np.bool_]:
    """Which answers to keep from training: about a share of them, decided by the image alone.

    So an image that one budget holds out no other budget learns from. Nothing is held out where little would
    be left.

    Args:
        digests: Content digest, in hexadecimal, of each of n answered images.
        share: How much to hold out.

    Returns:
        `(n,)` whether it is held out.
    """
    held = np.array([int(digest[:8], 16) < share * 16**8 for digest in digests], bool)
    return held if held.sum() <= len(held) // 2 else np.zeros(len(held), bool)


def gather(
    looked: PoolFeatures,
    rows: NDArray[np.int64],
    targets: NDArray[np.float32],
    held: NDArray[np.bool_],
    unqueried: bool,
) -> tuple[Examples, Examples | None]:
    """Divide the answered images into what is learnt from and what is held out, and add the others.

    Args:
        looked: What was seen of the pool.
        rows: `(n,)` places of the answered images in it.
        targets: `(n, dim)` their answers in teacher space.
        held: `(n,)` which of them to hold out.
        unqueried: Whether images without an answer are learnt from, with predicted targets. A held-out image
            is then one of them.

    Returns:
        What to learn from; what is held out, None if it is too little to tell anything.
    """
    kept, aims = rows[~held], targets[~held]
    enough = held.sum() >= FEWEST_HELD_OUT
    held_out = Examples(looked.pixels[rows[held]], targets[held], int(held.sum())) if enough else None
    if not unqueried:
        return Examples(looked.pixels[kept], aims, len(kept)), held_out
    others = np.setdiff1d(np.arange(len(looked.pixels)), kept)
    guesses = predict_targets(looked.features[kept], aims, looked.features[others])
    pixels = looked.pixels[np.concatenate([kept, others])]
    return Examples(pixels, np.concatenate([aims, guesses]), len(kept)), held_out


def predict_targets(
    features: NDArray[np.float32], targets: NDArray[np.float32], others: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Ridge regression from unit features to targets, applied to other images.

    Args:
        features: `(n, features)` of the answered images.
        targets: `(n, dim)` unit rows in teacher space.
        others: `(m, features)` of the images to predict for.

    Returns:
        `(m, dim)` unit rows.
    """
    known, asked = (F.normalize(torch.from_numpy(x), dim=1) for x in (features, others))
    head = nn.Linear(features.shape[1], targets.shape[1])
    fit_head(head, known, torch.from_numpy(targets), PENALTY * features.shape[1] / len(features))
    with torch.inference_mode():
        return F.normalize(head(asked), dim=1).numpy()

"""Random and central crops of images that are kept a little larger than the student's input."""

import torch
from torch import Tensor

MARGIN = 1.125  # how much larger


def stored_side(side: int) -> int:
    """The square to keep of each image, from which crops of `side` are taken."""
    return round(side * MARGIN)


def center_crop(images: Tensor, side: int) -> Tensor:
    """Cut the middle `(n, side, side, 3)` out of larger squares."""
    start = (images.shape[1] - side) // 2
    return images[:, start : start + side, start : start + side]


def random_crop(images: Tensor, side: int, flip: bool) -> Tensor:
    """Cut a square of `side` out of each image, at a place of its own, half of them mirrored if `flip`."""
    n, slack = len(images), images.shape[1] - side + 1
    corners = torch.randint(slack, (n, 2)).tolist()
    crops = torch.stack(
        [image[y : y + side, x : x + side] for image, (y, x) in zip(images, corners, strict=True)]
    )
    if not flip:
        return crops
    return torch.where(torch.rand(n, 1, 1, 1) < 0.5, crops.flip(2), crops)

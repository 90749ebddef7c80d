"""What a student is shown of images that are kept a little larger than its input."""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from distill.training.recipes import MARGIN


def stored_side(side: int) -> int:
    """Choose the square to keep of each image, from which views of `side` are taken."""
    return round(side * MARGIN)


def center_crop(images: Tensor, side: int) -> Tensor:
    """Cut the middle `(n, side, side, 3)` out of larger squares."""
    start = (images.shape[1] - side) // 2
    return images[:, start : start + side, start : start + side]


def random_view(
    images: Tensor, side: int, shown: tuple[float, float], turn: float = 0.0, flip: bool = True
) -> Tensor:
    """Cut a square of a random size at a random place of each image, turned a little, half of them mirrored.

    From `(n, stored, stored, 3)` uint8 to `(n, side, side, 3)` on the same device. A view shows a share of
    each side of the image between the two `shown`, turned by up to so many degrees either way; what lies
    outside the image is its mirror image. The chances are drawn on the CPU: all devices draw the same.
    """
    n = len(images)
    share = torch.empty(n).uniform_(*shown)
    angle = torch.empty(n).uniform_(-turn, turn).deg2rad()
    place = (1 - share)[:, None] * (2 * torch.rand(n, 2) - 1)
    mirrored = torch.where(torch.rand(n) < 0.5, -1.0, 1.0) if flip else torch.ones(n)
    cosine, sine = share * angle.cos(), share * angle.sin()
    rows = [cosine * mirrored, -sine, place[:, 0], sine * mirrored, cosine, place[:, 1]]
    corners = torch.stack(rows, dim=1).view(n, 2, 3).to(images.device)
    grid = F.affine_grid(corners, [n, 3, side, side], align_corners=False)
    pixels = images.permute(0, 3, 1, 2).float()
    views = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return views.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()

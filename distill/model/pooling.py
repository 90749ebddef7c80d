"""What is read off the maps of a backbone's stages.

The mean of the last map alone has few numbers, 112 in the default student, and a linear head cannot make more
of them. Earlier maps and the deviations within each map tell as much again, at next to no cost.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from distill.model.backbone import Backbone
from index.errors import UsageError

SMALLEST_VARIANCE = 1e-4  # within a map: its square root then has a gradient


def pool_maps(backbone: Backbone, images: Tensor) -> Tensor:
    """Map `(n, h, w, 3)` uint8 to `(n, features)`: means and deviations of the maps, and the rest."""
    maps, features = backbone.maps(images)
    pooled = [] if features is None else [features]
    for found in maps:
        variance = found.var(dim=(2, 3), unbiased=False)
        pooled += [found.mean(dim=(2, 3)), (variance + SMALLEST_VARIANCE).sqrt()]
    if not pooled:
        raise UsageError(f"{backbone.name} sees only edges and colours in so few stages. Give more --stages.")
    return torch.cat(pooled, dim=1)


class StageMeans(nn.Module):
    """Means of the maps and the features of a whole backbone, each of them scaled to unit length.

    The features come last, so that `[:, -backbone.dim:]` is what the network itself says of an image.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        """Map `(n, h, w, 3)` uint8 to `(n, features)` float32."""
        maps, features = self.backbone.maps(images)
        parts = [found.mean(dim=(2, 3)) for found in maps] + ([] if features is None else [features])
        return torch.cat([F.normalize(part, dim=1) for part in parts], dim=1)

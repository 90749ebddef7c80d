"""The student: a backbone, what is read off the maps of its stages, and a linear head; unit vectors out.

The mean of the last map alone has few numbers, 112 in the default student, and a linear head cannot make more
of them. Earlier maps and the deviations within each map tell as much again, at next to no cost.
"""

from collections.abc import Callable

import torch
from lightning_fabric import Fabric
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


class Student(nn.Module):
    """Maps uint8 RGB images `(n, h, w, 3)` to `(n, dim)` float32 unit rows.

    What is pooled from the backbone's maps is brought to one scale before the linear head, by constants that
    `fit` finds.
    """

    def __init__(self, backbone: Backbone, dim: int) -> None:
        super().__init__()
        self.backbone = backbone
        with torch.no_grad():
            side = max(backbone.side, 64)
            blank = torch.zeros(1, side, side, 3, dtype=torch.uint8)
            features = pool_maps(backbone.eval(), blank).shape[1]
        self.mean = nn.Buffer(torch.zeros(features))
        self.scale = nn.Buffer(torch.ones(features))
        self.head = nn.Linear(features, dim)

    def pool(self, images: Tensor) -> Tensor:
        """Map `(n, h, w, 3)` uint8 to `(n, features)`, each of mean 0 and deviation 1 once fitted."""
        return (pool_maps(self.backbone, images) - self.mean) * self.scale

    def forward(self, images: Tensor) -> Tensor:
        """Embed images."""
        return F.normalize(self.head(self.pool(images)).float(), dim=1)

    def fit(self, images: Tensor, targets: Tensor, ridge: float, fabric: Fabric) -> None:
        """Set the head by ridge regression from `(n, side, side, 3)` uint8 images to `(n, dim)` targets."""
        pooled = embed(self, images, fabric, self.pool)
        deviation = pooled.std(dim=0, unbiased=False)
        self.mean.copy_(pooled.mean(dim=0))
        self.scale.copy_(1 / (deviation + 1e-3 * deviation.mean() + 1e-6))
        fit_head(self.head, ((pooled - self.mean.cpu()) * self.scale.cpu()), targets, ridge)

    def train(self, mode: bool = True) -> "Student":
        """Switch to training; a pretrained backbone keeps its statistics: few images make no better ones."""
        super().train(mode)
        for module in self.modules() if self.backbone.pretrained else ():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


@torch.no_grad()
def fit_head(head: nn.Linear, features: Tensor, targets: Tensor, ridge: float) -> None:
    """Set a linear head by ridge regression; the penalty is relative to the mean variance of a feature."""
    mean, offset = features.double().mean(0), targets.double().mean(0)
    x, y = features.double() - mean, targets.double() - offset
    penalty = ridge * x.pow(2).sum(0).mean() + 1e-12
    gram = x.T @ x
    gram.diagonal().add_(penalty)
    weight = torch.linalg.solve(gram, x.T @ y).T
    head.weight.copy_(weight)
    head.bias.copy_(offset - weight @ mean)


@torch.inference_mode()
def embed(
    module: nn.Module, images: Tensor, fabric: Fabric, part: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Outputs `(n, dim)` of a module, or a part of it, for `(n, side, side, 3)` uint8 images, on the CPU."""
    module.eval().to(fabric.device)
    run = part or module
    return torch.cat([run(fabric.to_device(chunk)).float().cpu() for chunk in images.split(64)])

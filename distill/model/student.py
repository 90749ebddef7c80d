"""The student: a backbone and a linear head, unit vectors out."""

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from distill.model.backbone import Backbone


class Student(nn.Module):
    """Maps uint8 RGB images `(n, h, w, 3)` to `(n, dim)` float32 unit rows."""

    def __init__(self, backbone: Backbone, dim: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.dim, dim)

    def forward(self, images: Tensor) -> Tensor:
        """Embed images."""
        return F.normalize(self.head(self.backbone(images)).float(), dim=1)

    def train(self, mode: bool = True) -> "Student":
        """Switch to training; a pretrained backbone keeps its batch normalisation's statistics.

        A few hundred images are too few to estimate them again.
        """
        super().train(mode)
        for module in self.modules() if self.backbone.pretrained else ():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


@torch.no_grad()
def fit_head(head: nn.Linear, features: Tensor, targets: Tensor, ridge: float) -> None:
    """Set a linear head by ridge regression, so that training starts aligned with teacher space.

    Args:
        head: The layer to set.
        features: `(n, features)` of the backbone.
        targets: `(n, dim)` teacher vectors.
        ridge: Penalty, relative to the mean variance of a feature.
    """
    mean, offset = features.double().mean(0), targets.double().mean(0)
    x, y = features.double() - mean, targets.double() - offset
    penalty = ridge * x.pow(2).sum(0).mean() + 1e-12
    gram = x.T @ x
    gram.diagonal().add_(penalty)
    weight = torch.linalg.solve(gram, x.T @ y).T
    head.weight.copy_(weight)
    head.bias.copy_(offset - weight @ mean)


@torch.inference_mode()
def embed(module: nn.Module, images: Tensor, fabric: Fabric) -> Tensor:
    """`(n, dim)` outputs of a module for `(n, side, side, 3)` uint8 images, on the CPU."""
    module.eval().to(fabric.device)
    return torch.cat([module(fabric.to_device(chunk)).float().cpu() for chunk in images.split(64)])

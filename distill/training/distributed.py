"""Training in several processes, as torchrun starts them: who does what, and what they exchange."""

from collections.abc import Callable
from typing import TypeVar

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

T = TypeVar("T")


def on_first(fabric: Fabric, make: Callable[[], T]) -> T:
    """Give all processes what the first one makes: the others do not read, ask or measure."""
    made = make() if fabric.is_global_zero else None
    return made if fabric.world_size == 1 else fabric.broadcast(made)  # type: ignore[return-value]


def embed_shared(model: nn.Module, images: Tensor, fabric: Fabric) -> Tensor:
    """Embed `(n, side, side, 3)` uint8, each process a share, to `(n, dim)` rows that all of them see.

    Every process must be given the same batch and compute the same loss of the result. The gradients that
    reach a share are then summed over the processes, and DDP averages what comes of them: together exactly
    the gradient of one process with the whole batch.
    """
    count, processes = len(images), fabric.world_size
    if processes == 1:
        return model(images)
    each = -(-count // processes)
    rows = torch.arange(each * processes) % count  # the shares must be of one size: some images come twice
    mine = rows.split(each)[fabric.global_rank]
    gathered = fabric.all_gather(model(images[mine]), sync_grads=True)
    return gathered.flatten(0, 1)[:count]  # type: ignore[union-attr]

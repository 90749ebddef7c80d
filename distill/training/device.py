"""Where torch trains, in which processes of torchrun, how it uses memory: no other place knows of devices."""

import ctypes
import os
import platform
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor, nn

from index.errors import UsageError

T = TypeVar("T")


def choose_accelerator(device: str, cuda: bool, bf16: bool) -> tuple[str, str]:
    """Choose Fabric's accelerator and precision, bfloat16 where a GPU has it; UsageError if there is none."""
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"No device {device!r}. Give one of auto, cpu, cuda.")
    if device == "cuda" and not cuda:
        raise UsageError("--device cuda does not work: torch sees no GPU. Give --device cpu.")
    if device == "cpu" or not cuda:
        return "cpu", "32-true"
    return "cuda", "bf16-mixed" if bf16 else "32-true"


def open_fabric(device: str, alone: bool = False) -> Fabric:
    """Start Fabric by `choose_accelerator`, in all processes of torchrun or in this one `alone`."""
    cuda = torch.cuda.is_available()
    accelerator, precision = choose_accelerator(device, cuda, cuda and torch.cuda.is_bf16_supported())
    here, nodes = (1, 1) if alone else count_processes(os.environ)
    gpu = int(os.environ.get("LOCAL_RANK", "0"))
    fabric = Fabric(
        accelerator=accelerator,
        devices=[gpu] if alone and accelerator == "cuda" else here,
        num_nodes=nodes,
        # They wait for the one that asks the teacher; if it dies, torchrun ends them.
        strategy=DDPStrategy(timeout=timedelta(days=7)) if here * nodes > 1 else "auto",
        precision=precision,  # type: ignore[arg-type]
    )
    fabric.launch()
    if fabric.device.type != accelerator:
        raise UsageError(f"Training fell back from {accelerator} to {fabric.device.type}. Give --device cpu.")
    return fabric


def count_processes(environment: Mapping[str, str]) -> tuple[int, int]:
    """Count the processes that torchrun has started here, and the machines; 1, 1 without it."""
    here = int(environment.get("LOCAL_WORLD_SIZE", 1))
    return here, int(environment.get("WORLD_SIZE", 1)) // here


def keep_freed_memory() -> None:
    """Tell glibc to keep freed buffers for the next step instead of returning each to the kernel.

    Training on the CPU frees and allocates the same large buffers every step; giving them back costs up to
    ten times the work itself. Call it before the first tensor. Does nothing where glibc is not.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    m_trim_threshold, m_top_pad, m_mmap_threshold = -1, -2, -3  # malloc.h
    libc = ctypes.CDLL(None)
    libc.mallopt(m_mmap_threshold, 1 << 30)
    libc.mallopt(m_trim_threshold, 2**31 - 1)
    libc.mallopt(m_top_pad, 100 << 20)


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

"""Where torch trains and how it uses memory: the only place of this room that knows of devices."""

import ctypes
import os
import platform
from collections.abc import Mapping
from datetime import timedelta

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy

from index.errors import UsageError

Choice = tuple[str, str]  # accelerator, precision: Fabric's words


def choose_accelerator(device: str, cuda: bool, bf16: bool) -> Choice:
    """Choose Fabric's accelerator and precision, bfloat16 where a GPU has it; UsageError if there is none."""
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"No device {device!r}. Give one of auto, cpu, cuda.")
    if device == "cuda" and not cuda:
        raise UsageError("--device cuda cannot be had: torch sees no GPU.")
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
        raise UsageError(f"Training fell back from {accelerator} to {fabric.device.type}.")
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

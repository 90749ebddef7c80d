"""Which device ONNX Runtime works on: the only place of this room that knows of one, FAISS aside."""

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Literal, get_args

from index.errors import UsageError
from index.progress import say

Device = Literal["auto", "cpu", "cuda", "openvino"]
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_say_once = cache(say)


def choose_provider(device: str, available: Sequence[str], gpus: int) -> str:
    """Choose an execution provider that ONNX Runtime has, with so many GPUs; UsageError if there is none."""
    if device not in get_args(Device):
        raise UsageError(f"No device {device!r}. Give one of {', '.join(get_args(Device))}.")
    if device in ("cpu", "openvino"):  # whose part is in `build/openvino.py`
        return CPU
    if CUDA in available and gpus:
        return CUDA
    if device == "auto":
        return CPU
    missing = "this ONNX Runtime has no CUDA: install the gpu extra"
    if CUDA in available:
        missing = "the driver sees no GPU"
    raise UsageError(f"--device cuda does not work: {missing}.")


def check_provider(device: str, wanted: str, active: Sequence[str]) -> None:
    """Look whether ONNX Runtime fell back to another provider, which it does silently.

    For device `auto` that is said, once; else it raises UsageError.
    """
    if active and active[0] == wanted:
        return
    if device != "auto":
        raise UsageError(
            f"ONNX Runtime fell back from {wanted} to {active[0] if active else 'nothing'}. "
            "Install the gpu extra again, for the driver that is here, or give --device cpu."
        )
    _say_once("The GPU cannot be used here: embedding on the CPU.")


def count_gpus() -> int:
    """Ask the NVIDIA driver itself how many GPUs there are; 0 without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    failed = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    return 0 if failed else count.value

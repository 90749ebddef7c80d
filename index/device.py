"""Which device ONNX Runtime works on: the only place of this room that knows of one, FAISS aside."""

import ctypes
from collections.abc import Sequence
from typing import Literal, get_args

from index.errors import UsageError

Device = Literal["auto", "cpu", "cuda", "openvino"]
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def choose_provider(device: str, available: Sequence[str], gpus: int) -> str:
    """Choose an execution provider that ONNX Runtime has, with so many GPUs; UsageError if there is none."""
    if device not in get_args(Device):
        raise UsageError(f"No device {device!r}. Give one of {', '.join(get_args(Device))}.")
    if device in ("cpu", "openvino"):  # whose part is in `embedders/openvino.py`
        return CPU
    if CUDA in available and gpus:
        return CUDA
    if device == "auto":
        return CPU
    missing = "this ONNX Runtime has no CUDA: install the gpu extra"
    if CUDA in available:
        missing = "the driver sees no GPU"
    raise UsageError(f"--device cuda cannot be had: {missing}.")


def assert_provider(wanted: str, active: Sequence[str]) -> None:
    """Raise UsageError where ONNX Runtime fell back to another provider, which it does silently."""
    if not active or active[0] != wanted:
        raise UsageError(f"ONNX Runtime fell back from {wanted} to {active[0] if active else 'nothing'}.")


def count_gpus() -> int:
    """Ask the NVIDIA driver itself how many GPUs there are; 0 without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value

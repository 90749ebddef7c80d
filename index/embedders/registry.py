"""Open an embedder by name: `open_embedder("student.onnx")`."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from index.embedders.base import Embedder
from index.embedders.options import EmbedderOptions
from index.errors import UsageError

# Files of weights and of vectors that others take.
NO_MODELS = tuple(
    ".npy .csv .tsv .txt .json .jsonl .arrow .feather .mat .h5 .hdf5 .keras .pb .pkl .pickle .pt .pth .ckpt "
    ".bin .data .safetensors .gguf .tflite .mlmodel .mlpackage .xml .engine .plan .zip .tar .gz".split()
)


def is_endpoint(spec: str) -> bool:
    """Whether a spec is the address of an endpoint."""
    return spec.startswith(("http://", "https://"))


def is_file_spec(spec: str) -> bool:
    """Whether a spec names a file, which opening only reads: no code of it is run, and nothing is sent."""
    return not is_endpoint(spec) and not _is_callable(spec)


def open_embedder(
    spec: str | Path | Callable[..., Any], device: str = "auto", options: EmbedderOptions | None = None
) -> Embedder:
    """Open an embedder on a device, as for `choose_provider`; UsageError if that cannot be.

    The spec is the path of an ONNX file, ours or foreign; of a file of vectors (.npz, .parquet); the address
    of an endpoint (http, https); or a Python callable, as `package.module:attribute`, as
    `path/to/module.py:attribute`, or itself. Options are what it does not say.
    """
    options = options or EmbedderOptions()
    name = "" if callable(spec) else str(spec)
    if is_endpoint(name):
        from index.embedders.http import EndpointEmbedder

        return EndpointEmbedder(name, options)
    if name.endswith((".npz", ".parquet")):
        from index.embedders.vectors_file import VectorsEmbedder

        return VectorsEmbedder(Path(name), options)
    if callable(spec) or _is_callable(name):
        from index.embedders.callable import CallableEmbedder

        return CallableEmbedder(spec if callable(spec) else name, options)
    if re.match(r"[A-Za-z][\w+.-]+://", name):
        raise UsageError(f"{name} cannot be asked. Give an http:// or https:// address, or a file.")
    if name.lower().endswith(NO_MODELS) and Path(name).is_file():
        raise UsageError(
            f"{name} is of a kind that is not read. Give an ONNX file, model.py:function, or vectors as .npz "
            "or .parquet with `ids` and `vectors`."
        )
    from index.embedders.onnx import OnnxEmbedder, is_ours, open_session
    from index.embedders.onnx_generic import ForeignEmbedder

    path, opened = Path(name), open_session(Path(name), device)
    return OnnxEmbedder(path, opened=opened) if is_ours(opened[1]) else ForeignEmbedder(path, opened, options)


def _is_callable(spec: str) -> bool:
    return bool(re.fullmatch(r"([\w.]+|.+\.py):[\w.]+", spec)) and not Path(spec).exists()

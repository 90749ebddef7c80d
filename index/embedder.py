"""Embedders: whatever maps images to unit vectors. `open_embedder("student.onnx")` opens one by name."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from index.device import CUDA, assert_provider, choose_provider, count_gpus
from index.errors import RetrievalError, UsageError, needs
from index.images import Photo, content_digest, square

FORMAT = "1"  # of our ONNX files, in their metadata as `retrieval.format`


class Embedder(Protocol):
    """Maps images to vectors.

    Attributes:
        key: Identity. Two embedders with one key give the same vectors.
        name: What to call it in messages.
        spec: What `open_embedder` opens it by.
        dim: Length of its vectors.
        side: The square that it makes of an image, in pixels.
        provider: What it runs on.
    """

    key: str
    name: str
    spec: str
    dim: int
    side: int
    provider: str

    def prepare(self, photo: Photo) -> NDArray[Any]:
        """Make the input for one image. Safe in worker threads."""

    def embed(self, batch: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """Map n prepared inputs to `(n, dim)` float32 unit rows."""


class OnnxEmbedder:
    """An ONNX file of ours: uint8 `(n, side, side, 3)` RGB in, unit rows out, the rest in the graph."""

    def __init__(self, path: Path, device: str = "auto") -> None:
        """Open the file.

        Args:
            path: The ONNX file.
            device: `auto`, `cpu` or `cuda`.

        Raises:
            UsageError: No such file, not an embedder of ours, or the device cannot be had.
        """
        with needs("cpu"):
            import onnxruntime as ort

        if not path.is_file():
            raise UsageError(f"{path} does not exist. Give the ONNX file of a model.")
        data = path.read_bytes()
        provider = choose_provider(device, ort.get_available_providers(), count_gpus())
        if provider == CUDA:
            ort.preload_dlls()
        options = ort.SessionOptions()
        options.log_severity_level = 3
        # Threads that spin while they wait take the cores from the ones that decode.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(data, options, providers=[provider])
        except Exception as error:  # ONNX Runtime raises its own kinds, none of them exported
            raise UsageError(
                f"{path} is not an ONNX model that can be run ({type(error).__name__})."
            ) from error
        assert_provider(provider, self._session.get_providers())

        metadata = self._session.get_modelmeta().custom_metadata_map
        if metadata.get("retrieval.format") != FORMAT:
            raise UsageError(
                f"{path} is not an embedder of this program. "
                "Make one with `retrieval distill` or `retrieval export`."
            )
        self.data = data
        self.metadata: dict[str, str] = metadata
        self.key = f"onnx:{content_digest(data)}"
        self.name = path.name
        self.spec = str(path.absolute())
        self.dim = int(metadata["retrieval.dim"])
        self.side = int(metadata["retrieval.size"])
        self.crop = float(metadata["retrieval.crop"])
        self.provider = provider

    def prepare(self, photo: Photo) -> NDArray[np.uint8]:
        """Squash the middle of the image to `(side, side, 3)` uint8."""
        return square(photo.image, self.side, self.crop)

    def embed(self, batch: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """Map n `(side, side, 3)` uint8 arrays to `(n, dim)` float32 unit rows."""
        return self._session.run(["embeddings"], {"images": np.stack(batch)})[0]


def open_embedder(spec: str | Path, device: str = "auto") -> Embedder:
    """Open the embedder that `spec` names.

    Args:
        spec: The path of an ONNX file.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        UsageError: It cannot be opened.
    """
    return OnnxEmbedder(Path(spec), device)


def embed_many(embedder: Embedder, inputs: Sequence[NDArray[Any]], batch: int = 32) -> NDArray[np.float32]:
    """Embed n prepared inputs, `batch` at a time, to `(n, dim)` float32 unit rows."""
    chunks = [inputs[start : start + batch] for start in range(0, len(inputs), batch)]
    return np.concatenate([embedder.embed(list(chunk)) for chunk in chunks])


def embed_checked(
    embedder: Embedder, batch: Sequence[NDArray[Any]], names: Sequence[str]
) -> NDArray[np.float32]:
    """Embed, and refuse whatever is not one finite unit vector of the right length for each image.

    Args:
        embedder: The model.
        batch: n prepared inputs.
        names: n names, for the message.

    Returns:
        `(n, dim)` float32 unit rows.

    Raises:
        RetrievalError: Names the model, the first such image and the fault.
    """
    vectors = np.asarray(embedder.embed(batch), np.float32)
    if vectors.shape != (len(names), embedder.dim):
        raise RetrievalError(
            f"{embedder.name} answered {vectors.shape} for {len(names)} images ({names[0]}, ...), "
            f"not ({len(names)}, {embedder.dim})."
        )
    norms = np.linalg.norm(vectors, axis=1)
    wrong = np.flatnonzero(~(np.abs(norms - 1) < 1e-3))  # also true for NaN
    if len(wrong):
        raise RetrievalError(
            f"{embedder.name} answered for {names[wrong[0]]} "
            f"with a vector of length {norms[wrong[0]]:.3g}, not 1."
        )
    return vectors

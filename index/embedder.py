"""Embedders: whatever maps images to unit vectors. `open_embedder("student.onnx")` opens one by name."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from index.ahead import CORES
from index.device import CPU, CUDA, assert_provider, choose_provider, count_gpus
from index.errors import RetrievalError, UnansweredError, UsageError, needs
from index.image_file import readable
from index.images import Photo, content_digest, square
from index.options import EmbedderOptions

if TYPE_CHECKING:
    import onnxruntime as ort

FORMAT = "1"  # of our ONNX files, in their metadata as `retrieval.format`


@dataclass(frozen=True)
class Calls:
    """How a model is best called.

    Attributes:
        batch: Images a call.
        lanes: Calls at a time that keep it busy.
        seconds: After so many a call has surely ended.
        rate: Images a second that it may be asked about; None sets no limit.
        paid: Whether an answer has a price, or comes from code that is not ours: it is asked through
            `index.paid`, which remembers every answer and scales it to unit length.
    """

    batch: int = 32
    lanes: int = 1
    seconds: float = 3600.0
    rate: float | None = None
    paid: bool = False


class Embedder(Protocol):
    """Maps images to vectors.

    Attributes:
        key: Identity. Two embedders with one key give the same vectors.
        name: What to call it in messages.
        spec: What `open_embedder` opens it by,
        options: together with these.
        dim: Length of its vectors; 0 before the first answer of a model that does not say.
        side: The square that it makes of an image, in pixels.
        provider: What it runs on.
        calls: How it is best called.
    """

    key: str
    name: str
    spec: str
    options: EmbedderOptions
    side: int
    provider: str
    calls: Calls

    @property
    def dim(self) -> int:
        """Length of the vectors."""

    def prepare(self, photo: Photo) -> Any:
        """Make the input for one image. Safe in worker threads.

        Raises:
            ImageError: The model has nothing for this image; the message is the reason.
        """

    def embed(self, batch: Sequence[Any]) -> NDArray[np.float32]:
        """Map n prepared inputs to `(n, dim)` float32 unit rows. Safe in `calls.lanes` threads.

        Raises:
            UnansweredError: It answered for some of them only.
        """


class OnnxEmbedder:
    """An ONNX file of ours: uint8 `(n, side, side, 3)` RGB in, unit rows out, the rest in the graph."""

    def __init__(self, path: Path, device: str = "auto", threads: int = 0) -> None:
        """Open the file.

        Args:
            path: The ONNX file.
            device: `auto`, `cpu` or `cuda`.
            threads: As in `open_session`.

        Raises:
            UsageError: No such file, not an embedder of ours, or the device cannot be had.
        """
        data, self._session = open_session(path, device, threads)
        metadata = self._session.get_modelmeta().custom_metadata_map
        if not is_ours(self._session):
            raise UsageError(
                f"{path} is not an embedder of this program. "
                "Make one with `retrieval distill` or `retrieval export`."
            )
        self.data = data
        self.metadata: dict[str, str] = metadata
        self.key = f"onnx:{content_digest(data)}"
        self.name = readable(path.name)
        self.spec = str(path.absolute())
        self.options = EmbedderOptions()
        self.calls = own_calls(self._session)
        self.dim = int(metadata["retrieval.dim"])
        self.side = int(metadata["retrieval.size"])
        self.crop = float(metadata["retrieval.crop"])
        self.provider = self._session.get_providers()[0]

    def prepare(self, photo: Photo) -> NDArray[np.uint8]:
        """Squash the middle of the image to `(side, side, 3)` uint8."""
        return square(photo.image, self.side, self.crop)

    def embed(self, batch: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """Map n `(side, side, 3)` uint8 arrays to `(n, dim)` float32 unit rows."""
        return self._session.run(["embeddings"], {"images": np.stack(batch)})[0]


def open_session(path: Path, device: str, threads: int = 0) -> "tuple[bytes, ort.InferenceSession]":
    """Read an ONNX file and make a session of it on the device asked for.

    Args:
        path: The ONNX file.
        device: `auto`, `cpu` or `cuda`.
        threads: How many share the work of a call on a CPU. 0 takes every core, which is best where one call
            is made at a time; 1 where every core makes calls.

    Raises:
        UsageError: No such file, not a model, or the device cannot be had.
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
    options.intra_op_num_threads = threads
    # Threads that spin while they wait take the cores from the ones that decode.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = ort.InferenceSession(data, options, providers=[provider])
    except Exception as error:  # ONNX Runtime raises its own kinds, none of them exported
        raise UsageError(f"{path} is not an ONNX model that can be run ({type(error).__name__}).") from error
    assert_provider(provider, session.get_providers())
    return data, session


def own_calls(session: "ort.InferenceSession") -> Calls:
    """How a session on this machine is best called.

    On a CPU by every core, with few images: more make it no faster, and the memory grows with them.
    """
    return Calls(batch=8, lanes=CORES) if session.get_providers()[0] == CPU else Calls()


def is_ours(session: "ort.InferenceSession") -> bool:
    """Whether a session runs an ONNX file that this program wrote."""
    return session.get_modelmeta().custom_metadata_map.get("retrieval.format") == FORMAT


def is_file_spec(spec: str) -> bool:
    """Whether a spec names a file, which opening only reads: no code of it is run, and nothing is sent."""
    return not _is_address(spec) and not _is_callable(spec)


def open_embedder(spec: str | Path, device: str = "auto", options: EmbedderOptions | None = None) -> Embedder:
    """Open the embedder that `spec` names.

    Args:
        spec: The path of an ONNX file, ours or foreign; of a file of vectors (.npz, .parquet); the address of
            an endpoint (http, https); or a Python callable, as `package.module:attribute`.
        device: `auto`, `cpu` or `cuda`.
        options: What the spec does not say.

    Raises:
        UsageError: It cannot be opened.
    """
    name, options = str(spec), options or EmbedderOptions()
    if _is_address(name):
        from index.endpoint import EndpointEmbedder

        return EndpointEmbedder(name, options)
    if name.endswith((".npz", ".parquet")):
        from index.vectors_file import VectorsEmbedder

        return VectorsEmbedder(Path(spec), options)
    if re.match(r"[A-Za-z][\w+.-]+://", name):
        raise UsageError(f"{name} cannot be asked. Give an http:// or https:// address, or a file.")
    if _is_callable(name):
        from index.python_object import ObjectEmbedder

        return ObjectEmbedder(name, options)
    from index.foreign import open_onnx

    return open_onnx(Path(spec), device, options)


def _is_address(spec: str) -> bool:
    return spec.startswith(("http://", "https://"))


def _is_callable(spec: str) -> bool:
    return bool(re.fullmatch(r"[\w.]+:[\w.]+", spec)) and not Path(spec).exists()


def embed_many(embedder: Embedder, inputs: Sequence[NDArray[Any]], batch: int = 32) -> NDArray[np.float32]:
    """Embed n prepared inputs, `batch` at a time, to `(n, dim)` float32 unit rows."""
    chunks = [inputs[start : start + batch] for start in range(0, len(inputs), batch)]
    return np.concatenate([embedder.embed(list(chunk)) for chunk in chunks])


def embed_checked(embedder: Embedder, batch: Sequence[Any], names: Sequence[str]) -> NDArray[np.float32]:
    """Embed, and refuse whatever is not one finite unit vector of the right length for each image.

    Args:
        embedder: The model.
        batch: n prepared inputs.
        names: n names, for the message.

    Returns:
        `(n, dim)` float32 unit rows.

    Raises:
        UnansweredError: The model answered for some of the images only.
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


def unit_rows(rows: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    """Scale n rows to unit length.

    Args:
        rows: `(n, dim)`, finite or not.
        name: Whose answer it is.

    Raises:
        UnansweredError: Names the rows that have no direction.
    """
    reasons = {i: fault for i, row in enumerate(rows) if (fault := find_fault(row))}
    if reasons:
        raise UnansweredError(f"{name} {next(iter(reasons.values()))}", reasons)
    wide = rows.astype(np.float64)  # the squares of small numbers vanish in float32
    return (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32)


def find_fault(row: NDArray[np.float32]) -> str:
    """Why a vector cannot be an answer; empty if it can."""
    if not np.isfinite(row).all():
        return "answered with a vector that is not finite, or not of its usual length"
    return "" if row.any() else "answered with a vector of zeros"

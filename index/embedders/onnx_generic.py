"""ONNX files that others made: float images in, one vector an image out; what is guessed is said."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from index.embedders.base import Embedder, unit_rows
from index.embedders.onnx import OnnxEmbedder, is_ours, open_session, own_calls
from index.embedders.options import EmbedderOptions
from index.errors import UsageError
from index.images.decode import Photo, square
from index.images.file import readable
from index.io import content_digest
from index.progress import say

if TYPE_CHECKING:
    import onnxruntime as ort

FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and deviation of its pixels


def open_onnx(path: Path, device: str, options: EmbedderOptions) -> Embedder:
    """Open an ONNX file, whoever made it.

    Raises:
        UsageError: It cannot be run, or does not map one image to one vector.
    """
    data, session = open_session(path, device)
    if is_ours(session):
        return OnnxEmbedder(path, device)
    embedder = ForeignEmbedder(path, data, session, options)
    if embedder.assumed:
        say(f"{path.name}: assumed {embedder.assumed}")
    return embedder


class ForeignEmbedder(Embedder):
    """A foreign ONNX file: the preprocessing is outside of it.

    Attributes:
        assumed: What was taken for granted because no option said it, for the user to see.
    """

    def __init__(
        self, path: Path, data: bytes, session: "ort.InferenceSession", options: EmbedderOptions
    ) -> None:
        """Find out what goes in and what comes out.

        Args:
            path: The file.
            data: Its bytes.
            session: An open session of it.
            options: What the user says of it.

        Raises:
            UsageError: It does not take one float image or does not give one vector; says which option helps.
        """
        self._session = session
        self.name = readable(path.name)
        self.spec = str(path.absolute())
        self.options = options
        self.provider = session.get_providers()[0]
        self.calls = own_calls(session)
        self._input, self._float, self._layout, side, self._one_by_one = _find_input(session, options)
        size = options.size or side
        if size is None:
            raise UsageError(f"{self.name} takes images of any size. Give --teacher-size in pixels.")
        if side not in (None, size):
            raise UsageError(
                f"{self.name} takes images of {side} pixels, not {size}. Leave --teacher-size out."
            )
        self.side = size
        self._resize = options.resize or "squash"
        mean, std = options.mean or IMAGENET[0], options.std or IMAGENET[1]
        # (x / 255 - mean) / std, as one product and one sum
        self._scale = (1 / (255 * np.array(std))).astype(np.float32)
        self._shift = (-np.array(mean) / np.array(std)).astype(np.float32)
        self._output = _find_output(session, options.output)
        self.dim = self._run(np.zeros((1, size, size, 3), np.uint8)).shape[1]
        feeding = f"{self._layout} {size} {self._resize} {mean} {std} {self._output}"
        self.key = f"onnx:{content_digest(data)}:{content_digest(feeding.encode())}"
        said = {
            "layout": (options.layout, self._layout),
            "size": (options.size, size),
            "mean": (options.mean, ",".join(map(str, mean))),
            "std": (options.std, ",".join(map(str, std))),
            "resize": (options.resize, self._resize),
            "output": (options.output, self._output),
        }
        self.assumed = " ".join(
            f"--teacher-{name} {value}" for name, (given, value) in said.items() if given is None
        )

    def prepare(self, photo: Photo) -> NDArray[np.uint8]:
        """Make `(side, side, 3)` uint8: the whole image squashed, or the middle square of it."""
        if self._resize == "squash":
            return square(photo.image, self.side)
        width, height = photo.image.size
        edge = min(width, height)
        left, top = (width - edge) / 2, (height - edge) / 2
        box = (left, top, left + edge, top + edge)
        return np.asarray(photo.image.resize((self.side, self.side), Image.Resampling.BICUBIC, box))

    def embed(self, batch: Sequence[Any]) -> NDArray[np.float32]:
        """Map n `(side, side, 3)` uint8 arrays to `(n, dim)` float32 unit rows.

        Raises:
            UnansweredError: Some vectors are zero or not finite.
        """
        chunks = [[one] for one in batch] if self._one_by_one else [batch]
        return unit_rows(np.concatenate([self._run(np.stack(chunk)) for chunk in chunks]), self.name)

    def _run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        values = images * self._scale + self._shift
        if self._layout == "nchw":
            values = values.transpose(0, 3, 1, 2)
        feed: dict[str, NDArray[Any]] = {self._input: np.ascontiguousarray(values, self._float)}
        try:
            (rows,) = self._session.run([self._output], feed)
        except Exception as error:  # ONNX Runtime raises its own kinds, none of them exported
            line = " ".join(str(error).split())[:200]
            raise UsageError(
                f"{self.name} does not run on {self._layout} images of {self.side} pixels: {line}"
            ) from error
        if rows.ndim != 2:
            raise UsageError(_no_vector(self.name, self._output, rows.shape, self._session))
        return rows.astype(np.float32)


def _find_input(
    session: "ort.InferenceSession", options: EmbedderOptions
) -> tuple[str, type, str, int | None, bool]:
    """Name, number type, layout and side of the input, and whether it takes one image at a time."""
    inputs = session.get_inputs()
    listed = "; ".join(f"{put.name} {_shape(put.shape)} {put.type}" for put in inputs)
    if len(inputs) != 1:
        raise UsageError(f"This ONNX file has {len(inputs)} inputs ({listed}). Export the image part alone.")
    (only,) = inputs
    if only.type not in FLOATS or len(only.shape) != 4:
        raise UsageError(f"This ONNX file takes {listed}, not float images of four axes.")
    count, *axes = only.shape
    layout = options.layout or ({0: "nchw", 2: "nhwc"}.get(axes.index(3)) if 3 in axes else None)
    if layout is None:
        raise UsageError(f"This ONNX file takes {listed}, in which no axis is colour. Give --teacher-layout.")
    sides = axes[1:] if layout == "nchw" else axes[:2]
    fixed = [side for side in sides if isinstance(side, int)]
    if len(set(fixed)) > 1:
        raise UsageError(f"This ONNX file takes {listed}; images that are not square cannot be made.")
    if isinstance(count, int) and count != 1:
        raise UsageError(f"This ONNX file takes {count} images at once, no fewer. Export it for any number.")
    return only.name, FLOATS[only.type], layout, fixed[0] if fixed else None, count == 1


def _find_output(session: "ort.InferenceSession", wanted: str | None) -> str:
    outputs = {put.name: put.shape for put in session.get_outputs()}
    if wanted is not None:
        if wanted not in outputs:
            raise UsageError(f"--teacher-output {wanted} is none of {', '.join(outputs)}.")
        if len(outputs[wanted]) > 2:
            raise UsageError(_no_vector("This ONNX file", wanted, outputs[wanted], session))
        return wanted
    vectors = [name for name, shape in outputs.items() if len(shape) == 2]
    if len(vectors) == 1:
        return vectors[0]
    if vectors:
        raise UsageError(
            f"This ONNX file has several outputs. Give --teacher-output, one of {', '.join(vectors)}."
        )
    name, shape = next(iter(outputs.items()))
    if not shape:  # unknown before it is run
        return name
    raise UsageError(_no_vector("This ONNX file", name, shape, session))


def _no_vector(name: str, output: str, shape: Sequence[Any], session: "ort.InferenceSession") -> str:
    """Advice for a file whose output is no vector."""
    what = {3: "a sequence of vectors", 4: "a map of features"}.get(len(shape), "no vector")
    pooled = [put.name for put in session.get_outputs() if len(put.shape) == 2]
    advice = (
        f"Give --teacher-output {' or '.join(pooled)}."
        if pooled
        else "Export it with its pooling, so that one vector an image comes out."
    )
    return f"{name} has the output {output} {_shape(shape)}: {what}, not one vector an image. {advice}"


def _shape(shape: Sequence[Any]) -> str:
    return f"({', '.join(map(str, shape))})"

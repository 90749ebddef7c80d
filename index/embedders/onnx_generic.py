"""ONNX files that others made: images in, one vector an image out; what is guessed is said."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from index.embedders.base import unit_rows
from index.embedders.onnx import OnnxModel
from index.embedders.options import EmbedderOptions
from index.errors import UsageError
from index.images.decode import Photo, pad
from index.io import content_digest
from index.vectors import scale_to_unit

if TYPE_CHECKING:
    import onnxruntime as ort

    from index.embedders.onnx import Opened

NUMBERS = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and deviation of its pixels
GREY = (114, 114, 114)  # of the bars beside a photo in a letterbox
SAME, ALIKE = 1e-3, 0.02  # lengths of differences between unit vectors: of rounding, and of 8-bit arithmetic


class ForeignEmbedder(OnnxModel):
    """An ONNX file of others: the preprocessing is outside of it."""

    def __init__(self, path: Path, opened: "Opened", options: EmbedderOptions) -> None:
        """Find out what goes in and what comes out; raise UsageError with the option that helps."""
        super().__init__(path, opened, options)
        self._fed, self._number, self._layout, self._baked, sides = _find_input(self.session, options)
        self._height, self._width = _choose_sides(self.name, sides, options.size)
        self.side = max(self._height, self._width)
        self._resize, is_bgr = options.resize or "squash", options.channels == "bgr"
        self._order = slice(None, None, -1 if is_bgr else 1)
        mean, std = options.mean or IMAGENET[0], options.std or IMAGENET[1]
        raw = self._number is np.uint8
        if raw and (options.mean or options.std):
            raise UsageError(f"{self.name} takes bytes. Leave --teacher-mean and --teacher-std out.")
        # (x / 255 - mean) / std, as one product and one sum, in the order of the channels that go in
        self._scale = (1 / (255 * np.array(std))).astype(np.float32)[self._order]
        self._shift = (-np.array(mean) / np.array(std)).astype(np.float32)[self._order]
        self._output = find_output(self.session, options.output)
        self._pool: str | None = None
        self._count = self._baked
        self.dim, scores = self._try_out()
        size = f"{self._height}x{self._width}" if self._height != self._width else str(self.side)
        feeding = f"{self._layout} {size} {self._resize} {mean} {std} {self._output}"
        feeding += (" bgr" if is_bgr else "") + (f" {self._pool}" if self._pool else "")
        self.key += f":{content_digest(feeding.encode())}"
        said = {
            "layout": (options.layout, self._layout),
            "size": (options.size, size),
            "mean": (options.mean or raw, ",".join(map(str, mean))),
            "std": (options.std or raw, ",".join(map(str, std))),
            "resize": (options.resize, self._resize),
            "output": (options.output, self._output),
            "pool": (options.pool or not self._pool, self._pool),
        }
        assumed = " ".join(f"--teacher-{name} {value}" for name, (given, value) in said.items() if not given)
        self.remarks = f"; assumed {assumed or 'nothing'}"
        if scores:
            self.remarks += (
                ". They sum to one, like scores of classes: what comes before them tells images apart "
                "better, see --teacher-output"
            )

    def prepare(self, photo: Photo) -> NDArray[np.uint8]:
        """Make `(height, width, 3)` uint8: the image squashed, the middle of it, or all of it with bars."""
        image, size = photo.image, (self._width, self._height)
        if self._resize == "letterbox":
            return np.asarray(pad(image, size, GREY))
        if self._resize == "squash":
            return np.asarray(image.resize(size, Image.Resampling.BICUBIC))
        return np.asarray(ImageOps.fit(image, size, Image.Resampling.BICUBIC))

    def embed(self, batch: Sequence[Any]) -> NDArray[np.float32]:
        """Map n `(height, width, 3)` uint8 arrays to `(n, dim)` float32 unit rows, as `unit_rows`."""
        step = self._count or len(batch)
        chunks = [np.stack(batch[start : start + step]) for start in range(0, len(batch), step)]
        return unit_rows(np.concatenate([self._answer(chunk) for chunk in chunks]), self.name)

    def _try_out(self) -> tuple[int, bool]:
        """Find out how many images a call may be about; return dimension, and if rows are class scores."""
        noise = np.random.default_rng(0).integers(0, 256, (2, self._height, self._width, 3), np.uint8)
        alone = np.concatenate([self._answer(noise[:1]), self._answer(noise[1:])])
        if alone.shape[1] < 2:
            raise UsageError(
                f"{self.name} answers with one number for an image, as the place of a class, and no vector. "
                "Export it without its last step, or give another --teacher-output."
            )
        try:
            together = self._answer(noise[: self._count])
        except UsageError:  # it says that it takes any number, and takes one
            together = alone[:0]
        if len(together) != min(self._count or 2, 2) or together.shape[1] != alone.shape[1]:
            self._count = 1
        elif (apart := _apart(alone[: len(together)], together)) > ALIKE:
            raise UsageError(
                f"{self.name} answers otherwise for two images together than for each alone. Export it for "
                "use (in PyTorch: model.eval()), so that an answer depends on its image only."
            )
        elif apart > SAME:
            self._count = 1
        scores = (alone >= 0).all() and np.allclose(alone.sum(axis=1), 1, atol=1e-3)
        return alone.shape[1], bool(scores)

    def _answer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map up to as many images as a call may be about to raw vectors, one a row."""
        count = len(images)
        if self._baked:  # what is baked in is filled up
            images = np.concatenate([images, np.repeat(images[-1:], self._baked - count, axis=0)])
        values: NDArray[Any] = images[..., self._order]
        if self._number is not np.uint8:
            values = values * self._scale + self._shift
        if self._layout == "nchw":
            values = values.transpose(0, 3, 1, 2)
        feed: dict[str, NDArray[Any]] = {self._fed: np.ascontiguousarray(values, self._number)}
        what = f"{self._layout} images of {self._height}x{self._width} pixels"
        rows = self._run(self._output, feed, what)
        return self._vectors(rows, len(images)).astype(np.float32)[:count]

    def _vectors(self, rows: NDArray[Any], count: int) -> NDArray[Any]:
        """Make one vector an image of an output: as it is, or pooled over tokens or over a map."""
        if self.options.pool == "cls" and rows.ndim != 3:
            raise UsageError(
                f"{self.name} answers with {_shape(rows.shape)}, which has no cls token. "
                "Leave --teacher-pool out."
            )
        if rows.ndim == 1 and count == 1:
            return rows[None]
        if rows.ndim > 2 and rows.size == rows.shape[0] * max(rows.shape[1:]):  # all other axes are 1
            return rows.reshape(len(rows), -1)
        if rows.ndim == 4:
            # The two axes that have the shape of the input are not the channels, whatever its layout.
            first, last = (h * self._width == w * self._height for h, w in (rows.shape[2:], rows.shape[1:3]))
            channels_last = last if first != last else self._layout == "nhwc"
            pixels = rows if channels_last else rows.transpose(0, 2, 3, 1)
            rows = pixels.reshape(len(pixels), -1, pixels.shape[-1])
            self._pool = "mean"
        elif rows.ndim == 3:
            self._pool = self.options.pool or "mean"
        if rows.ndim == 3:
            return rows[:, 0] if self._pool == "cls" else rows.mean(axis=1, dtype=np.float32)
        if rows.ndim != 2:
            what = "one vector for all" if rows.ndim == 1 else "no vector"
            raise UsageError(
                f"{self.name} has the output {self._output} {_shape(rows.shape)}: {what}, not one vector an "
                "image. Export it with its pooling, so that one vector an image comes out."
            )
        return rows


def _apart(alone: NDArray[np.float32], together: NDArray[np.float32]) -> float:
    """How far apart two answers to the same images are, at most, as unit vectors."""
    apart = scale_to_unit(alone) - scale_to_unit(together)
    return float(np.nan_to_num(np.linalg.norm(apart, axis=1)).max())


def _choose_sides(
    name: str, fixed: tuple[int | None, int | None], given: int | tuple[int, int] | None
) -> tuple[int, int]:
    """Height and width to feed: what the file has fixed, or else what the user says."""
    wanted = (given, given) if isinstance(given, int) else given or (None, None)
    sides = tuple(side or other for side, other in zip(fixed, wanted, strict=True))
    if given and sides != wanted:
        text = str(fixed[0]) if fixed[0] == fixed[1] else "x".join(map(str, fixed))
        raise UsageError(f"{name} takes images of {text} pixels, not {given}. Leave --teacher-size out.")
    height, width = sides[0] or sides[1], sides[1] or sides[0]
    if height is None or width is None:
        raise UsageError(f"{name} takes images of any size. Give --teacher-size in pixels.")
    return height, width


def _find_input(
    session: "ort.InferenceSession", options: EmbedderOptions
) -> tuple[str, type, str, int | None, tuple[int | None, int | None]]:
    """Find name, number, layout, and images a call, height and width where these are fixed."""
    inputs = session.get_inputs()
    listed = "; ".join(f"{put.name} {_shape(put.shape)} {put.type}" for put in inputs)
    if len(inputs) != 1:
        raise UsageError(f"This ONNX file has {len(inputs)} inputs ({listed}). Export the image part alone.")
    (only,) = inputs
    if only.type not in NUMBERS or len(only.shape) != 4:
        raise UsageError(f"This ONNX file takes {listed}, not images of four axes as float or uint8.")
    count, *axes = (axis if isinstance(axis, int) else None for axis in only.shape)
    layout = options.layout or ({0: "nchw", 2: "nhwc"}.get(axes.index(3)) if 3 in axes else None)
    if layout is None:
        raise UsageError(f"This ONNX file takes {listed}, in which no axis is colour. Give --teacher-layout.")
    height, width = axes[1:] if layout == "nchw" else axes[:2]
    return only.name, NUMBERS[only.type], layout, count, (height, width)


def find_output(
    session: "ort.InferenceSession",
    wanted: str | None,
    usual: Sequence[str] = (),
    option: str = "--teacher-output ",
) -> str:
    """Choose the output that is the vector: the one `wanted` by an option, or a `usual` one."""
    found = session.get_outputs()
    outputs = {put.name: put.shape for put in found if re.match(r"tensor\((?!string)", put.type)}
    if not outputs:
        listed = "; ".join(f"{put.name} {put.type}" for put in found)
        raise UsageError(f"This ONNX file answers with {listed}, no numbers. Export it without its end.")
    if wanted is not None:
        if wanted not in outputs:
            raise UsageError(f"{option}{wanted} is none of {', '.join(outputs)}.")
        return wanted
    if named := [name for name in usual if name in outputs]:
        return named[0]
    vectors = [name for name, shape in outputs.items() if len(shape) == 2]
    if len(vectors) > 1:
        raise UsageError(
            f"This ONNX file has several outputs. Give {option.strip(' =')}, one of {', '.join(vectors)}."
        )
    return vectors[0] if vectors else next(iter(outputs))


def _shape(shape: Sequence[Any]) -> str:
    return f"({', '.join(map(str, shape))})"

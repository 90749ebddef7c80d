"""Smaller files of a finished student: fp16 and int8, each let in only if it ranks like the original."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.transformers.float16 import convert_float_to_float16

from index.embedder import OnnxEmbedder
from index.errors import ImageError, RetrievalError, UsageError
from index.images import find_images, read_photo
from index.metrics import overlap_at_k, rank

CALIBRATION = 128  # images whose activations set the scales of int8
GATE, FEWEST = 500, 50  # images that the gate searches among, at most and at least
LEAST_OVERLAP = 0.9  # of the ten nearest: the rest are near-ties, whose order tells nothing
DEPTH = 10
ROUNDS = 15  # of timing


@dataclass(frozen=True)
class Variant:
    """A variant and what was measured of it, beside the original.

    Attributes:
        name: `fp16` or `int8`.
        megabytes: Size of the file.
        milliseconds: Per image, at a batch of 1 and of 32.
        original: The same of the original, timed in turns with it.
        overlap: Mean overlap@10 with the original.
        admitted: Whether the file was kept.
    """

    name: str
    megabytes: float
    milliseconds: tuple[float, float]
    original: tuple[float, float]
    overlap: float
    admitted: bool

    def __str__(self) -> str:
        one, many = self.milliseconds
        verdict = "kept" if self.admitted else f"not kept: below {100 * LEAST_OVERLAP:.0f} %"
        return (
            f"{self.name}: {self.megabytes:.2f} MB, {one:.1f} ms for one image, {many:.1f} in a batch of 32 "
            f"(original: {self.original[0]:.1f} and {self.original[1]:.1f}), "
            f"overlap@10 {100 * self.overlap:.1f} %, {verdict}."
        )


def make_variants(student: OnnxEmbedder, pixels: NDArray[np.uint8], names: Sequence[str]) -> list[Variant]:
    """Write the variants that pass the gate beside the student, as `student.<name>.onnx`.

    Args:
        student: The original, opened from its file.
        pixels: `(n, side, side, 3)` uint8 images, unlabelled. The first are calibrated on, the others are the
            queries and the gallery of the gate.
        names: `fp16`, `int8`.

    Raises:
        UsageError: No such variant.
        RetrievalError: Too few images.
    """
    check_variants(names)
    calibration, gate = pixels[:CALIBRATION], pixels[CALIBRATION : CALIBRATION + GATE]
    if names and len(gate) < FEWEST:
        raise RetrievalError(
            f"Variants need {CALIBRATION + FEWEST} images, {CALIBRATION} to calibrate on and {FEWEST} to be "
            f"judged by; here are {len(pixels)}."
        )
    return [_make(student, name, calibration, gate) for name in names]


def check_variants(names: Sequence[str]) -> None:
    """Raise UsageError unless each is the name of a variant."""
    for name in names:
        if name not in CONVERSIONS:
            raise UsageError(f"No variant {name!r}. There are {', '.join(CONVERSIONS)}.")


def make_variants_by_name(folder: Path, sources: Sequence[Path], names: Sequence[str]) -> list[Variant]:
    """`make_variants`, for the student of a folder and images of files.

    Args:
        folder: The student folder.
        sources: Folders and files of unlabelled images.
        names: `fp16`, `int8`.

    Raises:
        UsageError: The folder has no student, or no source has an image.
    """
    student = OnnxEmbedder(folder / "student.onnx", "cpu")
    files = find_images(sources)
    spread = np.linspace(0, len(files), CALIBRATION + GATE, endpoint=False).astype(int)
    chosen = np.random.default_rng(0).permutation(np.unique(spread))
    pixels = []
    for i in chosen:
        with suppress(ImageError):  # a few images less
            pixels.append(student.prepare(read_photo(files[i], student.side)))
    return make_variants(student, np.array(pixels), names)


def _make(
    student: OnnxEmbedder, name: str, calibration: NDArray[np.uint8], gate: NDArray[np.uint8]
) -> Variant:
    original = Path(student.spec)
    target = original.with_suffix(f".{name}.onnx")
    with TemporaryDirectory(dir=original.parent, prefix=".variant-") as scratch:
        written = Path(scratch, target.name)
        CONVERSIONS[name](original, written, calibration)
        found = OnnxEmbedder(written, "cpu")
        overlap = float(overlap_at_k(_nearest(found, gate), _nearest(student, gate)).mean())
        times = [_time_in_turns(student, found, gate[:n]) for n in (1, 32)]
        admitted = overlap >= LEAST_OVERLAP
        if admitted:
            model = onnx.load(written)
            facts = {**student.metadata, "retrieval.variant": name, "retrieval.overlap": f"{overlap:.4f}"}
            onnx.helper.set_model_props(model, facts)
            onnx.save(model, written)
            written.replace(target)
        else:
            target.unlink(missing_ok=True)  # an older one is of another student
    return Variant(
        name,
        len(found.data) / 1e6,
        (times[0][1], times[1][1]),
        (times[0][0], times[1][0]),
        overlap,
        admitted,
    )


def _to_fp16(source: Path, target: Path, calibration: NDArray[np.uint8]) -> None:
    """Half the size. No faster on a CPU, which computes in fp32."""
    onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=True), target)


def _to_int8(source: Path, target: Path, calibration: NDArray[np.uint8]) -> None:
    """Static quantisation of the convolutions; normalisation and the head stay in fp32.

    Weights have 7 bits: processors without VNNI add two products of 8 bits in 16, which overflow.
    """
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it warns about a step that these graphs do not need
    try:
        quantize_static(
            source,
            target,
            _Reader(calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Clip", "Add"],
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    finally:
        root.setLevel(level)
    model = onnx.load(target)
    onnx.helper.set_model_props(model, {p.key: p.value for p in onnx.load(source).metadata_props})
    onnx.save(model, target)


CONVERSIONS: dict[str, Callable[[Path, Path, NDArray[np.uint8]], None]] = {"fp16": _to_fp16, "int8": _to_int8}


class _Reader(CalibrationDataReader):
    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._batches: Iterator[NDArray[np.uint8]] = (images[i : i + 8] for i in range(0, len(images), 8))

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}


def _nearest(model: OnnxEmbedder, images: NDArray[np.uint8]) -> NDArray[np.int64]:
    vectors = np.concatenate([model.embed(list(images[i : i + 32])) for i in range(0, len(images), 32)])
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -np.inf)
    return rank(similarity, DEPTH)


def _time_in_turns(one: OnnxEmbedder, other: OnnxEmbedder, images: NDArray[np.uint8]) -> tuple[float, float]:
    """Median milliseconds per image of both, warm, each in turn so that a busy machine slows both."""
    batch = list(images)
    seconds: list[list[float]] = []
    for _ in range(ROUNDS + 2):
        marks = [perf_counter()]
        for model in (one, other):
            model.embed(batch)
            marks.append(perf_counter())
        seconds.append(np.diff(marks).tolist())
    first, second = 1000 * np.median(seconds[2:], axis=0) / len(batch)
    return float(first), float(second)

"""Make smaller files of a student, fp16 and int8, and keep those that rank like it."""

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from distill.model.export import save_model
from distill.options import check_variants
from distill.report.held_out import QUERY_PHOTOS
from distill.report.report import read_run, write_run
from index.embedders.base import embed_many
from index.embedders.onnx import OnnxEmbedder
from index.errors import ImageError, RetrievalError
from index.evaluation.metrics import overlap_at_k, rank, rank_others
from index.evaluation.verdict import estimate_mean
from index.images.decode import read_photo
from index.images.sources import Source, find_images
from index.progress import count, say
from index.timing import time_in_turns

CALIBRATION = 128  # images that set the scales of int8 by their activations
GATE, FEWEST = 500, 50  # images that the gate searches among, and with, at most and at least
LEAST_OVERLAP = 0.9  # docs/architecture.md has the figures that it lies between
DEPTH = 10
POOL_PHOTOS = "photos of the pool that did not calibrate it"
ROUNDS = 15  # of timing
CODES = "codes/"  # begins the names of what `distill.model.codes` appends
PRODUCTS = ("Conv", "Gemm", "MatMul")  # where the weights and the time are


@dataclass(frozen=True)
class Variant:
    """One file of a student, and what was measured of it."""

    name: str  # `fp32`, which is the original, `fp16` or `int8`
    megabytes: float  # size of the file
    # Per image, at a batch of 1 and of 32. Comparable within one call only.
    milliseconds: tuple[float, float]
    overlap: float  # mean overlap@10 with the original
    interval: tuple[float, float]  # its 95 % confidence interval
    queries: int  # how many photos that was measured with
    population: str  # what they are, for people
    admitted: bool  # whether the file was kept: the interval lies above `LEAST_OVERLAP`

    def __str__(self) -> str:
        one, many = self.milliseconds
        low, high = (100 * bound for bound in self.interval)
        verdict = "" if self.admitted else f". Not kept: less than {100 * LEAST_OVERLAP:.0f} % is possible"
        return (
            f"{self.name}: {self.megabytes:.2f} MB, {one:.1f} ms for one image, {many:.1f} ms for each "
            f"of 32, overlap@10 {100 * self.overlap:.1f} % (95 %: {low:.1f} to {high:.1f}) for "
            f"{self.queries} {self.population}{verdict}."
        )


def make_variants(
    student: OnnxEmbedder,
    pixels: NDArray[np.uint8],
    names: Sequence[str],
    queries: NDArray[np.uint8] | None = None,
) -> list[Variant]:
    """Write the variants that pass the gate beside the student, as `student.<name>.onnx`, and remove others.

    Of the `(n, side, side, 3)` uint8 images, unlabelled and in random order, the first are calibrated on; the
    others are the gallery of the gate. It searches with such queries, or with each image of the gallery, left
    out of what it finds. The original comes first of what is returned.

    Raises:
        UsageError: No such variant.
        RetrievalError: Too few images, or a network that cannot be converted.
    """
    check_variants(names)
    distinct = _distinct(pixels)
    queries = None if queries is None else _distinct(queries, distinct)[:GATE]
    check_enough(len(distinct), None if queries is None else len(queries))
    calibration, gate = distinct[:CALIBRATION], distinct[CALIBRATION : CALIBRATION + GATE]
    original = Path(student.spec)
    with TemporaryDirectory(dir=original.parent, prefix=".variants-") as scratch:
        say(f"Converting to {' and '.join(names)}, and comparing on {count(len(gate), 'image')}.")
        files = {name: _convert(student, name, Path(scratch), calibration) for name in names}
        models = {"fp32": student, **files}
        lists = {name: _nearest(model, gate, queries) for name, model in models.items()}
        times = zip(*(_time_per_image(models.values(), gate[:n]) for n in (1, 32)), strict=True)
        population = POOL_PHOTOS if queries is None else QUERY_PHOTOS
        made = []
        for (name, model), spent in zip(models.items(), times, strict=True):
            overlap, interval = estimate_mean(overlap_at_k(lists[name], lists["fp32"]))
            facts = overlap, interval, len(lists[name]), population, interval[0] >= LEAST_OVERLAP
            made.append(Variant(name, round(len(model.data) / 1e6, 2), spent, *facts))
        remove_variants(original)  # not before: where a conversion fails, the folder stays as its notes say
        for variant in made[1:]:
            if variant.admitted:
                written = Path(files[variant.name].spec)
                measured = {"retrieval.overlap": f"{variant.overlap:.4f}"}
                save_model(onnx.load(written), written, files[variant.name].metadata | measured)
                written.replace(original.with_suffix(f".{variant.name}.onnx"))
    return made


def make_variants_by_name(
    folder: Path, sources: Sequence[Source], names: Sequence[str], queries: Sequence[Source] = ()
) -> list[Variant]:
    """Make the variants of a student folder from images in files; note them in its run.json and model card.

    Raises:
        UsageError: No student folder, no such variant, or no source has an image.
        RetrievalError: As `make_variants`.
    """
    student = OnnxEmbedder(folder / "student.onnx", "cpu")
    run = check_request(folder, sources, names, queries)
    pixels = read_pixels(student, sources, CALIBRATION + GATE)
    made = make_variants(student, pixels, names, read_pixels(student, queries, GATE) if queries else None)
    write_run(folder, {**run, "variants": [asdict(variant) for variant in made]})
    return made


def check_request(
    folder: Path, sources: Sequence[Source], names: Sequence[str], queries: Sequence[Source] = ()
) -> dict[str, Any]:
    """Read the run of a student folder; raises as `make_variants_by_name` for what shows before any work."""
    check_variants(names)
    run = read_run(folder)
    check_enough(len(find_images(sources)), len(find_images(queries)) if queries else None)
    return run


def check_enough(images: int, queries: int | None = None) -> None:
    """Raise RetrievalError unless so many different images and queries suffice to calibrate and to judge."""
    if images < CALIBRATION + FEWEST:
        raise RetrievalError(
            f"Variants need {CALIBRATION + FEWEST} different images, {CALIBRATION} to calibrate on and "
            f"{FEWEST} to be judged by; here are {images}."
        )
    if queries is not None and queries < FEWEST:
        raise RetrievalError(f"{FEWEST} queries that are not in the pool are needed; here are {queries}.")


def remove_variants(original: Path) -> int:
    """Remove the variants beside a file and count them: they are of the student that was there before."""
    files = [original.with_suffix(f".{name}.onnx") for name in CONVERSIONS]
    there = [file for file in files if file.exists()]
    for file in there:
        file.unlink()
    return len(there)


def read_pixels(student: OnnxEmbedder, sources: Sequence[Source], most: int) -> NDArray[np.uint8]:
    """Read images in random order, as the student is shown them: `(n, side, side, 3)` uint8."""
    files = find_images(sources)
    pixels = []
    for i in np.random.default_rng(0).permutation(len(files))[:most]:
        with suppress(ImageError):  # a few images less
            pixels.append(student.prepare(read_photo(files[i], student.decode_side)))
    return np.array(pixels)


def _distinct(images: NDArray[np.uint8], but: Iterable[NDArray[np.uint8]] = ()) -> NDArray[np.uint8]:
    """Leave out copies, also of other images: none may judge itself."""
    known = {image.tobytes() for image in but}
    return np.array([image for name, image in {i.tobytes(): i for i in images}.items() if name not in known])


def _convert(student: OnnxEmbedder, name: str, scratch: Path, calibration: NDArray[np.uint8]) -> OnnxEmbedder:
    target = scratch / f"{name}.onnx"
    try:
        CONVERSIONS[name](Path(student.spec), target, calibration)
        facts = {**student.metadata, "retrieval.variant": name}
        if name == "int8":
            facts["retrieval.calibration"] = str(len(calibration))
        save_model(onnx.load(target), target, facts)
        return OnnxEmbedder(target, "cpu")
    except Exception as error:  # the tools raise anything for a network that they do not know
        raise RetrievalError(f"No {name} file of this student: {type(error).__name__}: {error}") from error


def _to_fp16(source: Path, target: Path, calibration: NDArray[np.uint8]) -> None:
    """Halve the size of the weights; opening the file casts them back, and all is computed in fp32."""
    model = onnx.load(source)
    large = [one for one in model.graph.initializer if one.data_type == TensorProto.FLOAT and one.dims]
    for place, weights in enumerate(large):
        half = f"{weights.name}.fp16"
        cast = helper.make_node("Cast", [half], [weights.name], to=TensorProto.FLOAT)
        model.graph.node.insert(place, cast)
        values = numpy_helper.to_array(weights).astype(np.float16)
        weights.CopyFrom(numpy_helper.from_array(values, half))
    onnx.save(model, target)


def _to_int8(source: Path, target: Path, calibration: NDArray[np.uint8]) -> None:
    """Quantise the trunk statically; the normalisation of the input and the head stay in fp32.

    Weights have 7 bits: processors without VNNI add two products of 8 bits in 16, which overflow.
    """
    model = onnx.load(source)
    nodes = list(model.graph.node)
    products = (place for place, node in enumerate(nodes) if node.op_type in PRODUCTS)
    head = max(place for place in products if not nodes[place].name.startswith(CODES))
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it warns about a step that these graphs do not need
    try:
        quantize_static(
            model,
            target,
            _Reader(calibration),
            # With the activation in between, or the scales would have to cover what it cuts off.
            op_types_to_quantize=[*PRODUCTS, "Clip", "Relu"],
            nodes_to_exclude=[node.name for node in nodes[head:]],
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    finally:
        root.setLevel(level)


CONVERSIONS: dict[str, Callable[[Path, Path, NDArray[np.uint8]], None]] = {"fp16": _to_fp16, "int8": _to_int8}


class _Reader(CalibrationDataReader):
    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._feeds = ({"images": images[i : i + 8]} for i in range(0, len(images), 8))

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        return next(self._feeds, None)


def _nearest(
    model: OnnxEmbedder, gallery: NDArray[np.uint8], queries: NDArray[np.uint8] | None
) -> NDArray[np.int64]:
    """Find the ten nearest of each query, or of each image of the gallery among the others."""
    vectors = embed_many(model, list(gallery))
    if queries is not None:
        return rank(embed_many(model, list(queries)) @ vectors.T, DEPTH)
    return rank_others(vectors @ vectors.T, DEPTH)


def _time_per_image(models: Iterable[OnnxEmbedder], batch: NDArray[np.uint8]) -> list[float]:
    works = [partial(model.embed, list(batch)) for model in models]
    return (time_in_turns(works, ROUNDS, warm_up=2) / len(batch)).round(2).tolist()

"""Give a student binary codes, fitted to its own vectors and appended to its ONNX file.

A photo's bits are those of its neighbourhood: iterative quantization (Gong and Lazebnik, CVPR 2011) of its
vector, drawn to the mean of its nearest. The map to them is a ridge regression from the photo's own vector,
with the self-distillation of Deep Hash Distillation (Jang et al., ECCV 2022) in closed form: what the map
makes of a view is held to what it makes of the photo. No label is read.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from distill.model.export import describe_file, save_model
from distill.model.quantize import CODES, read_pixels, remove_variants
from distill.options import check_bits
from distill.report.report import RUN, read_run, write_run
from distill.training.recipes import Recipe
from distill.training.views import random_view
from index.build.embed import embed_files
from index.duplicates import FEW_CODES
from index.embedders.base import embed_many
from index.embedders.onnx import BITS, LITTLE, ORDER, OnnxEmbedder
from index.embedders.teacher_space import Projection
from index.errors import RetrievalError, UsageError
from index.images.sources import Source, find_images
from index.io import atomic_write
from index.progress import count
from index.stores.faiss.vector_index import search_exact
from index.vectors import scale_to_unit

ROUNDS = 50
NEIGHBOURS = 5  # photos, itself among them, that a photo is drawn to the mean of
OWN = 0.3  # share of its own vector in what its bits are made of
AGREEMENT = 3.0  # weight of the squared difference between a view and its photo, beside that to the bits
VIEWED = 2000  # photos that a view is made of, at most
TOGETHER = 64  # of them, made at a time
RIDGE = 0.01  # share of the mean variance that is added to each dimension's
PHOTOS = 10_000  # that codes are fitted to, at most
OUTPUTS = ("embeddings", "projections", "codes")
PROBES = 32  # photos that must get the same vectors as before, to the last bit


def fit_codes(
    vectors: NDArray[np.float32],
    bits: int,
    views: NDArray[np.float32],
    own: float = OWN,
    agreement: float = AGREEMENT,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Fit codes to `(n, dim)` unit rows of photos, and to `(m, dim)` of a view of each of the first m.

    Returns:
        The `(dim,)` mean and the `(dim, bits)` map: the signs of `(vectors - mean) @ map` are the codes.

    Raises:
        UsageError: As `check_bits` and `choose_bits`.
    """
    check_bits(bits, vectors.shape[1], len(vectors))
    signs = choose_bits(vectors, bits, own)
    mean = vectors.mean(axis=0)
    centred = vectors - mean
    gram, moved = centred.T @ centred, views - vectors[: len(views)]
    gram += RIDGE * gram.trace() / len(gram) * np.eye(len(gram), dtype=np.float32)
    gram += agreement * len(vectors) / len(views) * moved.T @ moved
    return mean, np.linalg.solve(gram, centred.T @ signs).astype(np.float32)


def choose_bits(vectors: NDArray[np.float32], bits: int, own: float = OWN) -> NDArray[np.float32]:
    """Choose the bits of `(n, dim)` unit rows of photos, 1 or -1 each: `(n, bits)`.

    Raises:
        UsageError: The photos vary in fewer dimensions than bits.
    """
    nearest = search_exact(vectors, vectors, min(NEIGHBOURS, len(vectors)))[1]
    around = scale_to_unit(own * vectors + (1 - own) * vectors[nearest].mean(axis=1))
    space = Projection.fit(around, bits)
    if (spanned := int(np.count_nonzero(space.components.any(axis=1)))) < bits:
        raise UsageError(
            f"The student's vectors of these photos vary in {count(spanned, 'dimension')}, fewer than {bits} "
            "bits. Give fewer bits, photos that differ more, or a student taught on more photos."
        )
    flat = space.project(around)
    return np.sign(flat @ rotate_to_signs(flat))


def rotate_to_signs(flat: NDArray[np.float32]) -> NDArray[np.float32]:
    """Find the `(bits, bits)` rotation that brings `(n, bits)` rows as near to their signs as can be: ITQ."""
    bits = flat.shape[1]
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(bits, bits)))[0]
    for _ in range(ROUNDS):
        left, _, right = np.linalg.svd(flat.T @ np.sign(flat @ turn))
        turn = left @ right
    return turn


def embed_views(student: OnnxEmbedder, photos: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Embed a view, such as training shows, of each of `(m, side, side, 3)` photos to `(m, dim)` rows."""
    recipe, parts = Recipe(), torch.from_numpy(photos).split(TOGETHER)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        views = [random_view(part, student.side, recipe.shown, recipe.turn).numpy() for part in parts]
    return embed_many(student, list(np.concatenate(views)))


def append_codes(file: Path, vectors: NDArray[np.float32], bits: int, photos: NDArray[np.uint8]) -> None:
    """Fit codes to `(n, dim)` vectors and append them to a student's ONNX file, in place of any that it has.

    The first m vectors are those of `(m, side, side, 3)` uint8 photos, as the student is shown them.

    Raises:
        UsageError: As `fit_codes`.
        RetrievalError: Photos get other vectors than before; the file stays.
    """
    before, probes = OnnxEmbedder(file, "cpu"), list(photos[:PROBES])
    mean, axes = fit_codes(vectors, bits, embed_views(before, photos))
    model = onnx.load(file)
    for parts in (model.graph.node, model.graph.initializer):
        for part in [part for part in parts if part.name.startswith(CODES)]:
            parts.remove(part)
    del model.graph.output[1:]
    _add_nodes(model.graph, mean, axes)
    with atomic_write(file) as beside:
        save_model(model, beside, before.metadata | {BITS: str(bits), ORDER: LITTLE})
        after = OnnxEmbedder(beside, "cpu")
        if not np.array_equal(before.embed(probes), after.embed(probes)):
            raise RetrievalError(f"Codes would change the vectors of {file}; it stays as it was.")


def _add_nodes(graph: onnx.GraphProto, mean: NDArray[np.float32], axes: NDArray[np.float32]) -> None:
    """Append the products, their signs, and the sum of eight bits that is a byte."""
    size = axes.shape[1] // 8
    constants: dict[str, NDArray[Any]] = {
        "mean": mean,
        "axes": axes,
        "zero": np.array(0, np.float32),
        "eights": np.array([0, size, 8], np.int64),
        "weights": np.array([1 << bit for bit in range(8)], np.float32),
        "last": np.array([2], np.int64),
    }
    steps: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
        ("Sub", "embeddings mean", "centred", {}),
        ("MatMul", "centred axes", "projections", {}),
        ("Greater", "projections zero", "positive", {}),
        ("Cast", "positive", "bits", {"to": TensorProto.FLOAT}),
        ("Reshape", "bits eights", "bytes", {}),
        ("Mul", "bytes weights", "weighted", {}),
        ("ReduceSum", "weighted last", "sums", {"keepdims": 0}),
        ("Cast", "sums", "codes", {"to": TensorProto.UINT8}),
    )
    for name, value in constants.items():
        graph.initializer.append(numpy_helper.from_array(value, CODES + name))
    for kind, inputs, output, attributes in steps:
        names = [name if name in OUTPUTS else CODES + name for name in (*inputs.split(), output)]
        graph.node.append(helper.make_node(kind, names[:-1], names[-1:], CODES + output, **attributes))
    count = graph.output[0].type.tensor_type.shape.dim[0].dim_param
    made = ("projections", TensorProto.FLOAT, 8 * size), ("codes", TensorProto.UINT8, size)
    for name, element, length in made:
        graph.output.append(helper.make_tensor_value_info(name, element, [count, length]))


def append_codes_by_name(folder: Path, sources: Sequence[Source], bits: int) -> str:
    """`append_codes` to the student of a folder, fitted to photos, and say what was made."""
    file = folder / "student.onnx"
    student = OnnxEmbedder(file, "cpu")
    run = read_run(folder) if (folder / RUN).is_file() else None
    check_bits(bits, student.dim)
    files, photos = find_images(sources), read_pixels(student, sources, VIEWED)
    rest = [files[i] for i in np.random.default_rng(0).permutation(len(files))[VIEWED:PHOTOS]]
    check_bits(bits, student.dim, len(photos) and len(photos) + len(rest))
    found = [done.vectors["student"] for done in embed_files(rest, {"student": student}) if done.items]
    vectors = np.concatenate([embed_many(student, list(photos)), *found])
    append_codes(file, vectors, bits, photos)
    gone = remove_variants(file)
    if run:
        run["export"] |= describe_file(OnnxEmbedder(file, "cpu"))
        run["options"]["bits"] = bits
        run["variants"] = []
        write_run(folder, run)
    said = f"{file}: codes of {bits} bits, fitted to {len(vectors)} photos. Its vectors are the same."
    if len(vectors) < FEW_CODES:
        said += f" Of fewer than {FEW_CODES} photos many share a code: give more, or search vectors."
    return said + (" Its smaller copies have none and are gone: make them again." if gone else "")

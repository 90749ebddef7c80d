from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from distill.model import quantize as variants
from distill.model.backbone import create_backbone
from distill.model.export import export_onnx
from distill.model.quantize import make_variants, make_variants_by_name
from distill.model.student import Student
from index.embedders.base import embed_checked
from index.embedders.onnx import OnnxEmbedder
from index.errors import RetrievalError, UsageError


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("student")
    student = Student(create_backbone("test_efficientnet", "none"), 16)
    export_onnx(student, folder / "student.onnx", 32, 16, {"model": "tiny"}, 0.9)
    return folder


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """Two hundred images that differ enough for their order to mean something."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (200, 4, 4, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


@pytest.mark.slow
def test_variants_that_rank_like_the_student_are_kept(folder, pixels, monkeypatch, capfd, tmp_path):
    monkeypatch.setattr(variants, "LEAST_OVERLAP", 0.5)  # random weights have many near-ties
    monkeypatch.chdir(tmp_path)
    student = OnnxEmbedder(folder / "student.onnx")
    made = make_variants(student, pixels, ["fp16", "int8"])
    assert [variant.name for variant in made] == ["fp32", "fp16", "int8"]
    assert made[0].overlap == 1
    for variant in made[1:]:
        assert variant.admitted
        assert variant.megabytes < made[0].megabytes
        assert min(variant.milliseconds) > 0
        path = folder / f"student.{variant.name}.onnx"
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
        assert model.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        again = OnnxEmbedder(path)
        assert {k: again.metadata[k] for k in student.metadata} == student.metadata
        assert again.metadata["retrieval.variant"] == variant.name
        assert float(again.metadata["retrieval.overlap"]) == pytest.approx(variant.overlap, abs=1e-4)
        assert again.key != student.key
        for count in (1, 3):
            images = list(pixels[:count])
            rows = embed_checked(again, images, ["image"] * count)
            assert rows.dtype == np.float32
            np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
            assert (rows * student.embed(images)).sum(axis=1).min() > 0.9
    assert OnnxEmbedder(folder / "student.int8.onnx").metadata["retrieval.calibration"] == "128"
    # The tools leave nothing behind and say nothing beside our own line.
    assert not list(tmp_path.iterdir())
    assert not list(folder.glob(".*"))
    out, lines = capfd.readouterr()
    assert (out, lines.splitlines()) in [
        ("", []),  # where no command has asked for lines
        ("", ["Converting to fp16 and int8, and comparing on 72 images."]),
    ]


def test_int8_weights_have_eight_bits_but_for_the_head(folder, pixels, tmp_path):
    variants.CONVERSIONS["int8"](folder / "student.onnx", tmp_path / "int8.onnx", pixels[:8])
    graph = onnx.load(tmp_path / "int8.onnx").graph
    types = {weights.name: weights.data_type for weights in graph.initializer}
    sources = {name: node.input[0] for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type == "Conv":
            assert types[sources[node.input[1]]] == onnx.TensorProto.INT8
        if node.op_type == "Gemm":
            assert types[node.input[1]] == onnx.TensorProto.FLOAT


def test_a_variant_that_ranks_otherwise_is_not(folder, pixels, monkeypatch):
    def break_it(source: Path, target: Path, calibration: np.ndarray) -> None:
        model = onnx.load(source)
        for weights in model.graph.initializer:
            if len(weights.dims) == 4:
                noise = np.random.default_rng(1).normal(size=tuple(weights.dims)).astype(np.float32)
                weights.CopyFrom(onnx.numpy_helper.from_array(noise, weights.name))
        onnx.save(model, target)

    (folder / "student.fp16.onnx").write_text("of an older student")
    monkeypatch.setitem(variants.CONVERSIONS, "fp16", break_it)
    _, made = make_variants(OnnxEmbedder(folder / "student.onnx"), pixels, ["fp16"])
    assert not made.admitted
    assert made.overlap < 0.9
    low, high = (100 * bound for bound in made.interval)
    assert low < 100 * made.overlap < high
    assert str(made).endswith(
        f"overlap@10 {100 * made.overlap:.1f} % (95 %: {low:.1f} to {high:.1f}) for 72 photos of the "
        "pool that did not calibrate it. Not kept: less than 90 % is possible."
    )
    assert not (folder / "student.fp16.onnx").exists()
    assert not list(folder.glob(".variants-*"))


def test_what_is_calibrated_on_does_not_judge(folder, pixels, monkeypatch):
    seen = {}
    monkeypatch.setitem(
        variants.CONVERSIONS,
        "int8",
        lambda source, target, images: (
            seen.update(calibration=images),
            target.write_bytes(source.read_bytes()),
        ),
    )
    nearest = variants._nearest
    monkeypatch.setattr(
        variants,
        "_nearest",
        lambda m, images, queries: seen.update(gate=images) or nearest(m, images, queries),
    )
    make_variants(OnnxEmbedder(folder / "student.onnx"), pixels, ["int8"])
    one, other = ({image.tobytes() for image in seen[part]} for part in ("calibration", "gate"))
    assert len(one) == 128
    assert len(other) == 72
    assert not one & other


def test_queries_from_elsewhere_judge_by_themselves(folder, pixels, monkeypatch):
    def copy(source: Path, target: Path, calibration: np.ndarray) -> None:
        target.write_bytes(source.read_bytes())

    monkeypatch.setitem(variants.CONVERSIONS, "int8", copy)
    seen = {}
    nearest = variants._nearest
    monkeypatch.setattr(
        variants, "_nearest", lambda m, images, queries: seen.update(q=queries) or nearest(m, images, queries)
    )
    student, elsewhere = OnnxEmbedder(folder / "student.onnx"), 255 - pixels[:60]
    _, made = make_variants(student, pixels, ["int8"], np.concatenate([pixels[:30], elsewhere, elsewhere]))
    assert (made.queries, made.population) == (60, "query photos")  # neither copies nor photos of the pool
    assert {image.tobytes() for image in seen["q"]} == {image.tobytes() for image in elsewhere}
    assert made.overlap == 1
    with pytest.raises(RetrievalError, match="50 queries that are not in the pool are needed; here are 49"):
        make_variants(student, pixels, ["int8"], elsewhere[:49])


def test_a_mean_that_may_lie_below_what_is_needed_is_not_enough(folder, pixels, monkeypatch):
    """Nine of ten on average, by chance as likely above as below."""
    monkeypatch.setattr(
        variants, "overlap_at_k", lambda found, truth: 0.85 + 0.1 * (np.arange(len(found)) % 2)
    )
    made = make_variants(OnnxEmbedder(folder / "student.onnx"), pixels, ["fp16"])[1]
    assert made.overlap == pytest.approx(0.9)
    assert made.interval[0] < 0.9 < made.interval[1]
    assert not made.admitted
    assert not (folder / "student.fp16.onnx").exists()


def test_what_tools_complain_about_is_one_error_and_removes_nothing(folder, pixels, monkeypatch):
    def fail(source: Path, target: Path, calibration: np.ndarray) -> None:
        raise NotImplementedError("no such node")

    monkeypatch.setitem(variants.CONVERSIONS, "int8", fail)
    kept = folder / "student.fp16.onnx"
    kept.write_text("as run.json says")
    with pytest.raises(
        RetrievalError, match="No int8 file of this student: NotImplementedError: no such node"
    ):
        make_variants(OnnxEmbedder(folder / "student.onnx"), pixels, ["fp16", "int8"])
    assert kept.read_text() == "as run.json says"


def test_complaints(folder, pixels, tmp_path):
    student = OnnxEmbedder(folder / "student.onnx")
    with pytest.raises(RetrievalError, match=r"Variants need 178 different images, .* here are 100"):
        make_variants(student, pixels[:100], ["int8"])
    with pytest.raises(UsageError, match=r"No variant 'int3'\. There are fp16, int8"):
        make_variants(student, pixels, ["int3"])
    with pytest.raises(UsageError, match="does not exist"):
        make_variants_by_name(tmp_path, [tmp_path], ["int8"])
    with pytest.raises(UsageError, match=r"not a student folder: run\.json is missing"):
        make_variants_by_name(folder, [tmp_path], ["int8"])

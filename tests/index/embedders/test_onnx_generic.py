"""ONNX files that others made."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import picture
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from index.embedders.options import EmbedderOptions
from index.embedders.registry import open_embedder
from index.errors import UnansweredError, UsageError
from index.images.decode import Photo, read_photo, square
from index.images.file import ImageFile

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)


def write_foreign(
    path: Path,
    shape: tuple = ("n", 3, 16, 16),
    outputs: tuple[str, ...] = ("pooled",),
    kind: int = TensorProto.FLOAT,
) -> Path:
    """A model of float images that averages over the image: `pooled` (n, 3), `tokens` (n, pixels, 3)."""
    channels_last = shape[3] == 3
    axes = [1, 2] if channels_last else [2, 3]
    nodes = [
        helper.make_node("ReduceMean", ["pixels", "axes"], ["pooled"], keepdims=0),
        helper.make_node(
            "Transpose", ["pixels"], ["last"], perm=[0, 1, 2, 3] if channels_last else [0, 2, 3, 1]
        ),
        helper.make_node("Reshape", ["last", "flat"], ["tokens"]),
        helper.make_node("Neg", ["pooled"], ["opposite"]),
    ]
    shapes = {"pooled": ["n", 3], "opposite": ["n", 3], "tokens": ["n", "t", 3]}
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("pixels", kind, list(shape))],
        [helper.make_tensor_value_info(name, kind, shapes[name]) for name in outputs],
        [
            numpy_helper.from_array(np.array(axes, np.int64), "axes"),
            numpy_helper.from_array(np.array([0, -1, 3], np.int64), "flat"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


@pytest.fixture
def photo(tmp_path: Path) -> Photo:
    picture(4, 40, 24).save(tmp_path / "photo.png")
    return read_photo(ImageFile(tmp_path / "photo.png", "photo.png"))


def expected(pixels: NDArray, mean: tuple, std: tuple) -> NDArray:
    vector = ((pixels / 255.0 - mean) / std).mean(axis=(0, 1))
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("shape", [("n", 3, 16, 16), ("n", 16, 16, 3), (1, 3, 16, 16), ("n", 3, "h", "w")])
@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16])
def test_preprocessing_is_as_asked_for(tmp_path, photo, shape, kind):
    options = EmbedderOptions(mean=MEAN, std=STD, size=16)
    model = open_embedder(write_foreign(tmp_path / "f.onnx", shape, kind=kind), "cpu", options)
    rows = model.embed([model.prepare(photo)] * 2)
    assert (rows.shape, rows.dtype, model.dim, model.side) == ((2, 3), np.float32, 3, 16)
    wanted = expected(square(photo.image, 16), MEAN, STD)
    np.testing.assert_allclose(rows[0], wanted, atol=2e-3 if kind == TensorProto.FLOAT16 else 1e-5)


def test_crop_takes_the_middle_square(tmp_path, photo):
    options = EmbedderOptions(mean=MEAN, std=STD, resize="crop")
    model = open_embedder(write_foreign(tmp_path / "f.onnx"), "cpu", options)
    middle = square(photo.image.crop((8, 0, 32, 24)), 16)
    np.testing.assert_allclose(model.prepare(photo), middle, atol=1)


def test_what_is_assumed_is_said_and_part_of_its_identity(tmp_path, capsys):
    path = write_foreign(tmp_path / "f.onnx")
    assumed = open_embedder(path, "cpu")
    said = capsys.readouterr().err
    for part in ("--teacher-layout nchw", "--teacher-size 16", "--teacher-mean 0.485,0.456,0.406", "squash"):
        assert part in said
    options = EmbedderOptions(
        layout="nchw", size=16, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225),
        resize="squash", output="pooled",
    )  # fmt: skip
    said_all = open_embedder(path, "cpu", options)
    assert capsys.readouterr().err == ""
    assert said_all.key == assumed.key
    assert open_embedder(path, "cpu", EmbedderOptions(mean=MEAN)).key != assumed.key


def test_an_output_is_picked_by_name(tmp_path, photo):
    path = write_foreign(tmp_path / "f.onnx", outputs=("tokens", "pooled", "opposite"))
    with pytest.raises(UsageError, match="--teacher-output, one of pooled, opposite"):
        open_embedder(path, "cpu")
    one, other = (open_embedder(path, "cpu", EmbedderOptions(output=name)) for name in ("pooled", "opposite"))
    np.testing.assert_allclose(*(sign * m.embed([m.prepare(photo)]) for sign, m in ((1, one), (-1, other))))
    with pytest.raises(UsageError, match="nothing is none of tokens, pooled, opposite"):
        open_embedder(path, "cpu", EmbedderOptions(output="nothing"))


def test_a_sequence_is_refused_with_advice(tmp_path):
    alone = write_foreign(tmp_path / "a.onnx", outputs=("tokens",))
    with pytest.raises(UsageError, match=r"a sequence of vectors, not one vector an image. Export it with"):
        open_embedder(alone, "cpu")
    both = write_foreign(tmp_path / "b.onnx", outputs=("tokens", "pooled"))
    assert open_embedder(both, "cpu").dim == 3  # the only one that can be
    with pytest.raises(UsageError, match=r"a sequence of vectors.*Give --teacher-output pooled"):
        open_embedder(both, "cpu", EmbedderOptions(output="tokens"))


@pytest.mark.parametrize(
    ("shape", "options", "complaint"),
    [
        (("n", 3, "h", "w"), {}, "any size. Give --teacher-size"),
        (("n", 3, 16, 16), {"size": 32}, "takes images of 16 pixels, not 32"),
        (("n", "a", "b", "c"), {"size": 16}, "no axis is colour. Give --teacher-layout"),
        (("n", 3, 16, 24), {}, "not square"),
        ((4, 3, 16, 16), {}, "takes 4 images at once"),
    ],
)
def test_inputs_that_cannot_be_fed(tmp_path, shape, options, complaint):
    with pytest.raises(UsageError, match=complaint):
        open_embedder(write_foreign(tmp_path / "f.onnx", shape), "cpu", EmbedderOptions(**options))


def test_a_vector_of_zeros_names_its_image(tmp_path):
    options = EmbedderOptions(mean=(0, 0, 0), std=(1, 1, 1))
    model = open_embedder(write_foreign(tmp_path / "f.onnx"), "cpu", options)
    black, grey = np.zeros((16, 16, 3), np.uint8), np.full((16, 16, 3), 9, np.uint8)
    with pytest.raises(UnansweredError) as caught:
        model.embed([grey, black])
    assert list(caught.value.reasons) == [1]


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"layout": "chw"}, "--teacher-layout must be one of nchw, nhwc"),
        ({"size": 0}, "--teacher-size must be above 0"),
        ({"mean": (1, 2)}, "--teacher-mean takes three numbers"),
        ({"std": (1, 0, 1)}, "--teacher-std must be above 0"),
        ({"std": (1, float("nan"), 1)}, "--teacher-std takes finite numbers, not 1,nan,1"),
        ({"timeout": float("inf")}, "--teacher-timeout must be at most 86400, not inf"),
        ({"size": 10**6}, "--teacher-size must be at most 16384"),
        ({"rate": 1e-300}, "--teacher-rate must be at least 1e-05"),
        ({"timeout": float("nan")}, "--teacher-timeout must be above 0"),
    ],
)
def test_options_check_themselves(wrong, complaint):
    with pytest.raises(UsageError, match=complaint):
        EmbedderOptions(**wrong)

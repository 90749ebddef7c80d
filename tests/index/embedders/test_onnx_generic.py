"""ONNX files that others made."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import picture
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from index.build.pipeline import build
from index.embedders.onnx import OnnxEmbedder, find_external_data
from index.embedders.options import EmbedderOptions
from index.embedders.registry import open_embedder
from index.errors import UnansweredError, UsageError
from index.images.decode import Photo, pad, read_photo, square
from index.images.file import ImageFile
from index.stores.models import Models
from index.stores.writing.store import FolderStore

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
    said = assumed.remarks
    for part in ("--teacher-layout nchw", "--teacher-size 16", "--teacher-mean 0.485,0.456,0.406", "squash"):
        assert part in said
    options = EmbedderOptions(
        layout="nchw", size=16, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225),
        resize="squash", output="pooled",
    )  # fmt: skip
    said_all = open_embedder(path, "cpu", options)
    assert capsys.readouterr().err == ""  # it is for the end of a run
    assert said_all.remarks == "; assumed nothing"
    assert said_all.key == assumed.key
    assert open_embedder(path, "cpu", EmbedderOptions(mean=MEAN)).key != assumed.key


def test_the_summary_of_an_index_says_what_was_assumed(tmp_path, folder, student_file):
    foreign = open_embedder(write_foreign(tmp_path / "f.onnx"), "cpu")
    made = build([folder], Models(OnnxEmbedder(student_file, "cpu"), foreign), FolderStore(tmp_path / "idx"))
    first, last = made.summary.splitlines()
    assert first.endswith("12 images, 0 refused.")
    assert last.startswith(
        f"Teacher f.onnx: vectors of {foreign.dim} numbers; assumed --teacher-layout nchw "
    )


def test_an_output_is_picked_by_name(tmp_path, photo):
    path = write_foreign(tmp_path / "f.onnx", outputs=("tokens", "pooled", "opposite"))
    with pytest.raises(UsageError, match="--teacher-output, one of pooled, opposite"):
        open_embedder(path, "cpu")
    one, other = (open_embedder(path, "cpu", EmbedderOptions(output=name)) for name in ("pooled", "opposite"))
    np.testing.assert_allclose(*(sign * m.embed([m.prepare(photo)]) for sign, m in ((1, one), (-1, other))))
    with pytest.raises(UsageError, match="nothing is none of tokens, pooled, opposite"):
        open_embedder(path, "cpu", EmbedderOptions(output="nothing"))


def test_a_sequence_is_pooled_and_that_is_said(tmp_path, photo):
    alone = write_foreign(tmp_path / "a.onnx", outputs=("tokens",))
    mean = open_embedder(alone, "cpu")
    assert "--teacher-pool mean" in mean.remarks
    pooled = open_embedder(write_foreign(tmp_path / "p.onnx"), "cpu")
    np.testing.assert_allclose(*(m.embed([m.prepare(photo)]) for m in (mean, pooled)), atol=1e-5)
    first = open_embedder(alone, "cpu", EmbedderOptions(pool="cls", mean=(0, 0, 0), std=(1, 1, 1)))
    pixel = first.prepare(photo)[0, 0].astype(np.float32)
    np.testing.assert_allclose(
        first.embed([first.prepare(photo)])[0], pixel / np.linalg.norm(pixel), atol=1e-5
    )
    assert first.key != mean.key
    both = write_foreign(tmp_path / "b.onnx", outputs=("tokens", "pooled"))
    assert "--teacher-pool" not in open_embedder(both, "cpu").remarks  # the only one that is a vector already
    assert "--teacher-pool" in open_embedder(both, "cpu", EmbedderOptions(output="tokens")).remarks


@pytest.mark.parametrize(
    ("shape", "options", "complaint"),
    [
        (("n", 3, "h", "w"), {}, "any size. Give --teacher-size"),
        (("n", 3, 16, 16), {"size": 32}, "takes images of 16 pixels, not 32"),
        (("n", "a", "b", "c"), {"size": 16}, "no axis is colour. Give --teacher-layout"),
        (("n", 3, 16, 24), {"size": 16}, "takes images of 16x24 pixels, not 16"),
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
        (
            {"mean": (123.7, 116.3, 103.5)},
            "of colours between 0 and 1, not 123.7,116.3,103.5. Divide it by 255",
        ),
        ({"std": (58.4, 57.1, 57.4)}, "--teacher-std is of colours between 0 and 1"),
        ({"mean": "a,b,c"}, "--teacher-mean takes three numbers, as in 0.5,0.5,0.5, not 'a,b,c'"),
        ({"size": "224by"}, "--teacher-size takes pixels, as in 224 or 256x128, not '224by'"),
        ({"size": "1x2x3"}, "--teacher-size takes pixels"),
        ({"size": [float("inf"), 1]}, "--teacher-size takes pixels"),
        ({"model": "\udcff"}, r"--teacher-model takes text, not '\\udcff'"),
        ({"channels": "brg"}, "--teacher-channels must be one of rgb, bgr"),
        ({"pool": "max"}, "--teacher-pool must be one of cls, mean"),
    ],
)
def test_options_check_themselves(wrong, complaint):
    with pytest.raises(UsageError, match=complaint):
        EmbedderOptions(**wrong)


WEIGHTS = np.random.default_rng(0).normal(0, 0.2, (16, 3, 8, 8)).astype(np.float32)


def write_network(
    path: Path,
    shape: tuple = ("n", 3, 64, 64),
    output: tuple = ("n", 16),
    last: tuple[tuple, ...] = (("Flatten", ["pooled"], {}),),
    kind: int = TensorProto.FLOAT,
    constants: dict[str, NDArray] | None = None,
) -> Path:
    """A convolution `map`, its mean `pooled`, and what comes last."""
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["floats", "weights"], ["map"], strides=[8, 8]),
        helper.make_node("GlobalAveragePool", ["map"], ["pooled"]),
    ]
    for place, (operator, inputs, attributes) in enumerate(last, 1):
        name = "answer" if place == len(last) else f"step{place}"
        nodes.append(helper.make_node(operator, inputs, [name], **attributes))
    constants = {"weights": WEIGHTS, **(constants or {})}
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("pixels", kind, list(shape))],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, list(output))],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


ROW, ONE = {"row": np.array([1, -1])}, {"one": np.array([1])}


@pytest.mark.parametrize(
    "network",
    [
        {"output": ("n", 16, 1, 1), "last": [("Identity", ["pooled"], {})]},
        {"output": ("n", 16, 8, 8), "last": [("Identity", ["map"], {})]},
        {"output": ("n", 8, 8, 16), "last": [("Transpose", ["map"], {"perm": [0, 2, 3, 1]})]},
        {"output": (16,), "shape": (1, 3, 64, 64), "last": [("Squeeze", ["pooled"], {})]},
        {"output": ("n", "d"), "last": [("Reshape", ["pooled", "row"], {})], "constants": ROW},
        {"output": (4, 16), "shape": (4, 3, 64, 64)},
        {"output": ("n", 1, 16), "last": [
            ("Flatten", ["pooled"], {}), ("Unsqueeze", ["step1", "one"], {})], "constants": ONE},
    ],
    ids=["map of one", "map", "channels last", "one flat", "fixed reshape", "batch of four", "one token"],
)  # fmt: skip
def test_forms_of_one_answer(tmp_path, photo, network):
    """All give what the plain one does, of one image, of three and of five."""
    plain = open_embedder(write_network(tmp_path / "plain.onnx"), "cpu")
    model = open_embedder(write_network(tmp_path / "other.onnx", **network), "cpu")
    images = [np.roll(plain.prepare(photo), 9 * i, axis=1) for i in range(5)]
    images[3] = 255 - images[3]
    for count in (1, 3, 5):
        np.testing.assert_allclose(model.embed(images[:count]), plain.embed(images[:count]), atol=1e-5)


def test_images_that_are_not_square(tmp_path, photo):
    model = open_embedder(write_network(tmp_path / "people.onnx", ("n", 3, 128, 64)), "cpu")
    assert (model.prepare(photo).shape, model.side) == ((128, 64, 3), 128)
    assert "--teacher-size 128x64" in model.remarks
    free = write_network(tmp_path / "free.onnx", ("n", 3, "h", "w"))
    given = open_embedder(free, "cpu", EmbedderOptions(size="128x64"))
    np.testing.assert_array_equal(given.prepare(photo), model.prepare(photo))
    crop = open_embedder(free, "cpu", EmbedderOptions(size=(48, 24), resize="crop"))
    middle = photo.image.crop((14, 0, 26, 24)).resize((24, 48), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(crop.prepare(photo), np.asarray(middle), atol=5)


@pytest.mark.parametrize("size", [(3000, 1), (1, 3000)])
def test_a_thin_photo_is_shown_whole(size):
    assert np.asarray(pad(Image.new("RGB", size, "red"), (20, 30), "white")).shape == (30, 20, 3)


def test_a_letterbox_keeps_the_shape(tmp_path, photo):
    path = write_network(tmp_path / "l.onnx")
    boxed = open_embedder(path, "cpu", EmbedderOptions(resize="letterbox")).prepare(photo)
    assert (boxed[:12] == 114).all()
    assert (boxed[-12:] == 114).all()
    assert not (boxed[13:-13] == 114).all(axis=2).any()


def test_channels_of_opencv(tmp_path, photo):
    """BGR in is what RGB with turned weights would be; the mean stays that of red, green, blue."""
    path = write_foreign(tmp_path / "f.onnx")
    options = {"mean": MEAN, "std": STD}
    rgb = open_embedder(path, "cpu", EmbedderOptions(**options))
    bgr = open_embedder(path, "cpu", EmbedderOptions(channels="bgr", **options))
    rows = [model.embed([model.prepare(photo)])[0] for model in (rgb, bgr)]
    np.testing.assert_allclose(rows[0], rows[1][::-1], atol=1e-6)
    assert rgb.key != bgr.key


def test_bytes_go_in_as_they_are(tmp_path, photo):
    path = write_network(tmp_path / "bytes.onnx", kind=TensorProto.UINT8)
    model = open_embedder(path, "cpu")
    assert "mean" not in model.remarks
    scaled = open_embedder(
        write_network(tmp_path / "f.onnx"), "cpu", EmbedderOptions(mean=(0, 0, 0), std=(1, 1, 1))
    )
    np.testing.assert_allclose(*(m.embed([m.prepare(photo)]) for m in (model, scaled)), atol=1e-5)
    with pytest.raises(UsageError, match=r"takes bytes\. Leave --teacher-mean"):
        open_embedder(path, "cpu", EmbedderOptions(mean=MEAN))


def test_maps_of_people_have_their_channels_found(tmp_path):
    shape, last = ("n", 3, 256, 128), [("Transpose", ["map"], {"perm": [0, 2, 3, 1]})]
    plain = open_embedder(write_network(tmp_path / "plain.onnx", shape), "cpu")
    model = open_embedder(write_network(tmp_path / "map.onnx", shape, ("n", 32, 16, 16), last), "cpu")
    images = list(np.random.default_rng(0).integers(0, 256, (2, 256, 128, 3), np.uint8))
    np.testing.assert_allclose(model.embed(images), plain.embed(images), atol=1e-5)


def test_the_place_of_a_class_is_no_vector(tmp_path):
    last = [("Flatten", ["pooled"], {}), ("ArgMax", ["step1"], {"axis": 1}), ("Cast", ["step2"], {"to": 1})]
    write_network(tmp_path / "classes.onnx", output=("n", 1), last=last)
    with pytest.raises(UsageError, match=r"classes\.onnx answers with one number for an image"):
        open_embedder(tmp_path / "classes.onnx", "cpu")


def test_answers_that_depend_on_the_other_images_are_refused(tmp_path):
    last = [
        ("Flatten", ["pooled"], {}),
        ("ReduceMean", ["step1"], {"axes": [0], "keepdims": 1}),
        ("Sub", ["step1", "step2"], {}),
    ]
    with pytest.raises(UsageError, match=r"answers otherwise for two images together .* model\.eval"):
        open_embedder(write_network(tmp_path / "batch.onnx", last=last), "cpu")


def test_scores_of_classes_are_said_to_be_some(tmp_path):
    last = [("Flatten", ["pooled"], {}), ("Softmax", ["step1"], {"axis": 1})]
    scores = open_embedder(write_network(tmp_path / "scores.onnx", last=last), "cpu")
    assert "They sum to one, like scores of classes" in scores.remarks
    assert "scores" not in open_embedder(write_network(tmp_path / "plain.onnx"), "cpu").remarks


def test_weights_beside_the_file_belong_to_it(tmp_path, photo, monkeypatch):
    """They are found from any folder, and other ones make another model."""
    here = tmp_path / "model"
    here.mkdir()
    made = onnx.load(write_network(tmp_path / "m.onnx"))
    onnx.save(made, here / "m.onnx", save_as_external_data=True, location="m.onnx.data", size_threshold=0)
    monkeypatch.chdir(tmp_path)
    outside, inside = open_embedder(here / "m.onnx", "cpu"), open_embedder(tmp_path / "m.onnx", "cpu")
    np.testing.assert_allclose(*(m.embed([m.prepare(photo)]) for m in (outside, inside)), atol=1e-6)
    data = np.fromfile(here / "m.onnx.data", np.float32)
    (data * np.linspace(1, 2, data.size, dtype=np.float32)).tofile(here / "m.onnx.data")
    assert open_embedder(here / "m.onnx", "cpu").key != outside.key
    (here / "m.onnx.data").unlink()
    with pytest.raises(UsageError, match=r"keeps weights in m\.onnx\.data, which is not beside it"):
        open_embedder(here / "m.onnx", "cpu")


@pytest.mark.parametrize("name", ["weights", "w" * 200])
def test_names_of_files_of_weights_of_any_length(name):
    tensor = numpy_helper.from_array(np.ones(1, np.float32), "t")
    onnx.external_data_helper.set_external_data(tensor, name)
    assert find_external_data(tensor.SerializeToString()) == [name]


def test_weights_beside_links_into_a_cache_are_found(tmp_path):
    """As a hub's cache has files: links into a folder where they are named by their content."""
    (tmp_path / "blobs").mkdir()
    made = onnx.load(write_network(tmp_path / "m.onnx"))
    for i, tensor in enumerate(made.graph.initializer):
        onnx.external_data_helper.set_external_data(tensor, f"{i}.data")
    onnx.save(made, tmp_path / "blobs" / "m.onnx")
    (tmp_path / "snapshot").mkdir()
    for i, file in enumerate(sorted((tmp_path / "blobs").iterdir())):
        file.rename(tmp_path / "blobs" / f"{i}a")
        (tmp_path / "snapshot" / file.name).symlink_to(f"../blobs/{i}a")
    assert len(list((tmp_path / "blobs").iterdir())) > 1
    assert open_embedder(tmp_path / "snapshot" / "m.onnx", "cpu").dim


@pytest.mark.parametrize(
    ("version", "opset", "operator", "cause"),
    [(99, 18, "Relu", "IR version"), (9, 99, "Relu", "Opset 99"), (9, 18, "Rely", "Rely")],
)
def test_why_a_file_cannot_be_run_is_said(tmp_path, version, opset, operator, cause):
    put, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, 8, 8]) for name in "xy")
    graph = helper.make_graph([helper.make_node(operator, ["x"], ["y"])], "g", [put], [out])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=version)
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(UsageError, match=rf"is not an ONNX model that can be run: .*{cause}"):
        open_embedder(tmp_path / "m.onnx", "cpu")


@pytest.mark.parametrize("kind", [".feather", ".mat", ".gguf", ".keras", ".tar"])
def test_files_of_other_kinds_say_what_would_be_taken(tmp_path, kind):
    (tmp_path / f"m{kind}").write_bytes(b"x")
    with pytest.raises(UsageError, match="Give an ONNX file"):
        open_embedder(tmp_path / f"m{kind}", "cpu")


def test_only_tokens_have_one_of_their_class(tmp_path):
    with pytest.raises(UsageError, match=r"answers with \(1, 3\), which has no cls token"):
        open_embedder(write_foreign(tmp_path / "m.onnx"), "cpu", EmbedderOptions(pool="cls"))


def test_names_and_scores_of_classes_are_no_vectors(tmp_path):
    """As a classifier for the phone has them: the name of a class, and a mapping of names to scores."""
    path = write_foreign(tmp_path / "f.onnx")
    model = onnx.load(path)
    model.graph.node.append(helper.make_node("Cast", ["pooled"], ["label"], to=TensorProto.STRING))
    model.graph.node.append(helper.make_node("SequenceConstruct", ["pooled"], ["scores"]))
    label = helper.make_tensor_value_info("label", TensorProto.STRING, ["n", 3])
    scores = helper.make_tensor_sequence_value_info("scores", TensorProto.FLOAT, None)
    model.graph.output.extend([label, scores])
    onnx.save(model, path)
    assert open_embedder(path, "cpu").dim == 3
    del model.graph.output[0]
    onnx.save(model, path)
    with pytest.raises(UsageError, match=r"answers with label tensor\(string\); scores seq.*, no numbers"):
        open_embedder(path, "cpu")

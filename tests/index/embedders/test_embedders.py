from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import picture, write_embedder

from index.embedders.base import embed_checked
from index.embedders.onnx import OnnxEmbedder
from index.embedders.registry import open_embedder
from index.errors import RetrievalError, UsageError
from index.images.decode import MARGIN, read_photo, square
from index.images.file import ImageFile
from index.io import content_digest
from index.vectors import UNIT_FLOATS


def test_it_knows_itself_from_its_file(student_file: Path):
    model = OnnxEmbedder(student_file)
    assert (model.dim, model.side, model.name) == (8, 32, "student.onnx")
    assert model.key == OnnxEmbedder(student_file).key
    assert model.key != OnnxEmbedder(write_embedder(student_file.with_name("b.onnx"), seed=9)).key
    assert model.provider == "CPUExecutionProvider"
    assert open_embedder(model.spec).key == model.key


def test_embedding_gives_unit_rows_whatever_the_batch(student_file: Path, folder: Path):
    model = OnnxEmbedder(student_file, "cpu")
    inputs = [model.prepare(read_photo(ImageFile(path, path.name))) for path in sorted(folder.glob("*.png"))]
    together = model.embed(inputs)
    assert together.shape == (10, 8)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(np.concatenate([model.embed([one]) for one in inputs]), together, atol=1e-6)


@pytest.mark.parametrize("bits", [0, 16])
def test_a_gpu_without_room_is_one_line(tmp_path: Path, bits: int):
    class Full:
        def run(self, outputs, feed):
            raise RuntimeError("Failed to allocate memory\nfor requested buffer of size 4096")

    path = write_embedder(tmp_path / "student.onnx", bits="16", bit_order="little")
    model = OnnxEmbedder(path, "cpu", bits=bits)
    model.session = Full()
    line = r"^student\.onnx does not run on 2 images: Failed to allocate memory for requested buffer .*4096$"
    with pytest.raises(UsageError, match=line):
        model.embed([np.zeros((32, 32, 3), np.uint8)] * 2)


def test_codes_are_known_from_their_file_and_their_bits(tmp_path: Path):
    path = write_embedder(tmp_path / "student.onnx", bits="16", bit_order="little")
    assert OnnxEmbedder(path, "cpu", bits=16).key == f"onnx:{content_digest(path.read_bytes())}:16"


def test_the_crop_keeps_the_middle():
    image = picture(0, 100, 100)
    np.testing.assert_array_equal(square(image, 50, 0.5), square(image.crop((25, 25, 75, 75)), 50))


def test_a_student_says_how_its_images_are_reduced(tmp_path: Path):
    """One that was taught before students were says nothing, and is shown what it was taught from."""
    path = tmp_path / "x.jpg"
    picture(3, 800, 600).save(path)
    student = OnnxEmbedder(write_embedder(tmp_path / "new.onnx", crop="0.8", reduced="yes"), "cpu")
    photo = read_photo(ImageFile(path, "x.jpg"), student.decode_side)
    assert (student.decode_side, photo.image.size) == (40, (100, 75))
    np.testing.assert_array_equal(student.prepare(photo), square(photo.image, 32, 0.8, True))
    former = OnnxEmbedder(write_embedder(tmp_path / "old.onnx", crop="0.8"), "cpu")
    assert former.decode_side == MARGIN * 32
    np.testing.assert_array_equal(former.prepare(photo), square(photo.image, 32, 0.8))


def test_an_image_is_reduced_by_whole_blocks_before_it_is_squashed():
    image = picture(2, 97, 200)
    np.testing.assert_array_equal(square(image, 48, 1.0, True), square(image.reduce(2), 48))
    np.testing.assert_array_equal(square(image, 49, 1.0, True), square(image, 49))
    np.testing.assert_array_equal(square(image, 20, 0.9, True), square(image.reduce(4), 20, 0.9))


def test_what_is_no_embedder_is_refused_by_name(tmp_path: Path, student_file: Path):
    with pytest.raises(UsageError, match=r"none\.onnx does not exist"):
        open_embedder(tmp_path / "none.onnx")
    text = tmp_path / "text.onnx"
    text.write_text("not a model")
    with pytest.raises(UsageError, match=r"text\.onnx is not an ONNX model"):
        open_embedder(text)
    foreign = tmp_path / "foreign.onnx"
    model = onnx.load(student_file)
    del model.metadata_props[:]
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT32
    onnx.save(model, foreign)
    with pytest.raises(UsageError, match=r"takes images \(n, 32, 32, 3\) tensor\(int32\), not images of"):
        open_embedder(foreign)


@pytest.mark.parametrize(
    ("name", "value"), [("dim", None), ("dim", "0"), ("size", "large"), ("crop", "nan"), ("crop", "0")]
)
def test_a_student_whose_facts_are_damaged_is_one_line(tmp_path: Path, student_file: Path, name, value):
    model = onnx.load(student_file)
    facts = {fact.key: fact.value for fact in model.metadata_props} | {f"retrieval.{name}": value}
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {key: fact for key, fact in facts.items() if fact is not None})
    onnx.save(model, tmp_path / "damaged.onnx")
    with pytest.raises(UsageError, match=r"damaged\.onnx is damaged \(.+\)\. Distil or copy it again\.$"):
        open_embedder(tmp_path / "damaged.onnx")


class Broken:
    """A model that answers whatever it is told to."""

    key = name = spec = "broken"
    dim, side, provider, vector_type = 2, 32, "none", UNIT_FLOATS

    def __init__(self, answer: list[list[float]]):
        self.answer = np.array(answer, np.float32)

    def embed(self, batch: object) -> np.ndarray:
        return self.answer


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ([[1, 0], [np.nan, 0]], r"broken answered for b\.jpg with a vector of length nan"),
        ([[1, 0], [0, 0]], r"b\.jpg with a vector of length 0"),
        ([[3, 0], [0, 1]], r"a\.jpg with a vector of length 3"),
        ([[1, 0, 0], [0, 1, 0]], r"answered \(2, 3\) for 2 images"),
        ([[1, 0]], r"answered \(1, 2\) for 2 images"),
    ],
)
def test_wrong_answers_name_the_image(answer: list[list[float]], complaint: str):
    with pytest.raises(RetrievalError, match=complaint):
        embed_checked(Broken(answer), [np.zeros(1)] * 2, ["a.jpg", "b.jpg"])


@pytest.mark.parametrize(
    "spec", ["ftp://host/model", "file:///tmp/teacher.onnx", "htps://host/v1/embeddings"]
)
def test_addresses_of_other_kinds_are_named(spec):
    with pytest.raises(UsageError, match=f"{spec} cannot be asked. Give an http:// or https:// address"):
        open_embedder(spec)


@pytest.mark.parametrize("name", ["m.pt", "m.PKL", "m.safetensors", "v.npy", "v.csv"])
def test_files_of_other_kinds_are_told_what_would_be_taken(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(UsageError, match=r"not read. Give an ONNX file, model.py:function, or vectors as"):
        open_embedder(tmp_path / name)

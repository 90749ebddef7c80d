from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from index.embedders.onnx import OnnxEmbedder
from index.errors import RetrievalError
from index.evaluation.multiscale import MultiScale, at_scales
from index.images.decode import Photo, read_photo, with_pixels
from index.images.file import ImageFile


@pytest.fixture
def photo(folder: Path) -> Photo:
    return read_photo(ImageFile(folder / "0.png", "0.png"))


def test_several_scales_are_the_mean_of_their_vectors(student_file: Path, photo: Photo):
    model = OnnxEmbedder(student_file)
    several = MultiScale(model, [1.0, 0.5])
    half = photo.image.resize((photo.width // 2, photo.height // 2), Image.Resampling.BILINEAR)
    expected = model.embed([model.prepare(photo), model.prepare(with_pixels(photo, half))]).sum(axis=0)
    found = several.embed([several.prepare(photo), several.prepare(photo)])
    np.testing.assert_allclose(found, np.tile(expected / np.linalg.norm(expected), (2, 1)), atol=1e-6)


def test_one_scale_is_the_model_itself(student_file: Path):
    model = OnnxEmbedder(student_file)
    assert at_scales(model, [1.0]) is model
    assert at_scales(model, [0.5]) is not model


def test_enough_pixels_are_decoded_for_the_smallest_scale(student_file: Path):
    model = OnnxEmbedder(student_file)
    assert MultiScale(model, [2.0, 0.25]).side == 4 * model.side
    assert MultiScale(model, [2.0]).side == model.side


def test_a_bad_answer_at_any_scale_is_refused(student_file: Path, photo: Photo, monkeypatch):
    model = OnnxEmbedder(student_file)
    several = MultiScale(model, [1.0, 0.5])
    monkeypatch.setattr(model, "embed", lambda batch: np.eye(len(batch), model.dim, dtype=np.float32) * 3)
    with pytest.raises(RetrievalError, match="a vector of length 3, not 1"):
        several.embed([several.prepare(photo)])


def test_new_pixels_come_with_bytes_of_their_own(photo: Photo, tmp_path: Path):
    red = with_pixels(photo, Image.new("RGB", (3, 2), "red"))
    (tmp_path / "red.png").write_bytes(red.data)
    again = read_photo(ImageFile(tmp_path / "red.png", photo.name))
    assert again == Photo(red.name, red.data, red.digest, red.image, 3, 2)
    assert red.digest != photo.digest

"""HEIC, as phones write it, with a package that may be absent."""

import io
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import picture
from PIL import Image

from index.build.pipeline import build_index
from index.embedders.http import EndpointEmbedder
from index.embedders.onnx import OnnxEmbedder
from index.embedders.options import EmbedderOptions
from index.errors import ImageError
from index.images import left_out
from index.images.decode import decode
from index.images.sources import find_images

pillow_heif = pytest.importorskip("pillow_heif")


def heic(seed: int, orientation: int = 1) -> bytes:
    pillow_heif.register_heif_opener()
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    picture(seed, 96, 64).save(buffer, "HEIF", exif=exif, quality=95)
    return buffer.getvalue()


def difference(image: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(image, int) - np.asarray(other, int)).mean())


@pytest.mark.parametrize("orientation", [1, 6])
def test_it_is_decoded_as_its_container_says_it_is_turned_whatever_exif_says(orientation: int):
    photo = decode(heic(1, orientation), "a.heic", 32)
    wanted = picture(1, 96, 64)
    assert (photo.width, photo.height) == photo.image.size == wanted.size
    assert difference(photo.image, wanted) < 6


def test_it_is_taken_from_folders_and_indexed(folder: Path, tmp_path: Path, student_file: Path, caplog):
    caplog.set_level(logging.INFO, "retrieval")
    (folder / "IMG_1.HEIC").write_bytes(heic(30))
    (folder / "broken.heic").write_bytes(heic(31)[:300])
    index = build_index([folder], OnnxEmbedder(student_file), tmp_path / "idx")
    assert len(index) == 13
    assert [Path(failure.path).name for failure in index.failures] == ["broken.heic"]
    assert not any("left out" in line for line in caplog.messages)


def test_an_endpoint_is_sent_a_jpeg_of_it():
    teacher = EndpointEmbedder("http://127.0.0.1:9/v1", EmbedderOptions())
    made = teacher.prepare(decode(heic(2), "a.heic"))
    assert made.mime == "image/jpeg"
    assert difference(Image.open(io.BytesIO(made.data)), picture(2, 96, 64)) < 6


def test_without_the_package_it_is_counted_and_the_remedy_is_named(tmp_path: Path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "retrieval")
    (tmp_path / "a.heic").write_bytes(heic(3))
    picture(4).save(tmp_path / "b.png")
    monkeypatch.setattr(left_out, "reads_heic", lambda: False)
    monkeypatch.setattr("index.images.decode.FORMATS", ["JPEG", "PNG"])
    assert [file.name for file in find_images([tmp_path])] == ["b.png"]
    assert "1 .heic): convert them, or install pillow-heif" in caplog.text
    (file,) = find_images([tmp_path / "a.heic"])
    with pytest.raises(ImageError, match=r"not an image .*: HEIC, install pillow-heif or convert it"):
        decode(file.read()[0], file.name)


def test_the_package_is_not_loaded_before_the_first_of_them(tmp_path: Path):
    picture(1).save(tmp_path / "a.png")
    code = f"""
import sys
from index.images.decode import read_photo
from index.images.sources import find_images
for file in find_images([{str(tmp_path)!r}]):
    read_photo(file)
sys.exit("pillow_heif" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

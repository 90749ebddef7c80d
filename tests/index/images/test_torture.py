"""A folder of everything that can be wrong with an image file: nothing hangs, nothing is lost."""

import os
import socket
from io import BytesIO
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from conftest import picture, png_header
from hypothesis import strategies as st
from PIL import Image

from index.build.embed import embed_files
from index.build.pipeline import build_index
from index.embedders.onnx import OnnxEmbedder
from index.errors import ImageError
from index.images import decode as images
from index.images.decode import decode
from index.images.sources import find_images, image_at


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def scan_bomb(jpeg: bytes, scans: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again: minutes of work in a small file."""
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:last] + jpeg[last:-2] * scans + b"\xff\xd9"


def baseline_scans(times: int) -> bytes:
    """A JPEG that is not progressive, with empty scans of single components, again and again."""
    whole = encoded(picture(1, 200, 120), "JPEG")
    start = whole.index(b"\xff\xda")
    scan = b"".join(b"\xff\xda\x00\x08\x01" + bytes([i]) + b"\x00\x00\x3f\x00" for i in (1, 2, 3))
    return whole[:start] + scan * 2 * times + b"\xff\xd9"


def good_files() -> dict[bytes, bytes]:
    """Odd, but images."""
    photo = picture(1, 200, 120)
    deep = Image.fromarray(np.arange(4000, dtype=np.uint16).reshape(50, 80) * 16)
    wide = Image.fromarray(np.zeros((8, 8), np.float32))
    files = {
        b"cmyk.jpg": encoded(photo.convert("CMYK"), "JPEG"),
        b"cmyk.tif": encoded(photo.convert("CMYK"), "TIFF"),
        b"deep.png": encoded(deep, "PNG"),
        b"deep.tif": encoded(deep, "TIFF"),
        b"float.tif": encoded(wide, "TIFF"),
        b"palette.png": encoded(photo.quantize(16), "PNG", transparency=0),
        b"bilevel.png": encoded(photo.convert("1"), "PNG"),
        b"grey-alpha.png": encoded(photo.convert("LA"), "PNG"),
        b"animated.gif": encoded(photo, "GIF", save_all=True, append_images=[picture(2, 200, 120)]),
        b"animated.webp": encoded(photo, "WEBP", save_all=True, append_images=[picture(2, 200, 120)]),
        b"animated.png": encoded(photo, "PNG", save_all=True, append_images=[picture(2, 200, 120)]),
        b"progressive.jpg": encoded(photo, "JPEG", progressive=True),
        b"wrong-extension.jpg": encoded(photo, "PNG"),
        b"wrong-extension.png": encoded(photo, "JPEG"),
        b"dot.png": encoded(picture(3, 1, 1), "PNG"),
        b"dot.jpg": encoded(picture(3, 1, 1), "JPEG"),
        b"line.png": encoded(picture(4, 1, 20_000), "PNG"),
        b"line.jpg": encoded(picture(4, 20_000, 1), "JPEG"),
        b"broken-exif.jpg": encoded(photo, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + bytes(20)),
        b"broken-profile.jpg": encoded(photo, "JPEG", icc_profile=b"no profile"),
        b"two words .png": encoded(picture(5), "PNG"),
        b"line\nbreak.png": encoded(picture(6), "PNG"),
        "\N{CAMERA}.png".encode(): encoded(picture(7), "PNG"),
        b"latin-\xe9\xff.png": encoded(picture(8), "PNG"),
    }
    for kind in {"AVIF", "JPEG2000", "PPM", "BMP"} & set(images.FORMATS):
        files[b"%s.jpg" % kind.lower().encode()] = encoded(photo, kind)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        files[b"orientation-%d.jpg" % orientation] = encoded(photo, "JPEG", exif=exif)
    return files


def bad_files() -> dict[bytes, tuple[bytes, str]]:
    """What is no image that can be read, with the reason that must be given."""
    photo = picture(1, 200, 120)
    files = {
        b"empty.jpg": (b"", "empty file"),
        b"text.jpg": (b"I am no photo. " * 50, "not an image"),
        b"random.jpg": (np.random.default_rng(0).bytes(5000), "not an image"),
        b"random-head.jpg": (b"\xff\xd8\xff\xe0" + np.random.default_rng(0).bytes(5000), "image"),
        b"bomb.png": (png_header(60_000, 60_000), "too large"),
        b"large.png": (png_header(10_000, 10_000), "too large: 100 megapixels"),
        b"scans.jpg": (scan_bomb(encoded(photo, "JPEG", progressive=True), 600), "more than 500 scans"),
        b"baseline-scans.jpg": (baseline_scans(100), "more than 500 scans"),
        b"postscript.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    }
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF"):
        whole = encoded(photo, kind)
        for tenth in range(1, 10):
            cut = whole[: len(whole) * tenth // 10]
            files[b"%s-cut-%d.%s" % (kind.lower().encode(), tenth, kind.lower().encode())] = (cut, "image")
    return files


@pytest.fixture
def torture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder; a run over it that does not end in time would fail by the time limit of the whole."""
    root = tmp_path / "torture"
    root.mkdir()
    for name, data in [*good_files().items(), *((name, data) for name, (data, _) in bad_files().items())]:
        Path(os.fsdecode(os.fsencode(root) + b"/" + name)).write_bytes(data)
    (root / "loop").symlink_to(root)
    (root / "self.jpg").symlink_to("self.jpg")
    (root / "gone.jpg").symlink_to("nowhere")
    (root / "zero.jpg").symlink_to("/dev/zero")
    (root / "disk-error.jpg").symlink_to("/proc/self/mem")
    (root / "folder.jpg").mkdir()
    os.mkfifo(root / "pipe.jpg")
    monkeypatch.chdir(root)  # the name of a socket must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.jpg")
    return root


SPECIAL = {"self.jpg", "gone.jpg", "zero.jpg", "disk-error.jpg", "pipe.jpg", "socket.jpg"}


def test_everything_is_indexed_or_refused_with_its_reason(torture: Path, tmp_path: Path, student_file: Path):
    good, bad = good_files(), bad_files()
    index = build_index([torture], OnnxEmbedder(student_file), tmp_path / "idx")
    indexed = {os.fsencode(image_at(item.path, item.name).path.name): item for item in index.items}
    refused = {os.fsencode(image_at(one.path, "").path.name): one.reason for one in index.failures}
    assert indexed.keys() == good.keys()
    assert refused.keys() == bad.keys() | {os.fsencode(name) for name in SPECIAL}
    for name, (_, reason) in bad.items():
        assert reason in refused[name], name
    for name, item in indexed.items():
        assert item.size == len(good[name]), name
        assert image_at(item.path, item.name).read()[0] == good[name]


def test_sizes_are_those_of_the_upright_image():
    for name, data in good_files().items():
        photo = decode(data, "x", side=8)
        with Image.open(BytesIO(data)) as image:
            size = image.size
        assert photo.image.mode == "RGB"
        assert photo.width * photo.height == size[0] * size[1]
        if name.startswith(b"orientation-"):
            assert (photo.width, photo.height) == (size if name[12:13] in b"1234" else size[::-1])


def test_adobe_cmyk_and_the_plain_one_look_alike():
    ink = Image.merge("CMYK", [Image.new("L", (16, 16), level) for level in (0, 255, 255, 0)])
    plain = encoded(ink, "TIFF")
    adobe = encoded(ink, "JPEG", quality=100)  # Pillow writes it as Adobe does, inverted and marked so
    assert b"Adobe" in adobe
    for data in (plain, adobe):
        red, green, blue = decode(data, "x").image.getpixel((8, 8))
        assert red > 250 and green < 5 and blue < 5


def test_an_image_deleted_or_replaced_between_listing_and_reading_is_refused(
    folder: Path, student_file: Path
):
    files = find_images([folder])
    (folder / "3.png").unlink()
    (folder / "4.png").unlink()
    os.mkfifo(folder / "4.png")
    parts = list(embed_files(files, {"student": OnnxEmbedder(student_file)}))
    assert sum(len(part.items) for part in parts) == 10
    assert [(Path(one.path).name, one.reason) for part in parts for one in part.failures] == [
        ("3.png", "No such file or directory"),
        ("4.png", "a pipe, not a file"),
    ]


def test_an_image_that_becomes_a_pipe_while_it_is_opened_is_not_waited_for(tmp_path: Path, monkeypatch):
    path = tmp_path / "x.png"
    path.write_bytes(png_header(1, 1))
    (file,) = find_images([path])
    plain = path.stat()
    path.unlink()
    os.mkfifo(path)
    monkeypatch.setattr(Path, "stat", lambda self: plain)
    with pytest.raises(ImageError, match="empty file"):
        images.read_photo(file)


def test_files_beyond_the_limit_are_refused_unread(tmp_path: Path):
    with (tmp_path / "x.jpg").open("wb") as file:
        file.truncate(1 << 40)  # takes no space
    (listed,) = find_images([tmp_path])
    with pytest.raises(ImageError, match="too large: 1048576 MiB"):
        listed.read()


@hypothesis.settings(max_examples=150)
@hypothesis.given(st.data())
def test_whatever_bytes_a_file_has_it_is_an_image_or_refused(data):
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM"]))
    broken = bytearray(encoded(picture(1, 60, 40), kind))
    for at, noise in data.draw(
        st.lists(st.tuples(st.integers(0, 1 << 14), st.binary(max_size=8)), max_size=4)
    ):
        start = at % len(broken)
        broken[start : start + len(noise)] = noise
    try:
        photo = decode(bytes(broken), "x", side=8)
    except ImageError as reason:
        assert "\n" not in str(reason)
    else:
        assert photo.image.mode == "RGB"

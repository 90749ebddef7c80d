import time
from pathlib import Path

import numpy as np
import pytest
from conftest import picture, png_header
from PIL import Image

from index.errors import ImageError, UsageError
from index.images.decode import MARGIN, MAX_PIXELS, decode, read_photo, square
from index.images.file import ImageFile
from index.images.sources import find_images
from index.io import content_digest


def names(sources: list[Path]) -> list[str]:
    return [file.name for file in find_images(sources)]


def test_a_photo_that_ends_in_filling_is_refused_at_once(folder: Path):
    whole = (folder / "more" / "10.jpg").read_bytes()
    start = time.perf_counter()
    with pytest.raises(ImageError):
        decode(whole[: len(whole) // 2] + b"\xff" * 2_000_000, "x")
    assert time.perf_counter() - start < 5


def test_folders_are_walked_in_a_stable_order(folder: Path):
    (folder / "notes.txt").write_text("not an image")
    assert names([folder]) == [*(f"{i}.png" for i in range(10)), "more/10.jpg", "more/11.jpg"]


def test_files_and_links_to_files_are_taken_and_no_path_twice(folder: Path, tmp_path: Path):
    link = tmp_path / "link.png"
    link.symlink_to(folder / "3.png")
    (folder / "inside.png").symlink_to(folder / "4.png")
    found = names([link, folder, folder / "1.png"])
    assert found[0] == "link.png"
    assert "inside.png" in found
    assert found.count("1.png") == 1


def test_a_loop_of_links_ends(folder: Path):
    (folder / "more" / "back").symlink_to(folder)
    assert len(names([folder])) == 12


def test_a_missing_folder_and_an_empty_one_are_usage_errors(tmp_path: Path):
    with pytest.raises(UsageError, match="does not exist"):
        find_images([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="No image in"):
        find_images([tmp_path / "empty"])


def test_digest_and_size_belong_to_the_whole_file(folder: Path):
    path = folder / "0.png"
    photo = read_photo(ImageFile(path, "0.png"))
    assert photo.digest == content_digest(path.read_bytes())
    assert (photo.width, photo.height) == (48, 40)
    assert photo.image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(photo.image), np.asarray(picture(0)))


def saved(image: Image.Image, path: Path, **options: object) -> bytes:
    image.save(path, **options)
    return path.read_bytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_out_upright(tmp_path: Path, orientation: int):
    upright = picture(1, 64, 32)
    # The transpositions that undo each orientation, by the EXIF standard's own table.
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = decode(saved(stored, tmp_path / "x.png", exif=exif), "x")
    assert (photo.width, photo.height) == (64, 32)
    np.testing.assert_array_equal(np.asarray(photo.image), np.asarray(upright))


def test_transparency_is_laid_over_white(tmp_path: Path):
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putpixel((1, 1), 1)
    photo = decode(saved(palette, tmp_path / "x.png", transparency=0), "x")
    assert photo.image.getpixel((0, 0)) == (255, 255, 255)
    assert photo.image.getpixel((1, 1)) == (200, 100, 50)


def test_sixteen_bits_become_eight_without_clipping(tmp_path: Path):
    deep = Image.fromarray(np.array([[0, 257, 32896, 65535]], np.uint16))
    photo = decode(saved(deep, tmp_path / "x.png"), "x")
    assert np.asarray(photo.image)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_cmyk_becomes_rgb(tmp_path: Path):
    photo = decode(saved(picture(2).convert("CMYK"), tmp_path / "x.jpg", quality=98), "x")
    assert photo.image.mode == "RGB"
    assert np.abs(np.asarray(photo.image, int) - np.asarray(picture(2), int)).mean() < 4


def test_an_animation_is_its_first_frame(tmp_path: Path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = saved(frames[0], tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert decode(data, "x").image.getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"hello, I am no photo" * 20, "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    ],
)
def test_what_is_no_image_is_said_so(data: bytes, reason: str):
    with pytest.raises(ImageError, match=reason):
        decode(data, "x")


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"\0\0\0\x18ftypheic" + bytes(200), "HEIC"),
        (b"\0\0\0\x18ftypmif1" + bytes(200), "HEIC"),
        (b"\xff\x0a" + bytes(200), "JPEG XL"),
        (b"\0\0\0\x18ftypcrx " + bytes(200), "raw data"),
        (b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg>', "SVG"),
        (b"\n<!doctype html><title>Not found", "a web page"),
        (b"\x1f\x8b\x08" + bytes(200), "gzip"),
        (b"PK\3\4" + bytes(200), "a zip archive"),
        (b"7z\xbc\xaf" + bytes(200), "a 7z or rar archive"),
        (b"BZh9" + bytes(200), "compressed by bzip2, xz or zstd"),
        (b"\x28\xb5\x2f\xfd" + bytes(200), "compressed by bzip2, xz or zstd"),
        (b"%PDF-1.7" + bytes(200), "a PDF"),
        (b"\0\0\0\x18ftypmp42" + bytes(200), "a video"),
        (b"\0\0\0\x18ftypavif" + bytes(200), "an AVIF that is broken"),
        (bytes(200), "zeros, as a copy that was broken off leaves"),
        (b'{"error": "no such photo"}', "text, as a server answers"),
        (b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>", "text, as a server answers"),
        (b"photos/1.jpg\nphotos/2.jpg\n", r"a list of photos ends in \.txt"),
        (b"8BPS" + bytes(200), "Photoshop"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ],
)
def test_what_is_found_instead_is_named(data: bytes, found: str):
    with pytest.raises(ImageError, match=f"not an image that can be read: .*{found}"):
        decode(data, "x")


def test_truncated_jpegs_are_refused_wherever_they_end(tmp_path: Path):
    whole = saved(picture(3, 200, 200), tmp_path / "x.jpg", quality=95)
    for tenth in range(1, 10):
        with pytest.raises(ImageError, match=r"broken image|not an image"):
            decode(whole[: len(whole) * tenth // 10], "x")


@pytest.mark.parametrize("height", [10_000, 20_000, 60_000])
def test_huge_images_are_refused_before_their_pixels_are_made(height: int):
    assert 10_000 * height > MAX_PIXELS
    with pytest.raises(ImageError, match="too large"):
        decode(png_header(10_000, height), "x")


def test_a_jpeg_is_decoded_smaller_but_never_below_its_side(tmp_path: Path):
    data = saved(picture(4, 1600, 1200), tmp_path / "x.jpg")
    photo = decode(data, "x", side=MARGIN * 128)
    assert (photo.width, photo.height) == (1600, 1200)
    assert MARGIN * 128 <= min(photo.image.size) < 1200
    assert np.abs(square(photo.image, 128).astype(int) - square(decode(data, "x").image, 128)).mean() < 2


def test_a_file_that_is_gone_is_an_image_error(tmp_path: Path):
    with pytest.raises(ImageError, match="No such file"):
        read_photo(ImageFile(tmp_path / "gone.jpg", "gone.jpg"))

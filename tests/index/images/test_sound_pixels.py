"""Pixels that are sound are read whatever lies beside them; numbers that cannot be told are refused."""

import numpy as np
import pytest
from conftest import picture
from numpy.typing import NDArray
from odd_images import COLOUR, DEEP, GREY, LONG, chunk, encoded, tiff
from PIL import Image

from index.errors import ImageError
from index.images import decode as images
from index.images.decode import decode

JPEGS = [
    {},
    {"progressive": True, "quality": 95},
    {"restart_marker_rows": 1},
    {"restart_marker_blocks": 3},
    {"subsampling": 0},
]


def pixels(data: bytes, side: int | None = None) -> NDArray[np.int64]:
    return np.asarray(decode(data, "x", side).image, int)


@pytest.mark.parametrize("options", JPEGS)
def test_a_jpeg_without_its_end_mark_is_read_and_one_cut_earlier_is_not(options: dict[str, object]):
    whole = encoded("JPEG", **options)
    for behind in (b"", b"\xff", bytes(100)):
        np.testing.assert_array_equal(pixels(whole[:-2] + behind), pixels(whole))
    for cut in [*range(3, len(whole), 61), *range(len(whole) - 30, len(whole) - 5)]:
        for side in (None, 32):
            with pytest.raises(ImageError):
                decode(whole[:cut], "x", side)


def test_a_progressive_jpeg_cut_between_its_scans_is_refused():
    whole = encoded("JPEG", progressive=True)
    with pytest.raises(ImageError, match="truncated"):
        decode(whole[: whole.rindex(b"\xff\xda")], "x")


def test_what_lies_behind_the_end_of_a_progressive_jpeg_is_none_of_its_scans():
    whole = encoded("JPEG", progressive=True)
    np.testing.assert_array_equal(pixels(whole + b"\xff\xda" * 1000), pixels(whole))


def test_scans_are_counted_behind_stray_bytes():
    whole = encoded("JPEG", progressive=True)
    last = whole.rindex(b"\xff\xda")
    hidden = whole[:last] + b"\x00\xff\x00\xff\xd3\x07" + whole[last:-2] * 600 + b"\xff\xd9"
    with pytest.raises(ImageError, match="more than 500 scans"):
        decode(hidden, "x")


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"zTXt", b"Comment\0\0" + LONG),
        chunk(b"iTXt", b"Comment\0\1\0\0\0" + LONG),
        chunk(b"tEXt", b"Comment\0" + b"x" * 70_000_000),
        chunk(b"iCCP", b"profile\0\0" + LONG),
        chunk(b"tEXt", b"Comment\0x")[:-1] + b"!",  # another checksum
    ],
    ids=["zTXt", "iTXt", "tEXt", "iCCP", "checksum"],
)
def test_a_png_is_read_whatever_comment_or_profile_it_has(extra: bytes):
    whole = encoded("PNG", exif=orientation(6))
    for at in (whole.index(b"IDAT") - 4, len(whole) - 12):
        np.testing.assert_array_equal(pixels(whole[:at] + extra + whole[at:]), pixels(whole))


def orientation(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


def test_a_png_with_broken_pixels_stays_broken():
    whole = encoded("PNG")
    at = whole.index(b"IDAT") + 50
    with pytest.raises(ImageError, match="broken"):
        decode(whole[:at] + b"????" + whole[at + 4 :], "x")


def test_a_large_jpeg_is_read_if_it_is_decoded_small_row_by_row(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 20_000)
    image = picture(2, 320, 160)
    photo = decode(encoded("JPEG", image), "x", side=40)
    assert (photo.width, photo.height) == (320, 160)
    assert photo.image.size == (80, 40)
    assert decode(encoded("JPEG", image), "x", side=160).image.size == (160, 80)  # by half, if need be
    for data, side in (
        (encoded("JPEG", image), None),  # decoded whole
        (encoded("JPEG", image, progressive=True), 40),  # all of it is kept in memory meanwhile
        (encoded("PNG", image), 40),
    ):
        with pytest.raises(ImageError, match="too large"):
            decode(data, "x", side)
    monkeypatch.setattr(images, "MAX_STREAMED", 50_000)
    with pytest.raises(ImageError, match="too large"):
        decode(encoded("JPEG", image), "x", side=40)


@pytest.mark.parametrize(
    "data",
    [
        tiff(DEEP, 1),
        tiff(65535 - DEEP, 1, photometric=0),
        tiff(255 - GREY, 1, photometric=0),
        tiff(GREY.astype(np.float32) / 255, 3),
        tiff(1 - GREY.astype(np.float32) / 255, 3, photometric=0),
        tiff(GREY.astype(np.uint32) * 0x1010101, 1),
        b"Pf\n200 120\n-1.0\n" + (GREY[::-1].astype("<f4") / 255).tobytes(),
        b"P5\n200 120\n65535\n" + DEEP.astype(">u2").tobytes(),
    ],
    ids="uint16 inverted16 inverted8 float inverted-float uint32 pfm pgm16".split(),
)
def test_grey_of_many_bits_looks_like_what_it_shows(data: bytes):
    for band in np.moveaxis(pixels(data), 2, 0):
        assert np.abs(band - GREY).max() <= 1


def test_colour_of_sixteen_bits_looks_like_what_it_shows():
    np.testing.assert_array_equal(pixels(tiff(COLOUR, 1, photometric=2)), COLOUR // 257)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (tiff((DEEP.astype(int) - 32768).astype(np.int16), 2), "signed"),
        (tiff(GREY.astype(np.int32), 2), "signed"),
        (tiff(GREY.astype(np.uint32), 1), "next to black"),
        (tiff(DEEP >> 4, 1), "16-bit numbers of at most 36.., which is next to black"),
        (encoded("PNG", Image.fromarray(DEEP >> 4)), "next to black"),
        (tiff(GREY.astype(np.float32), 3), "floats from"),
        (tiff(np.full((8, 8), np.nan, np.float32), 3), "floats from nan"),
        (tiff(np.moveaxis(COLOUR, 2, 0).copy(), 1, photometric=2, planar=2), "planes"),
    ],
    ids="int16 int32 small-uint32 12-bit-tiff 12-bit-png float255 nan planar16".split(),
)
def test_numbers_that_do_not_tell_what_is_white_are_refused(data: bytes, reason: str):
    with pytest.raises(ImageError, match=reason):
        decode(data, "x")


def test_a_jpeg_of_twelve_bits_is_said_to_be_one():
    data = encoded("JPEG")
    frame = data.index(b"\xff\xc0")
    with pytest.raises(ImageError, match=r"broken image: .*12"):
        decode(data[: frame + 4] + b"\x0c" + data[frame + 5 :], "x")


def test_grey_of_sixteen_bits_may_be_dark_or_black():
    for numbers in (DEEP >> 3, np.zeros_like(DEEP)):
        assert np.abs(pixels(tiff(numbers, 1))[..., 0] - numbers // 257).max() <= 1

from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
from conftest import picture
from PIL import Image, ImageCms

from index.images.decode import decode, to_srgb

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def wide_profile() -> bytes:
    """An sRGB profile whose red and green primaries are swapped: as far from sRGB as can be seen."""
    red, green = SRGB.index(b"rXYZ"), SRGB.index(b"gXYZ")
    profile = bytearray(SRGB)
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile)


def saved(image: Image.Image, kind: str, profile: bytes, **options) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, icc_profile=profile, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_an_embedded_profile_is_obeyed(kind):
    data = saved(picture(1), kind, wide_profile(), lossless=True)
    found = np.asarray(decode(data, "x").image, int)
    np.testing.assert_allclose(found, np.asarray(picture(1), int)[..., [1, 0, 2]], atol=3)


def test_srgb_itself_and_broken_profiles_change_nothing():
    truncated = wide_profile()[:200]
    for profile in (SRGB, truncated, b"no profile at all"):
        found = decode(saved(picture(2), "PNG", profile), "x").image
        np.testing.assert_array_equal(np.asarray(found), np.asarray(picture(2)))


def test_a_profile_of_another_mode_counts_for_nothing():
    grey = picture(3).convert("L")
    found = np.asarray(to_srgb(grey, wide_profile()))
    np.testing.assert_array_equal(found, np.asarray(grey.convert("RGB")))


def test_alpha_and_orientation_go_with_a_profile():
    image = picture(4).convert("RGBA")
    image.putalpha(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = decode(saved(image, "PNG", wide_profile(), exif=exif), "x")
    assert photo.image.getpixel((0, 0)) == (255, 255, 255)
    assert photo.image.size == (photo.width, photo.height) == (40, 48)


def test_threads_share_a_conversion():
    data = [saved(picture(seed), "PNG", wide_profile()) for seed in range(8)]
    alone = [decode(one, "x").image.tobytes() for one in data]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda one: decode(one, "x").image.tobytes(), data * 20)) == alone * 20

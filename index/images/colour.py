"""Colours as sRGB: what an embedded ICC profile says they are, seen on an ordinary screen."""

from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms

SPACES = {"RGB ": "RGB", "CMYK": "CMYK", "GRAY": "L"}  # of ICC profiles, as Pillow's modes
NOTICED = 2  # levels of 255 that a colour must move for a conversion to be worth its time


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Make RGB, with colours in sRGB, of an image in RGB, CMYK or grey, without transparency.

    An ICC profile that is broken, or of another mode, counts for nothing.
    """
    transform = _transform_from(profile, image.mode) if profile else None
    if transform is not None:
        return transform.apply(image)
    return image.convert("RGB")


@lru_cache(maxsize=32)
def _transform_from(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The conversion to sRGB, or None where it would change nothing that shows. Threads may share it."""
    try:
        opened = ImageCms.ImageCmsProfile(BytesIO(profile))
        if SPACES.get(opened.profile.xcolor_space) != mode:
            return None
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        transform = ImageCms.ImageCmsTransform(opened, srgb, mode, "RGB")
    except (OSError, TypeError, ValueError):
        return None
    levels = np.random.default_rng(0).integers(0, 256, (64, 64, len(mode)), dtype=np.uint8)  # of each band
    colours = Image.frombytes(mode, (64, 64), levels.tobytes())
    change = np.asarray(transform.apply(colours), int) - np.asarray(colours.convert("RGB"), int)
    return transform if np.abs(change).max() > NOTICED else None

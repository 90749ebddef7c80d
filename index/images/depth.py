"""Grey images of more than eight bits: scaled to eight, or refused where nothing says what is white."""

import numpy as np
from PIL import Image, TiffImagePlugin

from index.errors import ImageError

SIGNED, FLOAT = 2, 3  # sample formats of TIFF
CONVERT = "convert it to 8 or 16 bits"


def check_samples(image: Image.Image) -> None:
    """Raise ImageError, before it is decoded, for a TIFF with numbers that Pillow puts in the wrong place."""
    if SIGNED in _tag(image, TiffImagePlugin.SAMPLEFORMAT, 1):
        raise ImageError(f"signed numbers, of which none is said to be black: {CONVERT}, unsigned")
    planes = _tag(image, TiffImagePlugin.PLANAR_CONFIGURATION, 1)[0] == 2 and len(image.getbands()) > 1
    if planes and max(_tag(image, TiffImagePlugin.BITSPERSAMPLE, 1)) > 8:
        raise ImageError("16-bit colour in separate planes: write its colours pixel by pixel, or in 8 bits")


def to_eight_bits(image: Image.Image) -> Image.Image:
    """Scale grey of mode `I`, `I;16` or `F` to mode `L`; ImageError if nothing says what is white."""
    numbers = np.asarray(image)
    bits = _tag(image, TiffImagePlugin.BITSPERSAMPLE, 16)[0]
    if image.mode == "F":
        low, high = numbers.min(), numbers.max()
        if not (low >= 0 and high <= 1):
            raise ImageError(f"floats from {low:g} to {high:g}, where 0 to 1 is expected: {CONVERT}")
        levels = numbers * np.float32(255)
    elif bits == 32:
        numbers = numbers.view(np.uint32)
        if 0 < numbers.max() < 1 << 24:  # all would come out black
            raise ImageError(f"32-bit numbers of at most {numbers.max()}, which is next to black: {CONVERT}")
        levels = (numbers >> 24).astype(np.float32)
    else:
        levels = numbers.astype(np.float32) * (255 / (2**bits - 1))
    if _tag(image, TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 1)[0] == 0:  # white is zero
        levels = 255 - levels
    return Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8))


def _tag(image: Image.Image, tag: int, default: int) -> tuple[int, ...]:
    """A tag of a TIFF as a tuple; the default of other files."""
    found = image.tag_v2.get(tag, default) if isinstance(image, TiffImagePlugin.TiffImageFile) else default
    return found if isinstance(found, tuple) else (found,)

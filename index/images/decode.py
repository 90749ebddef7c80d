"""Decode images: upright RGB pixels in sRGB, or a reason why not."""

import warnings
from dataclasses import dataclass, field, replace
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from index.errors import ImageError
from index.images.colour import to_srgb
from index.images.file import ImageFile
from index.io import content_digest

# Named, so that a file can never reach a decoder that runs another program (EPS) or the network.
Image.init()
FORMATS: list[str] = [
    name
    for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
    if name in Image.OPEN
]
MAX_PIXELS = 89_000_000
MARGIN = 4  # with less, rankings are no longer those of whole decoding: see docs/architecture.md
MAX_SCANS = 500  # of a progressive JPEG: each costs as much time as its pixels, and hardly a byte
UPRIGHT = {  # what undoes each EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)  # those that swap width and height

# What Pillow warns of, `decode` refuses, or it does not matter: a line for each such image would.
warnings.filterwarnings("ignore", module="PIL")


@dataclass(frozen=True)
class Photo:
    """One decoded image.

    Attributes:
        name: What to call it in messages.
        data: The bytes it was read from.
        digest: `content_digest` of `data`.
        image: Upright RGB pixels; a JPEG may have been decoded smaller than it is.
        width: Width of the whole upright image, in pixels.
        height: Height of the whole upright image, in pixels.
        below: As in `ImageFile`.
        changed: When the file was changed, in nanoseconds since 1970.
    """

    name: str
    data: bytes
    digest: str
    image: Image.Image
    width: int
    height: int
    below: bool = False
    changed: int = field(default=0, compare=False)


def read_photo(file: ImageFile, side: int | None = None) -> Photo:
    """Read and decode a file.

    Args:
        file: The file.
        side: As in `decode`.

    Raises:
        ImageError: It cannot be read; the message is the reason.
    """
    data, changed = file.read()
    return replace(decode(data, file.name, side), below=file.below, changed=changed)


def decode(data: bytes, name: str, side: int | None = None) -> Photo:
    """Decode the bytes of an image to upright sRGB: first frame, transparency over white, 16 bits to 8.

    Args:
        data: The bytes of an image file.
        name: What to call it in messages.
        side: The largest square, in pixels, that will be made of it. Lets a JPEG be decoded at 1/2, 1/4 or
            1/8 of its size as long as `MARGIN` times this side remains. None decodes it whole.

    Raises:
        ImageError: It cannot be decoded, or has more than `MAX_PIXELS`; the message is the reason.
    """
    if not data:
        raise ImageError("empty file")
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            _refuse_excess(image, data)
            width, height = image.size
            if side is not None:
                image.draft(None, (MARGIN * side, MARGIN * side))
            image.load()
            pixels = to_srgb(_flatten(image), image.info.get("icc_profile"))
            orientation = read_orientation(image)
        if orientation in SIDEWAYS:
            width, height = height, width
        if orientation in UPRIGHT:
            pixels = pixels.transpose(UPRIGHT[orientation])
        return Photo(name, data, content_digest(data), pixels, width, height)
    except ImageError:
        raise
    except Image.UnidentifiedImageError as error:
        raise ImageError("not an image that can be read") from error
    except Image.DecompressionBombError as error:
        raise ImageError(_too_large("more than 178 megapixels")) from error  # Pillow's own limit
    except Exception as error:  # a decoder fed with broken bytes raises anything
        raise ImageError(f"broken image: {' '.join(str(error).split())}") from error


def square(image: Image.Image, side: int, crop: float = 1.0) -> NDArray[np.uint8]:
    """Squash the middle of an RGB image to a square, bicubic: the resize rule of our ONNX files.

    Args:
        image: The image.
        side: Side of the square, in pixels.
        crop: Share of width and of height that is kept, about the centre.

    Returns:
        `(side, side, 3)` uint8.
    """
    left, top = (1 - crop) / 2 * image.width, (1 - crop) / 2 * image.height
    box = (left, top, image.width - left, image.height - top)
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC, box))


def with_pixels(photo: Photo, image: Image.Image) -> Photo:
    """Give a photo other RGB pixels. Its bytes become a PNG of them, for embedders that send bytes."""
    png = BytesIO()
    image.save(png, "PNG", compress_level=1)
    data = png.getvalue()
    return Photo(photo.name, data, content_digest(data), image, *image.size)


def _refuse_excess(image: Image.Image, data: bytes) -> None:
    """Raise ImageError, before any pixel is made, for what would take too much memory or time."""
    pixels = image.width * image.height
    if pixels > MAX_PIXELS:
        raise ImageError(_too_large(f"{pixels / 1e6:.0f} megapixels"))
    if "progressive" in image.info and data.count(b"\xff\xda") > MAX_SCANS:
        raise ImageError(f"more than {MAX_SCANS} scans, which would take too long")


def _too_large(what: str) -> str:
    return f"too large: {what}, the limit is {MAX_PIXELS // 1_000_000} megapixels"


def read_orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1, which is upright, where it cannot be told."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # as `decode`; the pixels are sound
        return 1


def _flatten(image: Image.Image) -> Image.Image:
    """Make RGB of all modes but grey and CMYK: transparency over white, 16 bits to 8."""
    if image.mode.startswith("I"):  # 16-bit grey; Pillow would clip it at 255
        deep = np.asarray(image).astype(np.float32)
        return Image.fromarray(np.clip(deep / 257, 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode in ("RGB", "CMYK", "L") else image.convert("RGB")

"""Decode images: upright RGB pixels in sRGB, or a reason why not."""

import math
import warnings
from dataclasses import dataclass, field, replace
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageOps, TiffImagePlugin
from PIL.JpegImagePlugin import jpeg_factory

from index.errors import ImageError, in_line
from index.images import jpeg, left_out, png
from index.images.file import ImageFile
from index.images.kinds import HEIC, name_kind
from index.io import content_digest

# Named, so that a file can never reach a decoder that runs another program (EPS) or the network.
Image.init()
FORMATS = [name for name in "JPEG PNG WEBP GIF BMP TIFF AVIF JPEG2000 PPM".split() if name in Image.OPEN]
MAX_PIXELS = 89_000_000  # that are decoded
LIMIT = f"the limit is {MAX_PIXELS // 1_000_000} megapixels"
MAX_STREAMED = 300_000_000  # of a JPEG that is decoded smaller, row by row: only time depends on them
MARGIN = 4  # times what is made of it, that a JPEG must remain: rankings are those of whole decoding
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
    """One decoded image."""

    name: str  # what to call it in messages
    data: bytes  # that it was read from
    digest: str  # `content_digest` of `data`
    image: Image.Image  # upright RGB pixels; a JPEG may have been decoded smaller than it is
    width: int  # pixels, of the whole upright image
    height: int
    below: bool = False  # as in `ImageFile`
    location: str = ""  # as in `ImageFile`; empty of what is no file
    changed: int = field(default=0, compare=False)  # when the file was, in nanoseconds since 1970


def read_photo(file: ImageFile, side: int | None = None) -> Photo:
    """Read and decode a file, as `decode`; ImageError, too, if it cannot be read."""
    return decode_file(file, *file.read(), side)


def decode_file(
    file: ImageFile, data: bytes, changed: int, side: int | None = None, digest: str = ""
) -> Photo:
    """Decode what `ImageFile.read` has read, as `read_photo`."""
    photo = decode(data, file.name, side, digest)
    return replace(photo, below=file.below, location=file.location, changed=changed)


def decode(data: bytes, name: str, side: int | None = None, digest: str = "") -> Photo:
    """Decode the bytes of an image to upright sRGB: first frame, transparency over white, 16 bits to 8.

    `name` is for messages, `side` is how wide and high it must remain, in pixels: a JPEG is decoded at 1/2,
    1/4 or 1/8 of its size as long as it does. None decodes it whole. `digest` is that of the data, if known.

    Raises:
        ImageError: It cannot be decoded, or has more pixels than are decoded; the message is the reason.
    """
    if not data:
        raise ImageError("empty file")
    try:
        pixels, size = _decode_mended(data, side)
        return Photo(name, data, digest or content_digest(data), pixels, *size)
    except ImageError:
        raise
    except Image.UnidentifiedImageError as error:
        kind = name_kind(data)
        raise ImageError(f"not an image that can be read{kind and f': {kind}'}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"too large: more than 178 megapixels, {LIMIT}") from error  # Pillow's own
    except Exception as error:  # a decoder fed with broken bytes raises anything
        raise ImageError(f"broken image: {in_line(error, False)}") from error


def open_header(data: bytes) -> Image.Image | None:
    """Open an image without its pixels; None where `decode` alone can read it, as it mends what it can."""
    try:
        return _open(data)
    except Exception:  # as `decode`
        return None


def square(image: Image.Image, side: int, crop: float = 1.0, reduced: bool = False) -> NDArray[np.uint8]:
    """Squash the middle of an RGB image to `(side, side, 3)` uint8, bicubic: the rule of our ONNX files.

    `crop` is the share of width and of height that is kept, about the centre. What is to be `reduced` is
    first brought to 1/2, 1/4, ... of its size, as long as no pixels are missing then: much as a JPEG that is
    decoded smaller, so that both look alike.
    """
    scale = min(image.size) // math.ceil(side / crop) if reduced else 1
    if scale > 1:
        image = image.reduce(1 << scale.bit_length() - 1)
    left, top = (1 - crop) / 2 * image.width, (1 - crop) / 2 * image.height
    box = (left, top, image.width - left, image.height - top)
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC, box))


def pad(image: Image.Image, size: tuple[int, int], colour: str | tuple[int, int, int]) -> Image.Image:
    """Show an image whole in so many pixels, across and down, between bars of a colour."""
    scale = min(size[0] / image.width, size[1] / image.height)
    if min(image.size) * scale < 1:  # Pillow would make it 0 pixels thin
        image = image.resize((max(round(image.width * scale), 1), max(round(image.height * scale), 1)))
    return ImageOps.pad(image, size, Image.Resampling.BICUBIC, colour)


def encode(image: Image.Image, kind: str, **how: Any) -> bytes:
    """Write an image as the bytes of a file, with options of Pillow's."""
    file = BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def with_pixels(photo: Photo, image: Image.Image) -> Photo:
    """Give a photo other RGB pixels. Its bytes become a PNG of them, for embedders that send bytes."""
    data = encode(image, "PNG", compress_level=1)
    return Photo(photo.name, data, content_digest(data), image, *image.size)


def _decode(data: bytes, side: int | None) -> tuple[Image.Image, tuple[int, int]]:
    """Decode to upright RGB pixels, with the size of the whole; errors are those of the decoder."""
    with _open(data) as image:
        width, height = image.size
        if side is not None:
            if width * height > MAX_PIXELS:  # or none of it would be left
                side = min(side, width // 2, height // 2)
            image.draft(None, (side, side))
        _refuse_excess(image, width * height, data)
        check_samples(image)
        image.load()
        pixels = to_srgb(_flatten(image), image.info.get("icc_profile"))
        orientation = read_orientation(image)
    if orientation in SIDEWAYS:
        width, height = height, width
    if orientation in UPRIGHT:
        pixels = pixels.transpose(UPRIGHT[orientation])
    return pixels, (width, height)


def _open(data: bytes) -> Image.Image:
    if "HEIF" not in FORMATS and HEIC.match(data) and left_out.reads_heic():
        import pillow_heif

        pillow_heif.register_heif_opener(decode_threads=1)  # our own threads keep all cores busy
        FORMATS.append("HEIF")
    if data.startswith(jpeg.SIGNATURE):
        # Not by `Image.open`, which limits pixels as they are written: ours are those decoded.
        return jpeg_factory(BytesIO(data))
    return Image.open(BytesIO(data), formats=FORMATS)


def _decode_mended(data: bytes, side: int | None) -> tuple[Image.Image, tuple[int, int]]:
    """As `_decode`, all the same where an error of the decoder touches no pixel."""
    try:
        return _decode(data, side)
    except ImageError:
        raise
    except Exception:
        if data.startswith(png.SIGNATURE):
            return _decode(png.without_comments(data), side)
        if data.startswith(jpeg.SIGNATURE) and jpeg.has_all_scans(data):
            found = _decode(data.removesuffix(b"\xff") + jpeg.END, side)
            other, _ = _decode(jpeg.with_noise(data), side)
            if found[0].tobytes() == other.tobytes():  # or the noise was taken for pixels: some are missing
                return found
        raise


def _refuse_excess(image: Image.Image, written: int, data: bytes) -> None:
    """Raise ImageError, before any pixel is made, for what would take too much memory or time."""
    streamed = written > MAX_PIXELS and image.size[0] * image.size[1] <= MAX_PIXELS and jpeg.is_streamed(data)
    if written > (MAX_STREAMED if streamed else MAX_PIXELS):
        raise ImageError(f"too large: {written / 1e6:.0f} megapixels, {LIMIT}")
    if not data.startswith(jpeg.SIGNATURE) or jpeg.is_streamed(data):
        return
    if sum(code == jpeg.SOS for code, _ in jpeg.read_segments(data)) > MAX_SCANS:
        raise ImageError(f"more than {MAX_SCANS} scans, which would take too long")


def read_orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1, which is upright, where it cannot be told."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # as `decode`; the pixels are sound
        return 1


def _flatten(image: Image.Image) -> Image.Image:
    """Make RGB of all modes but grey and CMYK: transparency over white, 16 bits to 8."""
    if image.mode.startswith(("I", "F")):  # Pillow would clip them at 255
        return to_eight_bits(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode in ("RGB", "CMYK", "L") else image.convert("RGB")


SPACES = {"RGB ": "RGB", "CMYK": "CMYK", "GRAY": "L"}  # of ICC profiles, as Pillow's modes
NOTICED = 2  # levels of 255 that a colour must move for a conversion to be worth its time


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Make sRGB of RGB, CMYK or grey without transparency; a broken or unfit profile counts for nothing."""
    transform = _transform_from(profile, image.mode) if profile else None
    return transform.apply(image) if transform else image.convert("RGB")


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


SIGNED = 2  # the sample format of such a TIFF
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
        if bits == 16 and 0 < numbers.max() < 1 << 12:  # of a camera of 12 bits, say
            raise ImageError(f"16-bit numbers of at most {numbers.max()}, which is next to black: {CONVERT}")
        levels = numbers.astype(np.float32) * (255 / (2**bits - 1))
    if _tag(image, TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 1)[0] == 0:  # white is zero
        levels = 255 - levels
    return Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8))


def _tag(image: Image.Image, tag: int, default: int) -> tuple[int, ...]:
    found = image.tag_v2.get(tag, default) if isinstance(image, TiffImagePlugin.TiffImageFile) else default
    return found if isinstance(found, tuple) else (found,)

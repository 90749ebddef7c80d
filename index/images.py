"""Find image files and decode them: upright RGB pixels, or a reason why not."""

import hashlib
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from index.errors import ImageError, UsageError

EXTENSIONS = frozenset(
    ".jpg .jpeg .jpe .jfif .mpo .png .webp .gif .bmp .tif .tiff .avif .jp2 .ppm .pgm".split()
)
# Named, so that a file can never reach a decoder that runs another program (EPS) or the network.
Image.init()
FORMATS: list[str] = [
    name
    for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
    if name in Image.OPEN
]
MAX_PIXELS = 89_000_000
SIDEWAYS = (5, 6, 7, 8)  # the EXIF orientations that swap width and height

# Pillow warns from 89 megapixels on. `decode` refuses those, so that the warning would only say it twice.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


@dataclass(frozen=True)
class ImageFile:
    """A file to read.

    Attributes:
        path: Absolute, links kept.
        name: What to call it in messages.
        below: Whether that is its path below a folder of images, which identifies it there.
    """

    path: Path
    name: str
    below: bool = False


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
    """

    name: str
    data: bytes
    digest: str
    image: Image.Image
    width: int
    height: int
    below: bool = False


def content_digest(data: bytes) -> str:
    """Return the 32 hexadecimal digits that identify these bytes everywhere (BLAKE2b, 128 bits)."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def find_images(sources: Sequence[Path]) -> list[ImageFile]:
    """List the images in folders (recursively, links followed) and single files, in a stable order.

    Args:
        sources: Folders, or files, which are taken whatever their extension.

    Raises:
        UsageError: A source does not exist, or there is no image in any of them.
    """
    files: dict[Path, ImageFile] = {}
    for source in sources:
        root = Path(source).absolute()
        if root.is_dir():
            for path in _walk(root):
                files.setdefault(path, ImageFile(path, path.relative_to(root).as_posix(), below=True))
        elif root.exists():
            files.setdefault(root, ImageFile(root, root.name))
        else:
            raise UsageError(f"{source} does not exist. Give a folder of images, or image files.")
    if not files:
        raise UsageError(
            f"No image in {', '.join(map(str, sources))}. Looked for {' '.join(sorted(EXTENSIONS))}."
        )
    return list(files.values())


def _walk(root: Path) -> Iterator[Path]:
    seen = set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link back to a folder above would go round for ever
            subfolders.clear()
            continue
        seen.add(real)
        subfolders.sort()
        for name in sorted(names):
            if Path(name).suffix.lower() in EXTENSIONS:
                yield Path(folder, name)


def read_photo(file: ImageFile, side: int | None = None) -> Photo:
    """Read and decode a file.

    Args:
        file: The file.
        side: As in `decode`.

    Raises:
        ImageError: It cannot be read; the message is the reason.
    """
    try:
        data = file.path.read_bytes()
    except OSError as error:
        raise ImageError(error.strerror or "cannot be read") from error
    return replace(decode(data, file.name, side), below=file.below)


def decode(data: bytes, name: str, side: int | None = None) -> Photo:
    """Decode the bytes of an image to upright RGB: first frame, transparency over white, 16 bits to 8.

    Args:
        data: The bytes of an image file.
        name: What to call it in messages.
        side: The largest square, in pixels, that will be made of it. Lets a JPEG be decoded at 1/2, 1/4 or
            1/8 of its size as long as twice this side remains. None decodes it whole.

    Raises:
        ImageError: It cannot be decoded, or has more than `MAX_PIXELS`; the message is the reason.
    """
    if not data:
        raise ImageError("empty file")
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ImageError(_too_large(f"{width * height / 1e6:.0f} megapixels"))
            if side is not None:
                image.draft(None, (2 * side, 2 * side))
            if image.getexif().get(ExifTags.Base.Orientation) in SIDEWAYS:
                width, height = height, width
            upright = ImageOps.exif_transpose(image)
            return Photo(name, data, content_digest(data), _to_rgb(upright), width, height)
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


def _too_large(what: str) -> str:
    return f"too large: {what}, the limit is {MAX_PIXELS // 1_000_000} megapixels"


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey; Pillow would clip it at 255
        deep = np.asarray(image).astype(np.float32)
        return Image.fromarray(np.clip(deep / 257, 0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")

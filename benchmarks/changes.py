"""Four ways in which a photo is changed and remains the same photo."""

from collections.abc import Callable
from io import BytesIO

from PIL import Image, ImageFilter


def jpeg(image: Image.Image, quality: int = 92) -> bytes:
    """The image as the bytes of a JPEG."""
    data = BytesIO()
    image.save(data, "JPEG", quality=quality)
    return data.getvalue()


def crop(image: Image.Image) -> Image.Image:
    """Its middle, a tenth of width and height less."""
    x, y = round(image.width / 20), round(image.height / 20)
    return image.crop((x, y, image.width - x, image.height - y))


CHANGES: dict[str, Callable[[Image.Image], bytes]] = {
    "JPEG 40": lambda image: jpeg(image, 40),
    "10 % crop": lambda image: jpeg(crop(image)),
    "10 degrees": lambda image: jpeg(image.rotate(10, Image.Resampling.BICUBIC)),
    "blur": lambda image: jpeg(image.filter(ImageFilter.GaussianBlur(2))),
}

"""Images of unusual depth and make, for tests."""

import struct
import zlib
from io import BytesIO

import numpy as np
from conftest import picture
from numpy.typing import NDArray
from PIL import Image

GREY = np.asarray(picture(1, 200, 120).convert("L"))
DEEP = GREY.astype(np.uint16) * 257
COLOUR = np.asarray(picture(1, 200, 120)).astype(np.uint16) * 257


def encoded(kind: str, image: Image.Image | None = None, **options: object) -> bytes:
    buffer = BytesIO()
    (image or picture(1, 200, 120)).save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(numbers: NDArray[np.generic], kind: int, photometric: int = 1, planar: int = 1) -> bytes:
    """A little-endian TIFF of one strip, or one for each plane."""
    planes = 3 if photometric == 2 else 1
    height, width = numbers.shape[1:] if planar == 2 else numbers.shape[:2]
    body = numbers.tobytes()
    strips = planes if planar == 2 else 1
    offsets = struct.pack(f"<{strips}I", *(8 + i * len(body) // strips for i in range(strips)))
    counts = struct.pack(f"<{strips}I", *[len(body) // strips] * strips)
    shorts = {256: width, 257: height, 259: 1, 262: photometric, 277: planes, 278: height, 284: planar}
    values = {tag: (3, 1, struct.pack("<H", value)) for tag, value in shorts.items()}
    values[258] = (3, planes, struct.pack("<H", numbers.itemsize * 8) * planes)
    values[339] = (3, planes, struct.pack("<H", kind) * planes)
    values[273], values[279] = (4, strips, offsets), (4, strips, counts)
    entries, behind = b"", b""
    end = 8 + len(body) + 2 + 12 * len(values) + 4
    for tag, (form, count, value) in sorted(values.items()):
        inside = value if len(value) <= 4 else struct.pack("<I", end + len(behind))
        behind += value if len(value) > 4 else b""
        entries += struct.pack("<HHI", tag, form, count) + inside.ljust(4, b"\0")
    start = struct.pack("<2sHI", b"II", 42, 8 + len(body))
    return start + body + struct.pack("<H", len(values)) + entries + bytes(4) + behind


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


LONG = zlib.compress(bytes(5_000_000))

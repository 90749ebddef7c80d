"""The chunks of a PNG that say what its pixels are."""

import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOURS = (b"tRNS", b"eXIf")  # beside the critical ones, which begin with a capital letter
LARGEST_PROFILE = 1 << 20  # bytes, unpacked; Pillow takes no more


def without_comments(data: bytes) -> bytes:
    """A PNG without texts, times and what else shows nothing, and without a profile too long or damaged."""
    kept, at = [SIGNATURE], len(SIGNATURE)
    while at + 8 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")  # with length, type and checksum
        if _counts(data[at + 4 : at + 8], data[at:end]):
            kept.append(data[at:end])
        at = end
    return b"".join(kept)


def _counts(kind: bytes, whole: bytes) -> bool:
    if kind[:1].isupper():
        return True
    if zlib.crc32(whole[4:-4]) != int.from_bytes(whole[-4:], "big"):
        return False
    if kind != b"iCCP":
        return kind in COLOURS
    packed = whole[8:-4].partition(b"\0")[2][1:]
    unpack = zlib.decompressobj()
    try:
        unpack.decompress(packed, LARGEST_PROFILE)
    except zlib.error:
        return False
    return unpack.eof

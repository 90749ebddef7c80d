"""What a file is that is no photo, by how it begins: named, so that one knows what to do about it."""

import re

HEIC = re.compile(rb"....ftyp(hei[cmsx]|hev[cm]|mif1|msf1)", re.DOTALL)
KINDS = {  # often found among photos, or with the name of one
    "HEIC, install pillow-heif or convert it to JPEG": HEIC,
    "JPEG XL, convert it to JPEG or PNG": re.compile(rb"\xff\x0a|\0\0\0\x0cJXL "),
    "raw data of a camera, convert it to JPEG": re.compile(
        rb"....ftypcrx|FUJIFILMCCD-RAW|II(RO|RS|U\0|\*\0.{4}CR\x02)", re.DOTALL
    ),
    "a TIFF of samples that are not read, as colours in floats, convert it to 8 or 16 bits": re.compile(
        rb"II[*+]\0|MM\0[*+]"
    ),
    "an AVIF that is broken or cut short": re.compile(rb"....ftypavi[fs]", re.DOTALL),
    "a video": re.compile(rb"....ftyp|RIFF....AVI |\x1aE\xdf\xa3", re.DOTALL),
    "SVG, convert it to PNG": re.compile(rb"(\xef\xbb\xbf)?\s{0,9}<([^\0]{0,4000}<)?svg"),
    "a web page, not what its address names": re.compile(rb"\s{0,99}<(!DOCTYPE )?html", re.IGNORECASE),
    "compressed by gzip, unpack it; a shard is read as .tar": re.compile(rb"\x1f\x8b"),
    "compressed by bzip2, xz or zstd, unpack it; a shard is read as .tar": re.compile(
        rb"BZh|\xfd7zXZ|\x28\xb5\x2f\xfd"
    ),
    "a zip archive, unpack it": re.compile(rb"PK\x03\x04"),
    "a 7z or rar archive, unpack it": re.compile(rb"7z\xbc\xaf|Rar!"),
    "a PDF": re.compile(rb"%PDF"),
    "a Photoshop file, export it as PNG": re.compile(rb"8BPS"),
    "a pointer of Git LFS, run git lfs pull": re.compile(rb"version https://git-lfs"),
    "zeros, as a copy that was broken off leaves": re.compile(rb"\0{32}"),
    "text, as a server answers in place of a photo; a list of photos ends in .txt": re.compile(
        rb"(?=\s*[{[<]|.*\n)([\t\n\r -~]{512}|[\t\n\r -~]+\Z)"
    ),
}


def name_kind(data: bytes) -> str:
    """What data that begin so are, and what to do about it; empty if that is unknown."""
    return next((kind for kind, start in KINDS.items() if start.match(data)), "")

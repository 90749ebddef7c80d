"""What docs/formats.md says of photos, sources and tables, row by row."""

import bz2
import gzip
import logging
import lzma
import re
import unicodedata
from codecs import BOM_UTF16_LE
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import known, picture, png, write_embedder, write_shard
from odd_images import COLOUR, DEEP, GREY, chunk, encoded, tiff
from PIL import Image

from index.build.pipeline import build as build_into
from index.build.pipeline import build_index
from index.embedders.onnx import OnnxEmbedder
from index.errors import ImageError, UsageError
from index.images import decode as decoding
from index.images import left_out
from index.images.decode import decode
from index.images.file import MAX_BYTES, ImageFile
from index.images.left_out import EXTENSIONS, FOLDERS, HEIC, UNREAD
from index.images.sources import find_images
from index.stores.metadata.columns import Metadata
from index.stores.metadata.join import join_metadata
from index.stores.models import Models
from index.stores.options import IndexOptions
from index.stores.writing.store import FolderStore

DOCUMENT = (Path(__file__).parents[3] / "docs" / "formats.md").read_text(encoding="utf-8")
CHECKS: dict[str, Callable[..., None]] = {}


def photos(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png(1))
    return root


def found(source: Path) -> list[str]:
    return [file.name for file in find_images([source])]


def rows(*sections: str) -> dict[str, str]:
    """What each row of the tables is about, and what becomes of it."""
    lines = {}
    for section in sections:
        text = DOCUMENT.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
        table = [line.strip("| ").split(" | ", 1) for line in text.splitlines() if line.startswith("|")]
        lines |= {one[0]: one[1] for one in table[2:]}
    return lines


ROWS = rows("Photos", "Folders, shards and lists", "Metadata tables")


def row(beginning: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function the check of the one row that begins so."""

    def add(check: Callable[..., None]) -> Callable[..., None]:
        (what,) = [what for what in ROWS if what.startswith(beginning)]
        assert what not in CHECKS
        CHECKS[what] = check
        return check

    return add


@pytest.mark.parametrize("what", ROWS)
def test_a_row(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    caplog.set_level(logging.INFO, "retrieval")
    assert what in CHECKS, "no check"
    names = CHECKS[what].__code__.co_varnames[: CHECKS[what].__code__.co_argcount]
    given = {"tmp_path": tmp_path, "monkeypatch": monkeypatch, "said": caplog}
    CHECKS[what](**{name: given[name] for name in names})


def test_extensions_are_those_of_the_formats() -> None:
    names = next(iter(ROWS)).replace("JPEG 2000", "jp2").lower().split(", ")
    others = {".jpg", ".jpe", ".jfif", ".mpo", ".tif", ".apng", ".avifs", ".pfm"}
    others |= {".j2k", ".j2c", ".jpc", ".jpf", ".jpx"}
    assert {f".{name}" for name in names} | others == EXTENSIONS
    assert not EXTENSIONS & (UNREAD | HEIC)


def looks_like(data: bytes, grey: np.ndarray = GREY, side: int | None = None) -> bool:
    made = np.asarray(decode(data, "x", side).image.convert("L"), int)
    return made.shape == grey.shape and np.abs(made - grey).mean() < 4


def is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        decode(data, "x")


def build(source: Path, out: Path, **options: Any) -> Any:
    student = OnnxEmbedder(write_embedder(out.with_name("s.onnx")), "cpu")
    return build_index([source], student, out, options=IndexOptions(**options))


@row("JPEG, PNG, WebP")
def _() -> None:
    kinds = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
    assert decoding.FORMATS[: len(kinds)] == list(kinds)
    assert all(looks_like(encoded(kind)) for kind in kinds)
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    assert decode(encoded("PNG", clear), "x").image.getpixel((0, 0)) == (255, 255, 255)


@row("HEIC with pillow")
def _() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    assert looks_like(encoded("HEIF", quality=95))


@row("HEIC without")
def _(tmp_path: Path, monkeypatch: Any, said: Any) -> None:
    monkeypatch.setattr(left_out, "reads_heic", lambda: False)
    assert found(photos(tmp_path, "a.heic", "b.png")) == ["b.png"]
    assert "1 .heic): convert them, or install pillow-heif" in said.text


@row("JPEG of more than")
def _(monkeypatch: Any) -> None:
    assert (decoding.MAX_PIXELS, decoding.MAX_STREAMED) == (89_000_000, 300_000_000)
    monkeypatch.setattr(decoding, "MAX_PIXELS", 200 * 120 - 1)
    assert decode(encoded("JPEG"), "x", 32).image.size == (100, 60)
    is_refused(encoded("JPEG"), "too large")
    monkeypatch.setattr(decoding, "MAX_STREAMED", 200 * 120 - 1)
    with pytest.raises(ImageError, match="too large"):
        decode(encoded("JPEG"), "x", 32)


@row("JPEG without its end")
def _() -> None:
    assert looks_like(encoded("JPEG")[:-2])
    is_refused(encoded("JPEG")[:-200], "broken image")


@row("bytes behind")
def _() -> None:
    assert all(looks_like(encoded(kind) + bytes(99)) for kind in ("JPEG", "PNG"))


@row("PNG with a long comment")
def _() -> None:
    data, long = encoded("PNG"), chunk(b"tEXt", b"Comment\0" + bytes(1 << 21))
    assert looks_like(data[:33] + long + data[33:])


@row("grey of 16 bits")
def _() -> None:
    assert looks_like(tiff(DEEP, 1))
    assert looks_like(tiff(65535 - DEEP, 1, photometric=0))
    assert looks_like(tiff(GREY.astype(np.uint32) * 16843009, 1))


@row("grey floats")
def _() -> None:
    assert looks_like(tiff(GREY.astype(np.float32) / 255, 3))


@row("floats beyond")
def _() -> None:
    is_refused(tiff(GREY.astype(np.float32), 3), "where 0 to 1 is expected")
    is_refused(tiff(GREY.astype(np.int16), 2), "signed numbers")
    is_refused(tiff(GREY.astype(np.uint32), 1), "next to black")
    is_refused(tiff(DEEP >> 4, 1), "next to black")


@row("TIFF of 16-bit colour")
def _() -> None:
    is_refused(tiff(np.moveaxis(COLOUR, 2, 0).copy(), 1, photometric=2, planar=2), "separate planes")


@row("TIFF of colour in floats")
def _() -> None:
    what = "a TIFF of samples that are not read, as colours in floats, convert it to 8 or 16 bits"
    is_refused(tiff(COLOUR.astype(np.float32) / 255, 3, photometric=2), what)
    is_refused(tiff(GREY.astype(np.float64) / 255, 3), what)


@row("JPEG XL")
def _(tmp_path: Path, said: Any) -> None:
    assert {".eps", ".pdf", ".tga", ".ico", ".dcm", ".nrw", ".3fr", ".x3f", ".gpr"} <= UNREAD
    assert {".jxl", ".svg", ".psd", ".dng", ".cr3", ".nef", ".arw"} <= UNREAD
    assert found(photos(tmp_path, "a.png", "a.jxl", "b.SVG")) == ["a.png"]
    assert "2 files of formats that are not read (1 .jxl, 1 .svg)" in said.text


@row("a web page")
def _() -> None:
    is_refused(b"<!DOCTYPE html><p>", "a web page")
    is_refused(b"PK\3\4", "a zip archive")
    is_refused(b'{"error": 404}', "text, as a server answers")
    is_refused(b"%PDF", "a PDF")
    is_refused(b"\0\0\0\x18ftypmp42", "a video")
    is_refused(bytes(99), "zeros")
    is_refused(gzip.compress(b"x"), "compressed by gzip")
    is_refused(b"version https://git-lfs.github.com/spec/v1", "git lfs pull")


@row("a file of more than")
def _(tmp_path: Path) -> None:
    assert MAX_BYTES == 512 << 20
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ImageError, match="too large"):
        ImageFile(tmp_path / "a.png", "a.png").read()


@row("a name that `--exclude`")
def _(tmp_path: Path, said: Any) -> None:
    photos(tmp_path, "raw/a.png", "b_small.png", "c.png")
    assert [file.name for file in find_images([tmp_path], ["raw", "*_small.png", "no/thing"])] == ["c.png"]
    assert "1 by --exclude raw; 1 by --exclude *_small.png; nothing by --exclude no/thing" in said.text


@row("a folder with a name")
def _(tmp_path: Path) -> None:
    (line,) = [what for what in ROWS if what.startswith("a folder with a name")]
    named = {name.lower() for name in re.findall("`([^`]+)`", line)}
    assert named == FOLDERS
    assert found(photos(tmp_path, "a.png", ".x/b.png", *(f"{name}/c.png" for name in named))) == ["a.png"]
    assert found(tmp_path / ".x") == ["b.png"]


@row("a file with a name")
def _(tmp_path: Path, said: Any) -> None:
    assert found(photos(tmp_path, "a.png", "._a.png", ".notes")) == ["a.png"]
    assert "1 hidden files" in said.text


@row("videos, archives")
def _(tmp_path: Path, said: Any) -> None:
    assert found(photos(tmp_path, "a.png", "b.mp4", "c.tar", "d")) == ["a.png"]
    for line in ("1 videos", "1 archives: name a .tar itself to take it", "1 files without an extension"):
        assert line in said.text


@row("members of one name")
def _(tmp_path: Path, said: Any) -> None:
    (file,) = find_images([write_shard(tmp_path / "s.tar", [("a.png", png(1)), ("a.png", png(2))])])
    assert file.read()[0] == png(2)
    assert "1 names that a shard has twice" in said.text


@row("a second shard joined")
def _(tmp_path: Path) -> None:
    one = write_shard(tmp_path / "s.tar", [("a.png", png(1))])
    one.write_bytes(one.read_bytes() * 2)
    assert "another shard is joined" in find_images([one])[1].fault


@row("a shard compressed")
def _(tmp_path: Path) -> None:
    write_shard(tmp_path / "s.tar", [("a.png", png(1))])
    (tmp_path / "s.tar.gz").write_bytes(gzip.compress((tmp_path / "s.tar").read_bytes()))
    (file,) = find_images([tmp_path / "s.tar.gz"])
    is_refused(file.read()[0], "a shard is read as .tar")
    for how in (gzip.compress, bz2.compress, lzma.compress):
        (tmp_path / "t.tar").write_bytes(how((tmp_path / "s.tar").read_bytes()))
        assert "compressed by " in find_images([tmp_path / "t.tar"])[0].fault


@row("a `.txt` list")
def _(tmp_path: Path) -> None:
    photos(tmp_path, "a.png", "ü.png")
    wide = "a.png\nü.png\n".encode("utf-16-le")
    for data in ("a.png\r\nü.png".encode(), "a.png\rü.png\r".encode(), BOM_UTF16_LE + wide):
        (tmp_path / "l.txt").write_bytes(data)
        assert found(tmp_path / "l.txt") == ["a.png", "ü.png"]
    (tmp_path / "l.txt").write_bytes(wide)
    with pytest.raises(UsageError, match="no list in UTF-8"):
        found(tmp_path / "l.txt")


@row("`./a.png`")
def _(tmp_path: Path) -> None:
    photos(tmp_path, "a.png", "a/b.png", "c\\d.png", decomposed := unicodedata.normalize("NFD", "ü.png"))
    (tmp_path / "l.txt").write_text("./a.png\na\\b.png\nc\\d.png\nü.png\n", encoding="utf-8")
    assert found(tmp_path / "l.txt") == ["a.png", "a/b.png", "c\\d.png", decomposed]


@row("a `.parquet` list")
def _(tmp_path: Path) -> None:
    photos(tmp_path, "a.png")
    texts = pa.string(), pa.large_string(), pa.string_view(), pa.binary()
    for kind in (*texts, pa.dictionary(pa.int32(), pa.string())):
        pq.write_table(pa.table({"path": pa.array(["a.png"], kind)}), tmp_path / "l.parquet")
        assert found(tmp_path / "l.parquet") == ["a.png"]


@row("a photo that is gone")
def _(tmp_path: Path) -> None:
    photos(tmp_path / "p", "0.png")
    for i in range(1, 4):
        picture(i + 10).save(tmp_path / "p" / f"{i}.png")
    build(tmp_path / "p", tmp_path / "i")
    (tmp_path / "p" / "1.png").unlink()
    (tmp_path / "p" / "2.png").rename(tmp_path / "p" / "moved.png")
    picture(9).save(tmp_path / "p" / "3.png")
    student = OnnxEmbedder(tmp_path / "s.onnx", "cpu")
    options = IndexOptions(update=True)
    report = build_into([tmp_path / "p"], Models(student, None, None), FolderStore(tmp_path / "i"), options)
    assert len(report.store) == 3
    assert "1 image gone, and dropped. Once it is back, --update adds it." in report.notes


@row("files of one content")
def _(tmp_path: Path) -> None:
    made = build(photos(tmp_path / "p", "a.png", "b.png"), tmp_path / "i")
    assert [[file.name for file in item.files] for item in made.items] == [["a.png", "b.png"]]


def joined(tmp_path: Path, text: str, *items: list[str]) -> Metadata:
    (tmp_path / "t.csv").write_text("path,n\n" + text, encoding="utf-8")
    files = [[(f"{tmp_path}/p/{name}", name) for name in names] for names in items]
    return known(files, join_metadata(tmp_path / "t.csv", files).table)


@row("a path relative")
def _(tmp_path: Path) -> None:
    for path in ("p/a.png", "a.png", f"{tmp_path}/p/a.png"):
        assert joined(tmp_path, f"{path},1\n", ["a.png"]).of(0) == {"n": "1"}


@row("`./a/1.jpg`")
def _(tmp_path: Path) -> None:
    for path in ("./a/ü.png", "a\\ü.png", unicodedata.normalize("NFD", "a/ü.png")):
        assert joined(tmp_path, f"{path},1\n", ["a/ü.png"]).of(0) == {"n": "1"}


@row("fields between commas")
def _(tmp_path: Path) -> None:
    for mark in (",", ";", "\t", "|", ", "):
        (tmp_path / "t.csv").write_text(f"path{mark}n{mark}m\na.png{mark}1{mark}2\n")
        table = join_metadata(tmp_path / "t.csv", [[("/p/a.png", "a.png")]]).table.to_pydict()
        assert table == {"path": ["/p/a.png"], "n": ["1"], "m": ["2"]}
    (tmp_path / "t.csv").write_text("Path,n\na.png,1\n")
    with pytest.raises(UsageError, match=r"column `path` .* Its header: Path, n\.$"):
        join_metadata(tmp_path / "t.csv", [[("/p/a.png", "a.png")]])


@row("UTF-8, or UTF-16")
def _(tmp_path: Path) -> None:
    files = [[("/p/ü.png", "ü.png")]]
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "t.csv").write_text("path,n\nü.png,ä\n", encoding=encoding)
        assert join_metadata(tmp_path / "t.csv", files).table["n"].to_pylist() == ["ä"]
    (tmp_path / "t.csv").write_text("path,n\nü.png,ä\n", encoding="latin-1")
    with pytest.raises(UsageError, match=r"no text in UTF-8\. Save it so"):
        join_metadata(tmp_path / "t.csv", files)


@row("a first column without")
def _(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(",path,n,\n0,a.png,1,\n")
    assert join_metadata(tmp_path / "t.csv", [[("/p/a.png", "a.png")]]).table.column_names == ["path", "n"]


@row("a file that is a copy")
def _(tmp_path: Path) -> None:
    metadata = joined(tmp_path, "a.png,A1\nb.png,B2\n", ["a.png", "b.png"])
    assert metadata.of(0) == {"n": "A1; B2"}
    assert [metadata.matches("n", n).tolist() for n in ("A1", "B2", "A1; B2")] == [[True], [True], [False]]


@row("a file that was moved")
def _(tmp_path: Path) -> None:
    photos(tmp_path / "p", "a.png", "b.png")
    (tmp_path / "t.csv").write_text("path,n\na.png,1\nb.png,2\n")
    build(tmp_path / "p", tmp_path / "i", metadata=tmp_path / "t.csv")
    (tmp_path / "p" / "a.png").rename(tmp_path / "p" / "c.png")
    (tmp_path / "p" / "b.png").rename(tmp_path / "p" / "d.png")
    assert build(tmp_path / "p", tmp_path / "i", update=True).metadata_of(0) == {"n": "1; 2"}


@row("a column of numbers")
def _(tmp_path: Path) -> None:
    metadata = joined(tmp_path, "a.png,007\nb.png,8.5\nc.png,\n", ["a.png"], ["b.png"], ["c.png"])
    assert (metadata.columns, metadata.of(0)) == ({"n": ["", "007", "8.5"]}, {"n": "007"})
    assert metadata.matches("n", "<8").tolist() == [True, False, False]
    dates = joined(
        tmp_path, "a.png,2024-05-01\nb.png,2024-05-01T12:00\nc.png,\n", ["a.png"], ["b.png"], ["c.png"]
    )
    assert dates.matches("n", ">2024-05-01").tolist() == [False, True, False]


@row("a column with one value")
def _(tmp_path: Path) -> None:
    metadata = joined(tmp_path, "a.png,7\nb.png,n/a\n", ["a.png"], ["b.png"])
    assert metadata.matches("n", "7,n/a").tolist() == [True, True]
    with pytest.raises(UsageError, match="the column has 'n/a', which is no number"):
        metadata.matches("n", "<8")


@row("a path that no file has")
def _(tmp_path: Path, said: Any) -> None:
    (tmp_path / "t.csv").write_text("path,n\na.png,1\ngone.png,2\n")
    build(photos(tmp_path / "p", "a.png"), tmp_path / "i", metadata=tmp_path / "t.csv")
    assert "1 row without an image, 0 images without a row" in said.text


@row("a name that several images share")
def _(tmp_path: Path) -> None:
    files = [[("/x/1.png", "1.png")], [("/y/1.png", "1.png")]]
    for text, reason in (("1.png,a\n", "may be /x/1.png or /y/1.png"), ("/x/1.png,a\n" * 2, "two rows")):
        (tmp_path / "t.csv").write_text("path,n\n" + text)
        with pytest.raises(UsageError, match=reason):
            join_metadata(tmp_path / "t.csv", files)

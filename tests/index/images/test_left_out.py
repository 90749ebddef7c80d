import logging
from pathlib import Path

import pytest
from conftest import png, write_shard
from PIL import Image

from index.errors import UsageError
from index.images import left_out
from index.images.decode import FORMATS
from index.images.left_out import EXTENSIONS, HEIC, LeftOut
from index.images.sources import find_images


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "retrieval")
    return caplog


def photos(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png(1))
    return root


def found(*sources: Path) -> list[str]:
    return [file.name for file in find_images(list(sources))]


@pytest.fixture
def without_heic(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is so where pillow-heif is not installed."""
    monkeypatch.setattr(left_out, "reads_heic", lambda: False)


HIDDEN = ["@eaDir/a.png/THUMB.png", ".Trash-1000/files/b.png", ".thumbnails/c.png", "#recycle/d.png"]


def test_hidden_files_thumbnails_and_trash_are_left_out_and_counted(tmp_path: Path, said):
    photos(tmp_path, "a.png", "sub/b.png", *HIDDEN, "__MACOSX/e.png", "sub/Thumbnails/f.png", "._a.png")
    assert found(tmp_path) == ["a.png", "sub/b.png"]
    (line,) = said.messages
    assert "6 folders (" in line
    assert "1 hidden files" in line


def test_a_hidden_folder_that_is_named_itself_is_taken(tmp_path: Path, said):
    photos(tmp_path, *HIDDEN)
    assert found(tmp_path / ".thumbnails") == ["c.png"]
    assert not said.messages


@pytest.mark.parametrize(
    "name", ["thumbnail.png", "trash/a.png", "a.b/c.png", "eaDir/a.png", "my thumbs/a.png"]
)
def test_names_that_only_look_alike_are_taken(tmp_path: Path, name: str):
    assert found(photos(tmp_path, name)) == [name]


@pytest.mark.usefixtures("without_heic")
def test_photos_of_formats_that_are_not_read_are_counted(tmp_path: Path, said):
    photos(tmp_path, "a.png", "IMG_1.HEIC", "IMG_2.heic", "b.jxl", "c.dng", "d.svg", "notes.md")
    assert found(tmp_path) == ["a.png"]
    (line,) = said.messages
    assert "5 files of formats that are not read (2 .heic, 1 .jxl, 1 .dng, 1 .svg)" in line
    assert line.endswith("convert them, or install pillow-heif, which reads HEIC")


@pytest.mark.usefixtures("without_heic")
def test_a_folder_of_nothing_else_says_why_it_has_no_image(tmp_path: Path):
    with pytest.raises(UsageError, match=r"not read \(1 \.heic\)"):
        find_images([photos(tmp_path, "IMG_1.HEIC")])


@pytest.mark.usefixtures("without_heic")
def test_a_shard_is_chosen_from_as_a_folder_is(tmp_path: Path, said):
    names = ["./0.png", "._0.png", "1.heic", "2.png", "2.png", "2.json", "2.json"]
    names += ["__MACOSX/0.png", "__MACOSX/1.png", "__MACOSX/more/2.png"]
    shard = write_shard(tmp_path / "a.tar", [(name, png(1)) for name in names])
    assert found(shard) == ["a.tar/0.png", "a.tar/2.png"]
    (line,) = said.messages
    for part in ("1 .heic", "1 __MACOSX", "1 hidden files", "1 names that a shard has twice"):
        assert part in line


def test_shards_that_were_joined_are_said_to_be(tmp_path: Path):
    first, second = (write_shard(tmp_path / f"{n}.tar", [(f"{n}.png", png(1))]) for n in "ab")
    first.write_bytes(first.read_bytes() + second.read_bytes())
    files = find_images([first])
    assert [file.name for file in files] == ["a.tar/a.png", "a.tar"]
    assert "another shard is joined" in files[1].fault


def test_the_most_frequent_are_named(tmp_path: Path):
    left = LeftOut()
    for name in "abcdefgh":
        left.takes_folder(f".{name}")
    assert str(left).startswith("8 folders (1 .a, 1 .b, 1 .c, 1 .d, 1 .e, 1 .f, ...)")


EXCLUDED = ["a.png", "a_small.png", "raw/b.png", "sub/raw/c.png", "sub/d.png", "sub/deep/e_small.png"]


@pytest.mark.parametrize(
    ("patterns", "kept", "counts"),
    [
        (["*_small.png"], ["a.png", "raw/b.png", "sub/d.png", "sub/raw/c.png"], [2]),
        (["raw"], ["a.png", "a_small.png", "sub/d.png", "sub/deep/e_small.png"], [2]),
        (["raw/"], ["a.png", "a_small.png", "sub/d.png", "sub/deep/e_small.png"], [2]),
        (["sub/*"], ["a.png", "a_small.png", "raw/b.png"], None),
        (["./sub/raw"], ["a.png", "a_small.png", "raw/b.png", "sub/d.png", "sub/deep/e_small.png"], [1]),
        (["raw", "?.png"], ["a_small.png", "sub/deep/e_small.png"], [2, 2]),
        (["raw", "?.png", "raw"], ["a_small.png", "sub/deep/e_small.png"], [2, 2]),
        (["RAW", "d.pn"], None, ["nothing", "nothing"]),
    ],
)
@pytest.mark.parametrize("kind", ["folder", "shard", "list"])
def test_what_is_excluded_is_counted_and_so_is_what_matches_nothing(
    tmp_path: Path, said, kind: str, patterns: list[str], kept: list[str] | None, counts: list | None
):
    root = photos(tmp_path / "root", *EXCLUDED)
    if kind == "shard":
        root = write_shard(tmp_path / "s.tar", [(name, png(1)) for name in sorted(EXCLUDED)])
    elif kind == "list":
        (root / "list.txt").write_text("\n".join(sorted(EXCLUDED)))
        root = root / "list.txt"
    names = [file.name.removeprefix("s.tar/") for file in find_images([root], patterns)]
    assert sorted(names) == (sorted(EXCLUDED) if kept is None else kept)
    (line,) = said.messages
    for pattern, count in zip(patterns, counts or (), strict=False):
        assert f"{count} by --exclude {pattern}" in line


def test_a_photo_that_is_named_itself_is_taken_whatever_is_excluded(tmp_path: Path):
    photos(tmp_path, "a.png")
    assert [file.name for file in find_images([tmp_path / "a.png"], ["*.png"])] == ["a.png"]
    with pytest.raises(UsageError, match=r"No image in .* Left out: 1 by --exclude \*\.png"):
        find_images([tmp_path], ["*.png"])


@pytest.mark.parametrize("kind", ["folder", "shard"])
def test_videos_archives_and_files_without_an_extension_are_counted(tmp_path: Path, said, kind: str):
    names = ["a.png", "clip.MOV", "b.mp4", "more.tar", "c.tar.gz", "d.zip", "photo", ".hidden", "notes.txt"]
    source = photos(tmp_path / "root", *names)
    if kind == "shard":
        source = write_shard(tmp_path / "s.tar", [(name, png(1)) for name in names])
    assert len(found(source)) == 1
    (line,) = said.messages
    parts = "2 videos", "3 archives: name a .tar itself to take it", "1 files without an extension"
    assert sorted(line.removeprefix("left out: ").split("; ")) == sorted(parts)


def test_all_extensions_are_taken_that_pillow_knows_of_the_formats():
    known = {name for name, kind in Image.registered_extensions().items() if kind in FORMATS}
    assert known <= EXTENSIONS | HEIC

import contextlib
import copy
import os
import socket
import tarfile
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import png, write_shard
from hypothesis import strategies as st

from index.build.pipeline import build_index
from index.embedders.onnx import OnnxEmbedder
from index.errors import ImageError, UsageError
from index.images.decode import read_photo
from index.images.file import ImageFile
from index.images.listing import facts_of
from index.images.sources import find_images, image_at
from index.stores.options import IndexOptions

ODD_NAMES = [
    b"plain.png",
    b"two words .png",
    b"line\nbreak.png",
    "\N{SMILING FACE WITH SUNGLASSES}.png".encode(),
    b"latin-\xe9\xff.png",
    b"100%25.png",
    b"file:__x.png",
    b"-rf.png",
    b"quote'\"\\.png",
]


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    samples = [
        (f"{i:04}.{kind}", png(i) if kind == "png" else b"{}") for i in range(5) for kind in ("json", "png")
    ]
    return write_shard(tmp_path / "a.tar", samples)


@pytest.fixture
def readers_folder() -> Iterator[Path]:
    """A folder, and a user who is bound by permissions: root may read everything."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o777)
        if is_root := os.geteuid() == 0:
            os.seteuid(65534)
        yield root
        if is_root:
            os.seteuid(0)
        for folder in root.iterdir():
            folder.chmod(0o777)


def open_ended(shard: Path) -> bytes:
    """A shard without the mark of its end, for more to follow."""
    with tarfile.open(shard) as tar:
        last = tar.getmembers()[-1]
    return shard.read_bytes()[: last.offset_data - (-last.size // 512 * 512)]


def refused(file: ImageFile) -> str:
    with pytest.raises(ImageError) as error:
        file.read()
    return str(error.value)


def names(*sources: Path) -> list[str]:
    return [file.name for file in find_images(list(sources))]


def test_the_listing_is_a_sequence_like_any_other(folder: Path, shard: Path):
    files = find_images([folder, shard])
    assert len(files) == 17
    assert [file.name for file in files] == [files[i].name for i in range(17)]
    assert files[-1] == files[16] == files[10:][6]
    assert files[3] in files
    assert list(copy.deepcopy(files)) == list(files)  # it can be handed on
    with pytest.raises(IndexError):
        files[17]


def test_facts_are_those_of_each_file_whatever_it_is(folder: Path, shard: Path):
    for name in (b"odd \xff.png", "ünlich.png".encode()):
        (folder / os.fsdecode(name)).write_bytes(png(1))
    (folder / "nothing.png").symlink_to(folder / "is not here")
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    files = find_images([folder, shard])
    facts = list(facts_of(files))
    assert facts == [next(facts_of([file])) for file in files]
    sizes = {name: size for _, name, size, _ in facts}
    assert sizes["nothing.png"] == sizes["pipe.png"] == -1
    assert sizes[r"odd \xff.png"] == len(png(1))


@pytest.mark.parametrize("year", [1600, 2400])
def test_a_file_of_another_century_is_indexed(folder: Path, student_file: Path, tmp_path: Path, year: int):
    """Disks take times that neither SQLite nor Arrow does."""
    seconds = (year - 1970) * 365 * 86400
    os.utime(folder / "3.png", (seconds, seconds))
    student = OnnxEmbedder(student_file)
    made = build_index([folder], student, tmp_path / "idx")
    assert len(made) == 12
    assert (
        build_index([folder], student, tmp_path / "idx", options=IndexOptions(update=True)).data == made.data
    )


def test_a_text_list_is_relative_to_its_folder(folder: Path, tmp_path: Path):
    listed = tmp_path / "list.txt"
    listed.write_bytes(
        b"\xef\xbb\xbfimages/3.png\r\n\nimages/more/10.jpg\n"
        + os.fsencode(folder / "1.png")
        + b"\nimages/3.png"
    )
    files = find_images([listed])
    assert [file.path for file in files] == [folder / "3.png", folder / "more" / "10.jpg", folder / "1.png"]
    assert all(read_photo(file).width == 48 for file in files)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_a_list_may_be_written_elsewhere(folder: Path, tmp_path: Path, encoding: str):
    text = "./images/3.png\r\nimages\\more\\10.jpg\r\nimages/3.png\r\n"
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    (tmp_path / "list.txt").write_bytes((mark + text).encode(encoding))
    assert names(tmp_path / "list.txt") == ["images/3.png", "images/more/10.jpg"]


def test_a_name_that_has_a_backslash_is_taken_as_it_is(tmp_path: Path):
    (tmp_path / "a\\b.png").write_bytes(png(1))
    (tmp_path / "list.txt").write_text("a\\b.png\n")
    assert names(tmp_path / "list.txt") == ["a\\b.png"]


def test_a_list_of_half_a_letter_is_a_usage_error(tmp_path: Path):
    (tmp_path / "list.txt").write_bytes("\ufeffa.png".encode("utf-16-le") + b"\0")
    with pytest.raises(UsageError, match="neither UTF-8 nor whole UTF-16"):
        find_images([tmp_path / "list.txt"])


@pytest.mark.parametrize("stored", ["NFC", "NFD"])
@pytest.mark.parametrize("written", ["NFC", "NFD"])
def test_a_list_may_write_accents_and_slashes_otherwise(tmp_path: Path, stored: str, written: str):
    name = unicodedata.normalize(stored, "ü/é.png")
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_bytes(png(1))
    asked = unicodedata.normalize(written, "ü\\é.png")
    (tmp_path / "list.txt").write_text(f"./{asked}\n{asked}\ngone/é.png\n", encoding="utf-8")
    files = find_images([tmp_path / "list.txt"])
    assert [file.name for file in files] == [name, "gone/é.png"]
    assert files[0].read()[0] == png(1)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_of_a_list_end_as_any_system_ends_them(folder: Path, tmp_path: Path, end: str):
    (tmp_path / "list.txt").write_bytes(f"images/0.png{end}images/1.png{end}".encode())
    assert names(tmp_path / "list.txt") == ["images/0.png", "images/1.png"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_a_list_in_utf_16_without_its_mark_is_a_usage_error(tmp_path: Path, encoding: str):
    (tmp_path / "list.txt").write_text("a.png\n", encoding=encoding)
    with pytest.raises(UsageError, match="no list in UTF-8, or in UTF-16 with its mark"):
        find_images([tmp_path / "list.txt"])


@pytest.mark.parametrize(
    "kind",
    [pa.large_string(), pa.string_view(), pa.binary(), pa.dictionary(pa.int32(), pa.string())],
    ids=str,
)
def test_a_parquet_list_may_store_its_texts_in_other_ways(folder: Path, tmp_path: Path, kind: pa.DataType):
    column = pa.array(["images/0.png", None, "images/2.png"], pa.string()).cast(kind)
    pq.write_table(pa.table({"path": column}), tmp_path / "list.parquet")
    assert names(tmp_path / "list.parquet") == ["images/0.png", "images/2.png"]


def test_what_a_list_names_and_is_not_there_is_refused_in_its_place(folder: Path, tmp_path: Path):
    (tmp_path / "list.txt").write_text("images/3.png\ngone.png\nimages\nnul\0.png\n")
    files = find_images([tmp_path / "list.txt"])
    assert len(files) == 4
    assert "No such file" in refused(files[1])
    assert refused(files[2]) == "a folder, not a file"
    assert "null" in refused(files[3])


@pytest.mark.parametrize("column", ["path", "image"])
def test_a_parquet_list_has_a_column_of_paths(folder: Path, tmp_path: Path, column: str):
    table = pa.table({column: ["images/0.png", None, "images/2.png"], "size": [1, 2, 3]})
    pq.write_table(table, tmp_path / "list.parquet")
    assert names(tmp_path / "list.parquet") == ["images/0.png", "images/2.png"]


def test_an_empty_source_is_not_the_folder_at_hand(folder: Path, monkeypatch):
    monkeypatch.chdir(folder)
    assert len(find_images(["."])) == 12
    with pytest.raises(UsageError, match="empty text"):
        find_images([""])


def test_lists_that_are_none_are_usage_errors(tmp_path: Path):
    pq.write_table(pa.table({"a": ["x"], "b": ["y"]}), tmp_path / "two.parquet")
    pq.write_table(pa.table({"path": [1]}), tmp_path / "numbers.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    os.mkfifo(tmp_path / "pipe.txt")
    os.mkfifo(tmp_path / "pipe.parquet")
    for name, message in [
        ("two.parquet", r"needs a column 'path' .* It has a \(string\), b \(string\)"),
        ("numbers.parquet", r"It has path \(int64\)"),
        ("broken.parquet", "cannot be read"),
        ("pipe.txt", "a pipe"),
        ("pipe.parquet", "a pipe"),
    ]:
        with pytest.raises(UsageError, match=message):
            find_images([tmp_path / name])


def test_members_of_a_shard_are_read_in_place(shard: Path):
    files = find_images([shard])
    assert [file.name for file in files] == [f"a.tar/{i:04}.png" for i in range(5)]
    for i, file in enumerate(files):
        assert file.read() == (png(i), shard.stat().st_mtime_ns)
        assert file.status() == (len(png(i)), shard.stat().st_mtime_ns)


def test_shards_stand_in_lists_but_are_not_looked_into_in_folders(shard: Path, tmp_path: Path):
    (tmp_path / "x.png").write_bytes(png(9))
    (tmp_path / "list.txt").write_text("a.tar\nx.png\nlost.tar\n")
    files = find_images([tmp_path / "list.txt"])
    assert [file.name for file in files] == [*(f"a.tar/{i:04}.png" for i in range(5)), "x.png", "lost.tar"]
    assert "No such file" in refused(files[6])
    assert names(tmp_path) == ["x.png"]


def test_what_a_shard_of_any_name_lacks_is_refused_in_text(shard: Path, tmp_path: Path, student_file: Path):
    shard.rename(tmp_path / os.fsdecode(b"\xff.tar"))
    (tmp_path / "list.txt").write_bytes(b"\xff.tar/0001.png\n\xff.tar/lost.png\n")
    made = build_index([tmp_path / "list.txt"], OnnxEmbedder(student_file), tmp_path / "idx")
    assert [item.name for item in made.items] == [r"\xff.tar/0001.png"]
    assert [failure.reason for failure in made.failures] == [r"\xff.tar has no such file"]


def test_the_last_of_several_members_of_one_name_counts_as_when_unpacked(tmp_path: Path):
    shard = write_shard(tmp_path / "a.tar", [("./x.png", png(1)), ("y.png", png(2)), ("x.png", png(3))])
    files = find_images([shard])
    assert [file.name for file in files] == ["a.tar/x.png", "a.tar/y.png"]
    assert files[0].read()[0] == png(3)


@pytest.mark.parametrize("how", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_in_a_shard_are_only_names(tmp_path: Path, how: int):
    (tmp_path / "secret.png").write_bytes(png(7))
    odd = [
        "../secret.png",
        "/etc/passwd.png",
        "a/../../secret.png",
        "x" * 300 + ".png",
        "line\nbreak.png",
        "\udce9.png",
    ]
    shard = write_shard(tmp_path / "a.tar", [(name, png(i)) for i, name in enumerate(odd)], format=how)
    files = find_images([shard])
    assert [file.read()[0] for file in files] == [png(i) for i in range(len(odd))]
    for i, file in enumerate(files):
        file.location.encode()
        assert image_at(file.location, file.name).read()[0] == png(i)
        assert not file.path.exists()


def test_a_link_in_a_shard_is_refused(tmp_path: Path):
    (tmp_path / "secret.png").write_bytes(png(7))
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        entry = tarfile.TarInfo("x.png")
        entry.type, entry.linkname = tarfile.SYMTYPE, str(tmp_path / "secret.png")
        tar.addfile(entry)
    (file,) = find_images([tmp_path / "a.tar"])
    assert "a link" in refused(file)
    assert "a link" in refused(image_at(file.location, file.name))


def test_what_is_left_of_a_broken_shard_is_read_and_the_rest_is_said(shard: Path, tmp_path: Path):
    whole = shard.read_bytes().rstrip(b"\0")  # the end of a tar file is padding
    for tenth in range(10):
        broken = tmp_path / f"cut-{tenth}.tar"
        broken.write_bytes(whole[: len(whole) * tenth // 10])
        files = find_images([broken])
        faults = [file for file in files if file.fault]
        readable = [i for i, file in enumerate(files) if not file.fault]
        assert [file.path for file in faults] == [broken]
        assert refused(files[-1])
        for i in readable:
            try:
                assert files[i].read()[0] == png(i)
            except ImageError as reason:
                assert i == readable[-1] and "ends within" in str(reason)


def test_a_shard_broken_in_the_middle_says_so(shard: Path):
    data = bytearray(shard.read_bytes())
    with tarfile.open(shard) as tar:
        third = tar.getmembers()[5].offset
    data[third : third + 400] = b"\xff" * 400
    shard.write_bytes(data)
    files = find_images([shard])
    assert [bool(file.fault) for file in files] == [False, False, True]


@pytest.mark.parametrize(
    ("kind", "size"),
    [(b"0", -1024), (b"0", -1), (b"0", 1 << 70), (b"x", -512), (b"x", 1 << 40), (b"L", 1 << 40)],
)
def test_sizes_that_would_go_round_for_ever_or_fill_the_memory_end_a_shard(
    shard: Path, kind: bytes, size: int
):
    entry = tarfile.TarInfo("x.png")
    entry.type, entry.size = kind, size
    shard.write_bytes(open_ended(shard) + entry.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    files = find_images([shard])
    assert [file.name for file in files][:5] == [f"a.tar/{i:04}.png" for i in range(5)]
    assert len(files) <= 7
    assert refused(files[-1])


@hypothesis.settings(max_examples=60)
@hypothesis.given(
    st.lists(st.tuples(st.integers(0, 40_000), st.binary(min_size=1, max_size=24)), min_size=1, max_size=4)
)
def test_whatever_bytes_a_shard_has_its_listing_ends_and_its_members_are_read_or_refused(changes):
    with tempfile.TemporaryDirectory() as name:
        shard = write_shard(Path(name) / "a.tar", [(f"{i}.png", bytes(600 * i)) for i in range(9)])
        data = bytearray(shard.read_bytes())
        for at, noise in changes:
            start = at % len(data)
            data[start : start + len(noise)] = noise
        shard.write_bytes(data)
        try:
            files = find_images([shard])
        except UsageError:  # every name has lost its extension
            return
        assert len(files) <= 10
        for file in files:
            with contextlib.suppress(ImageError):
                file.read()


def test_compressed_and_other_files_are_no_shards(tmp_path: Path):
    write_shard(tmp_path / "x", [("a.png", png(1))])
    with tarfile.open(tmp_path / "gz.tar", "w:gz") as tar:
        tar.add(tmp_path / "x")
    (tmp_path / "noise.tar").write_bytes(os.urandom(5000))
    os.mkfifo(tmp_path / "pipe.tar")
    files = find_images([tmp_path / name for name in ("gz.tar", "noise.tar", "pipe.tar")])
    assert [file.name for file in files] == ["gz.tar", "noise.tar", "pipe.tar"]
    assert all(file.fault for file in files)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_every_name_survives_as_text(tmp_path: Path, name: bytes):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    path.write_bytes(png(1))
    (file,) = find_images([tmp_path])
    assert file.path == path
    table = pa.table({"path": [file.location], "name": [file.name]})
    pq.write_table(table, tmp_path / "items.parquet")
    (row,) = pq.read_table(tmp_path / "items.parquet").to_pylist()
    again = image_at(row["path"], row["name"])
    assert again == file
    assert again.read()[0] == png(1)
    assert find_images([tmp_path / "items.parquet"])[0].path == path


def test_an_item_of_a_shard_is_found_again_after_the_shard_was_written_anew(shard: Path):
    file = find_images([shard])[3]
    assert image_at(file.location, file.name).read()[0] == png(3)
    write_shard(shard, [("other.png", png(8)), ("0003.png", png(9))])
    os.utime(shard, ns=(0, 0))
    assert image_at(file.location, file.name).read()[0] == png(9)
    write_shard(shard, [("other.png", png(8))])
    assert "has no such file" in refused(image_at(file.location, file.name))
    shard.unlink()
    assert "No such file" in refused(image_at(file.location, file.name))


def test_nothing_waits_for_pipes_sockets_and_devices(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    socket.socket(socket.AF_UNIX).bind("socket.jpg")
    os.mkfifo("pipe.jpg")
    (tmp_path / "null.jpg").symlink_to("/dev/null")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "broken.jpg").symlink_to("nowhere")
    (tmp_path / "fault.jpg").symlink_to("/proc/self/mem")  # a file that opens, and whose reading fails
    reasons = {file.name: refused(file) for file in find_images([tmp_path])}
    assert reasons == {
        "broken.jpg": "No such file or directory",
        "fault.jpg": "Input/output error",
        "loop.jpg": "Too many levels of symbolic links",
        "null.jpg": "a device, not a file",
        "pipe.jpg": "a pipe, not a file",
        "socket.jpg": "a socket, not a file",
        "zero.jpg": "a device, not a file",
    }


def test_a_folder_that_cannot_be_looked_into_is_refused(readers_folder: Path):
    for name in ("open", "closed"):
        (readers_folder / name).mkdir()
        (readers_folder / name / "x.png").write_bytes(png(1))
    (readers_folder / "y.png").write_bytes(png(2))
    (readers_folder / "y.png").chmod(0)
    (readers_folder / "closed").chmod(0)
    files = find_images([readers_folder])
    assert [file.name for file in files] == ["y.png", "open/x.png", "closed"]
    assert refused(files[0]) == "Permission denied"
    assert refused(files[2]) == "folder: Permission denied"
    with pytest.raises(UsageError, match=r"closed cannot be read: Permission denied\. An update would take"):
        find_images([readers_folder], whole=True)


def test_a_shard_that_cannot_be_opened_is_not_taken_for_empty(readers_folder: Path):
    shard = write_shard(readers_folder / "a.tar", [("0.png", png(0))])
    shard.chmod(0)
    assert refused(image_at(f"{shard}/0.png", "a.tar/0.png")) == "Permission denied"
    with pytest.raises(UsageError, match=r"a\.tar cannot be read: Permission denied\. An update would take"):
        find_images([shard], whole=True)


def test_an_update_needs_a_shard_to_its_end_but_not_what_is_joined_to_it(shard: Path, tmp_path: Path):
    cut, joined = tmp_path / "cut.tar", tmp_path / "joined.tar"
    cut.write_bytes(shard.read_bytes()[:3000])
    joined.write_bytes(shard.read_bytes() + shard.read_bytes())
    assert len(find_images([joined], whole=True)) == 6
    with pytest.raises(UsageError, match=r"cut\.tar cannot be read: broken shard: .*\. An update would"):
        find_images([cut], whole=True)
    assert "broken shard" in refused(image_at(f"{cut}/0004.png", "cut.tar/0004.png"))

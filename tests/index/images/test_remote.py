"""Images at addresses: in fsspec's memory, and on a web server of this machine."""

import io
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import png, write_shard
from web_site import Site

from index.build.pipeline import build_by_name, build_index
from index.build.ray import as_text, from_text
from index.build.rewrite import compact_index
from index.embedders.onnx import OnnxEmbedder
from index.errors import ImageError, RetrievalError, UsageError
from index.images import listing
from index.images.decode import read_photo
from index.images.remote import PACKAGES, check, is_address, lies_below
from index.images.sources import find_images, image_at
from index.stores.folder import Index
from index.stores.options import IndexOptions
from index.stores.writing.store import FolderStore
from index.teachers.spec import TeacherSpec

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")


@pytest.fixture
def store() -> Iterator:
    """A store whose objects live in this process alone."""
    memory = fsspec.filesystem("memory")
    yield memory
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


def shard_of(tmp_path: Path, seeds: range) -> bytes:
    return write_shard(tmp_path / "some.tar", [(f"{i:02}.png", png(i)) for i in seeds]).read_bytes()


@pytest.fixture
def shards(store, tmp_path: Path) -> str:
    """Three shards of three images each."""
    for i in range(3):
        store.pipe(f"/photos/shard-{8 + i:02}.tar", shard_of(tmp_path, range(3 * i, 3 * i + 3)))
    return "memory://photos/shard-{08..10}.tar"


def test_shards_at_addresses_are_the_shards_that_lie_here(shards: str, tmp_path: Path):
    files = find_images([shards])
    assert [file.name for file in files] == [f"shard-{8 + i // 3:02}.tar/{i:02}.png" for i in range(9)]
    for i, file in enumerate(files):
        data, changed = file.read()
        assert data == png(i)
        assert file.status() == (len(data), changed)
        again = image_at(file.location, file.name, ["memory://photos"])
        assert (again.read(), again.status()) == ((data, changed), file.status())
    assert from_text(as_text(files[4])) == files[4]


@pytest.mark.parametrize("expanded", [False, True])
def test_addresses_beside_each_other_are_asked_about_together(shards: str, monkeypatch, expanded: bool):
    """Whether we write out the numbers or a shell has."""
    together, ask = threading.Barrier(3), listing.ask

    def ask_with_others(address: str) -> tuple[int, int]:
        together.wait(20)
        return ask(address)

    monkeypatch.setattr(listing, "ask", ask_with_others)
    assert len(find_images([*listing.expand(shards)] if expanded else [shards])) == 9


def test_a_range_without_end_is_refused_at_once(store):
    with pytest.raises(
        UsageError, match=r"^\{0\.\.99999999999\} names 100,000,000,000 addresses\. Name at most"
    ):
        find_images(["memory://photos/{1..2}-{0..99999999999}.tar"])


def test_lists_name_images_and_shards_beside_them_and_elsewhere(
    store, site: Site, shards: str, tmp_path: Path
):
    store.pipe("/photos/one.png", png(20))
    site.files["/two.png"] = png(21)
    names = ["one.png", "shard-08.tar", f"{site.address}/two.png", "gone.png", "one.png"]
    store.pipe("/photos/list.txt", "\n".join(names).encode())
    parquet = io.BytesIO()
    pq.write_table(pa.table({"path": names}), parquet)
    store.pipe("/photos/list.parquet", parquet.getvalue())
    for kind in ("txt", "parquet"):
        files = find_images([f"memory://photos/list.{kind}"])
        assert [file.name for file in files] == [
            "one.png", *(f"shard-08.tar/{i:02}.png" for i in range(3)), names[2], "gone.png"
        ]  # fmt: skip
        assert [files[i].read()[0] for i in (0, 1, 4)] == [png(20), png(0), png(21)]
        with pytest.raises(ImageError, match="no such object"):
            files[5].read()
    (tmp_path / "here.png").write_bytes(png(22))
    (tmp_path / "mixed.txt").write_text(f"here.png\nmemory://photos/one.png\nfile://{tmp_path}/here.png\n")
    assert [file.read()[0] for file in find_images([tmp_path / "mixed.txt"])] == [png(22), png(20)]
    assert find_images([f"file://{tmp_path}/here.png"])[0].read()[0] == png(22)


def test_an_index_of_addresses_is_that_of_the_files_and_is_brought_up_to_date(
    store, shards: str, student_file: Path, tmp_path: Path
):
    student = OnnxEmbedder(student_file)
    (tmp_path / "here").mkdir()
    for i in range(9):
        (tmp_path / "here" / f"{i:02}.png").write_bytes(png(i))
    here = build_index([tmp_path / "here"], student, tmp_path / "a")
    there = build_index([shards], student, tmp_path / "b")
    assert there.manifest.sources == [shards]
    assert [item.digest for item in there.items] == [item.digest for item in here.items]
    assert np.array_equal(there.vectors("student"), here.vectors("student"))
    seen = []
    student.prepare = lambda photo: seen.append(photo.name) or OnnxEmbedder.prepare(student, photo)
    assert (
        build_index([shards], student, tmp_path / "b", options=IndexOptions(update=True)).manifest.generation
        == 1
    )
    assert seen == []
    store.pipe("/photos/shard-09.tar", shard_of(tmp_path, range(4, 8)))  # one gone, one new
    updated = build_index([shards], student, tmp_path / "b", options=IndexOptions(update=True))
    assert seen == []  # 6 and 7 were known by their content, from shard-10
    assert len(updated) == 8
    store.pipe("/photos/shard-09.tar", shard_of(tmp_path, range(50, 51)))
    build_index([shards], student, tmp_path / "b", options=IndexOptions(update=True))
    assert seen == ["shard-09.tar/50.png"]
    compact_index(tmp_path / "b")
    assert len(Index(tmp_path / "b")) == 7  # nobody was asked whether they are still there


def test_a_member_costs_one_request_of_its_bytes_and_a_shard_of_large_ones_is_not_read_whole(
    site: Site, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr("index.images.remote.BLOCK", 1024)
    members = [(f"{i}.png", png(i) + bytes(20_000)) for i in range(5)]
    site.files["/large.tar"] = write_shard(tmp_path / "large.tar", members).read_bytes()
    files = find_images([f"{site.address}/large.tar"])
    asked = [re.fullmatch(r"bytes=(\d+)-(\d+)", wanted) for *_, wanted in site.asked]
    assert sum(int(span[2]) + 1 - int(span[1]) for span in asked if span) < len(site.files["/large.tar"]) / 4
    site.asked.clear()
    assert files[3].read()[0] == members[3][1]
    first = files[3].member.offset
    assert site.asked == [("GET", "/large.tar", f"bytes={first}-{first + len(members[3][1]) - 1}")]
    site.ranges = False
    with pytest.raises(ImageError, match="sends no parts"):
        files[3].read()
    with pytest.raises(UsageError, match=r"large\.tar cannot be read: .*"):
        find_images([f"{site.address}/large.tar"])


@pytest.mark.parametrize(("heads", "ranges"), [(True, False), (False, False), (False, True)])
def test_a_shard_whose_length_is_not_told_is_read_in_parts_or_refused_in_one_line(
    site: Site, tmp_path: Path, monkeypatch, heads: bool, ranges: bool
):
    monkeypatch.setattr("index.images.remote.BLOCK", 1024)
    members = [(f"{i}.png", png(i) + bytes(20_000)) for i in range(3)]
    site.files["/large.tar"] = write_shard(tmp_path / "large.tar", members).read_bytes()
    site.lengths, site.heads, site.ranges = not heads, heads, ranges
    if ranges:
        assert [file.read()[0] for file in find_images([f"{site.address}/large.tar"])] == [
            data for _, data in members
        ]
    else:
        with pytest.raises(UsageError, match=r"large\.tar cannot be read: the web server sends no parts"):
            find_images([f"{site.address}/large.tar"])


def test_an_empty_shard_is_named(site: Site):
    site.files["/empty.tar"] = b""
    (file,) = find_images([f"{site.address}/empty.tar"])
    with pytest.raises(ImageError, match="broken shard: empty file"):
        file.read()


def test_a_proxy_of_the_environment_is_asked_but_not_about_this_machine(site: Site, monkeypatch):
    elsewhere = "http://photos.example/a.png"
    site.files |= {elsewhere: png(1), "/a.png": png(2)}
    monkeypatch.setenv("HTTP_PROXY", site.address)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert find_images([elsewhere])[0].read()[0] == png(1)
    assert {path for _, path, _ in site.asked} == {elsewhere}
    assert find_images([f"{site.address}/a.png"])[0].read()[0] == png(2)
    assert {path for _, path, _ in site.asked} == {elsewhere, "/a.png"}


def test_a_web_server_that_sends_more_than_it_said_is_cut_short(site: Site, monkeypatch):
    site.files["/grows.png"] = png(1)
    (file,) = find_images([f"{site.address}/grows.png"])
    site.files["/grows.png"] += bytes(5_000_000)
    site.ranges = False
    assert len(file.read()[0]) == len(png(1))


@pytest.mark.parametrize("name", ["gone.tar", "gone.png", "gone.txt"])
def test_what_is_named_itself_has_to_be_there(store, site: Site, name: str):
    store.pipe("/photos/a.png", png(1))
    for address in (f"memory://photos/{name}", f"{site.address}/{name}"):
        with pytest.raises(UsageError, match=f"^{re.escape(address)} cannot be read: .*(no such|Not Found)"):
            find_images([address])


def test_a_shard_that_a_list_names_and_that_is_gone_ends_the_run(store):
    store.pipe("/photos/list.txt", b"gone.tar")
    with pytest.raises(UsageError, match=r"gone\.tar cannot be read"):
        find_images(["memory://photos/list.txt"])


def test_a_store_that_fails_ends_the_run_and_refuses_no_image(store, shards: str, monkeypatch):
    files = find_images([shards])

    def fail(*args: object, **options: object) -> None:
        raise OSError("Unable to locate credentials")

    monkeypatch.setattr(type(store), "cat_file", fail)
    with pytest.raises(
        RetrievalError, match=r"shard-08\.tar cannot be read: .*Unable.*credentials"
    ) as caught:
        read_photo(files[0])
    assert not isinstance(caught.value, ImageError)
    monkeypatch.setattr("fsspec.implementations.memory.MemoryFile.read", fail)
    with pytest.raises(RetrievalError, match="Unable to locate") as caught:
        find_images([shards])
    assert not isinstance(caught.value, ImageError)


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("ftp://user:word@host/a.tar", "is not read"),
        ("HTTP://host/a.tar", "is not read"),
        ("http://[host/a.tar", "no address that can be read"),
        ("http://user:word@[host/a.tar?token=word", "no address that can be read"),
        ("tar://a.png::memory://photos/a.tar", "is not read"),
        ("s3://bucket/a::file:///etc/passwd", "is not read"),
        ("simplecache::s3://bucket/a.tar", "does not exist"),
        ("https://user:word@host/a.tar", "no password"),
        ("https://host/a.tar?X-Amz-Signature=1", "no password and no X-Amz-Signature"),
        ("s3:///a.tar", "names nothing"),
        ("memory://a/b#bytes=0-5/c.png", "names nothing"),
    ],
)
def test_other_addresses_are_refused_before_anyone_is_asked(address: str, line: str):
    with pytest.raises(UsageError, match=line) as caught:
        find_images([address])
    assert "word" not in str(caught.value).replace("password", "")


def test_a_package_that_is_absent_is_named(monkeypatch):
    absent = {"s3": "s3fs", "gs": "gcsfs", "abfs": "adlfs"}
    for protocol, package in absent.items():
        monkeypatch.setitem(__import__("sys").modules, package, None)
        with pytest.raises(UsageError, match=f"pip install {package}"):
            find_images([f"{protocol}://bucket/a.tar"])
    assert set(absent) < set(PACKAGES)
    monkeypatch.setitem(__import__("sys").modules, "fsspec.core", None)
    with pytest.raises(UsageError, match=r'pip install -e "\.\[remote\]"'):
        find_images(["s3://bucket/a.tar"])


def test_an_index_chooses_no_address_that_the_command_line_did_not_allow(
    site: Site, student_file: Path, tmp_path
):
    site.files["/photos/a.png"] = png(1)
    index = build_index([f"{site.address}/photos/a.png"], OnnxEmbedder(student_file), tmp_path / "idx")
    (item,) = index.items
    site.asked.clear()
    refusing: list[list[str]] = [[], ["s3://photos"], [f"{site.address}/phot"], [f"{site.address}/photos/a"]]
    for allowed in refusing:
        with pytest.raises(ImageError, match="serve --fetch"):
            image_at(item.path, item.name, allowed).read()
    assert site.asked == []
    assert image_at(item.path, item.name, [f"{site.address}/photos/"]).read()[0] == png(1)


@pytest.mark.parametrize("step", ["..", ".", "%2e%2e", "%2E.", "x\\..", "%5c.."])
def test_no_step_leads_out_of_what_is_allowed(step: str):
    assert lies_below("http://host/photos/more/a.png", ["http://host/photos"])
    assert not lies_below(f"http://host/photos/{step}/secret", ["http://host/photos"])
    assert not lies_below("http://host@evil/photos/a.png", ["http://host"])


@pytest.mark.parametrize("span", ["9-0", "0-99999999999999999", "0-" + "9" * 5000])
def test_no_place_that_an_index_names_reads_a_shard_whole(site: Site, span: str):
    site.files["/some.tar"] = bytes(100_000)
    image = image_at(f"{site.address}/some.tar#bytes={span}/a.png", "a.png", [site.address])
    try:
        assert image.read()[0] == b""
    except RetrievalError as reason:
        assert "too large" in str(reason) or "names nothing" in str(reason)
    assert all(method == "HEAD" for method, *_ in site.asked)


def test_paths_on_this_machine_are_no_addresses():
    for path in ("/a/b.png", "a:b", "file:///a.png", "FILE://a", "://a", "C:\\a", "1s://x", "s3:/b/c"):
        assert not is_address(path)
    assert check("s3://bucket/key") == "s3://bucket/key"


def test_the_command_takes_addresses(shards: str, student_file: Path, tmp_path: Path):
    made = build_by_name(
        [shards],
        student_file,
        FolderStore(tmp_path / "idx"),
        TeacherSpec(),
        "cpu",
    )
    assert made.summary.endswith("9 images, 0 refused.")

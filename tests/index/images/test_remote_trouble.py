"""Photos at addresses whose servers are busy, say little, or want parameters."""

import time
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import png
from web_site import Site

import index.images.public_address
import index.images.remote
from index.build.pipeline import build_index
from index.embedders.onnx import OnnxEmbedder
from index.errors import ImageError, UsageError
from index.images.remote import (
    ATTEMPTS,
    BUSY,
    LONGEST,
    MAX_BYTES,
    SILENCE,
    find_secret,
    hide_secrets,
    lies_below,
    read_retry_after,
)
from index.images.sources import find_images, image_at
from index.stores.folder import Index

pytest.importorskip("aiohttp")


@pytest.fixture(autouse=True)
def pauses(monkeypatch) -> list[float]:
    """The pauses that were made, in place of making them."""
    made: list[float] = []
    monkeypatch.setattr(index.images.remote.time, "sleep", made.append)
    return made


@pytest.mark.parametrize(
    ("status", "headers"), [(429, {"Retry-After": "7"}), (503, {}), (500, {}), (408, {})]
)
def test_a_busy_server_is_asked_again(site: Site, pauses, status, headers):
    site.files["/a.png"] = png(1)
    site.busy = [(status, headers)] * 4  # each attempt asks for the head, then for the file
    (file,) = find_images([f"{site.address}/a.png"])
    assert len(pauses) == 2
    assert pauses == [7.0, 7.0] or pauses[0] < pauses[1]
    pauses.clear()
    site.busy = [(status, headers)]
    assert file.read()[0] == png(1)
    assert len(pauses) == 1


@pytest.mark.parametrize("headers", [{"Content-Length": "99"}, {"Transfer-Encoding": "chunked"}])
def test_an_answer_that_is_broken_off_is_asked_for_again(site: Site, pauses, headers):
    """In the middle of the photo, which then is shorter than was told, or has no end."""
    site.files["/a.png"] = png(1)
    (file,) = find_images([f"{site.address}/a.png"])
    site.busy = [(200, headers)] * 2
    assert file.read()[0] == png(1)
    assert len(pauses) == 2


@pytest.mark.parametrize(
    ("status", "headers", "requests"),
    [(403, {}, 2), (429, {"Retry-After": str(LONGEST + 1)}, 2), (503, {}, 8)],
)
def test_one_that_stays_so_costs_its_own_photo_alone(site: Site, tmp_path, pauses, status, headers, requests):
    site.files |= {"/a.png": png(1), "/b.png": png(2)}
    (tmp_path / "list.txt").write_text(f"{site.address}/a.png\n")
    site.busy = [(status, headers)] * requests
    (file,) = find_images([tmp_path / "list.txt"])
    assert site.busy == []
    with pytest.raises(ImageError, match=str(status)):
        file.read()
    assert len(site.asked) == requests


def test_a_server_that_tells_no_length_is_read_within_bounds(
    site: Site, student_file: Path, tmp_path, monkeypatch
):
    site.files |= {"/a.png": png(1), "/large.png": png(2) + bytes(5000)}
    site.lengths = site.ranges = False
    (tmp_path / "list.txt").write_text(f"{site.address}/a.png\n{site.address}/large.png\n")
    monkeypatch.setattr(index.images.remote, "MAX_BYTES", len(png(1)))
    made = build_index([tmp_path / "list.txt"], OnnxEmbedder(student_file), tmp_path / "idx")
    assert [item.size for item in made.items] == [len(png(1))]
    assert [failure.reason for failure in made.failures] == [
        "too large: over 0 MiB, and its size is not told"
    ]
    files = find_images([tmp_path / "list.txt"])
    before = files[0].status()
    site.files["/a.png"] = png(3)[: len(png(1))].ljust(len(png(1)), b"\0")
    assert find_images([tmp_path / "list.txt"])[0].status()[1] != before[1]


def test_a_server_that_calls_files_empty_in_answer_to_head_is_read(site: Site, tmp_path):
    site.files |= {"/a.png": png(1), "/empty.png": b""}
    site.heads = False
    (tmp_path / "list.txt").write_text(f"{site.address}/a.png\n{site.address}/empty.png\n")
    photo, empty = find_images([tmp_path / "list.txt"])
    assert photo.read()[0] == png(1)
    assert empty.status()[0] == 0


def test_a_silent_server_is_waited_for_no_longer_than_told(site: Site, pauses, monkeypatch):
    site.files["/a.png"] = png(1)
    monkeypatch.setattr(index.images.remote, "SILENCE", 0.05)
    site.silence = 0.5
    start = time.monotonic()
    with pytest.raises(UsageError, match=r"[Tt]imeout"):
        find_images([f"{site.address}/a.png"])
    assert time.monotonic() - start < 3
    assert len(pauses) == ATTEMPTS - 1


def test_a_refusal_behind_a_redirect_keeps_its_address_to_itself(site: Site, tmp_path):
    site.busy = [(302, {"Location": "/b.png?token=5ec7e7"}), (404, {})] * 2
    (tmp_path / "list.txt").write_text(f"{site.address}/a.png\n")
    with pytest.raises(ImageError, match=r"^HTTP 404"):
        find_images([tmp_path / "list.txt"])[0].read()
    assert any("5ec7e7" in path for _, path, _ in site.asked)


@pytest.mark.parametrize("public", [["127.0.0.1"], ["127.0.0.1", "localhost"], []])
def test_no_public_server_leads_into_a_private_network(site: Site, tmp_path, monkeypatch, public):
    """What is private itself may lead to its like, and what is public to what is public."""
    site.files |= {"/a.png": png(1), "/b.png": png(2)}
    monkeypatch.setattr(index.images.public_address, "_all_public", lambda host: host in public)
    inside = site.address.replace("127.0.0.1", "localhost")
    (tmp_path / "list.txt").write_text(f"{site.address}/a.png\n")
    (photo,) = find_images([tmp_path / "list.txt"])
    site.busy, site.asked = [(302, {"Location": f"{inside}/a.png"})], []
    if public == ["127.0.0.1"]:
        with pytest.raises(ImageError, match="from a public address into a private network"):
            photo.read()
        assert len(site.asked) == 1
    else:
        assert photo.read()[0] == png(1)


def test_an_address_that_is_no_text_is_refused_in_its_place(site: Site, student_file: Path, tmp_path: Path):
    site.files |= {"/a.png": png(1)}
    lines = [f"{site.address}/a.png", f"{site.address}/caf\xe9.png", "http://[caf\xe9.png"]
    (tmp_path / "list.txt").write_text("\n".join(lines), encoding="latin-1")
    made = build_index([tmp_path / "list.txt"], OnnxEmbedder(student_file), tmp_path / "idx")
    assert [item.path for item in made.items] == lines[:1]
    assert made.failures[0].path == rf"{site.address}/caf\xe9.png"
    assert made.failures[0].reason == "not UTF-8: write what is not ASCII as %XX."
    assert made.failures[1].path == r"http://[caf\xe9.png"


def test_a_size_that_cannot_be_is_refused(site: Site, tmp_path: Path):
    site.busy = [(200, {"Content-Length": str(10**19)})]
    (tmp_path / "list.txt").write_text(f"{site.address}/a.png")
    (photo,) = find_images([tmp_path / "list.txt"])
    assert photo.fault == f"a size of {10**19} bytes, which cannot be"


def test_parameters_are_sent_and_secrets_are_neither_sent_nor_kept(
    site: Site, student_file: Path, tmp_path: Path
):
    site.files |= {"/a.png?w=640": png(1), "/a.png?w=64": png(2)}
    named = ["a.png?w=640", "a.png?w=64", "a.png?w=9&X-Amz-Signature=5ec7e7"]
    lines = [f"{site.address}/{name}" for name in named]
    lines += [lines[0].replace("//", "//user:5ec7e7@"), "ftp://host/b.png"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    made = build_index([tmp_path / "list.txt"], OnnxEmbedder(student_file), tmp_path / "idx")
    assert [item.path for item in made.items] == lines[:2]
    reasons = {failure.path: failure.reason for failure in made.failures}
    hidden = [f"{lines[2][:-6]}...", lines[0].replace("//", "//...@"), lines[4]]
    assert sorted(reasons) == sorted(hidden)
    assert "no X-Amz-Signature" in reasons[hidden[0]]
    for file in (tmp_path / "idx").rglob("*"):
        assert file.is_dir() or b"5ec7e7" not in file.read_bytes()
    assert not any("5ec7e7" in path for _, path, _ in site.asked)
    item = Index(tmp_path / "idx").items[0]
    assert image_at(item.path, item.name, [f"{site.address}/?"]).read()[0] == png(1)
    with pytest.raises(ImageError, match="serve --fetch"):
        image_at(item.path, item.name, [f"{site.address}/"]).read()
    with pytest.raises(UsageError, match="no token") as caught:
        find_images([f"{site.address}/a.png?token=5ec7e7"])
    assert "5ec7e7" not in str(caught.value)


def test_a_public_list_names_nothing_in_a_private_network(site: Site, monkeypatch):
    inside = site.address.replace("127.0.0.1", "localhost")
    site.files |= {"/list.txt": f"a.png\n{inside}/a.png\n".encode(), "/a.png": png(1)}
    monkeypatch.setattr(index.images.public_address, "_all_public", lambda host: host == "127.0.0.1")
    with pytest.raises(UsageError, match="lies in a private network"):
        find_images([f"{site.address}/list.txt"])
    assert len(find_images([f"{inside}/list.txt"])) == 1
    site.files["/list.txt"] = b"a.png\nhttp://[abc/x.jpg\n"
    photo, wrong = find_images([f"{site.address}/list.txt"])
    assert photo.read()[0] == png(1)
    with pytest.raises(ImageError):
        wrong.read()


def test_what_is_asked_again_is_the_same_version(pauses, monkeypatch):
    """Though the first try had read the beginning."""
    broken = [False]

    class Store:
        def info(self, path):
            return {"type": "file", "size": 0, "ETag": "1"}

        @contextmanager
        def open(self, path, block_size):
            parts = [b"one", b"two", b""]

            def read(_):
                if broken[0] and len(parts) == 2:
                    broken[0] = False
                    raise ConnectionResetError
                return parts.pop(0)

            yield SimpleNamespace(read=read)

    monkeypatch.setattr(index.images.remote, "_open", lambda address: (Store(), address))
    before = index.images.remote.ask("https://example.org/a.png")
    broken[0] = True
    assert index.images.remote.ask("https://example.org/a.png") == before
    assert (before[0], broken, len(pauses)) == (6, [False], 1)


def test_connections_to_a_web_server_are_shared(site: Site):
    stores = [index.images.remote._open(f"{site.address}/{name}.png")[0] for name in "ab"]
    assert stores[0] is stores[1]


def test_parameters_lead_nowhere_else():
    assert lies_below("http://host/photos/a.png?w=1", ["http://host/photos?"])
    assert lies_below("http://host/photos/a.png", ["http://host/photos/?"])
    assert not lies_below("http://host/photos?x=/photos/a.png", ["http://host/photos/?"])
    assert not lies_below("http://host/photos/../a.png?w=1", ["http://host/photos/?"])


@pytest.mark.parametrize(
    "address",
    [
        "https://u:pw@host/a.png?sig=pw",
        "a.png?sig=a spw",
        "a.png?w=640&hdnts=exp=1~hmac=pw&auth=spw",
        "a.png?Policy=a&Key-Pair-Id=pw",
        "a.png?w=640;token=pw",
        f"a.png?s={'0123456789abcdef' * 2}pw",
    ],
)
def test_what_is_shown_of_an_address_has_no_secret(address):
    assert "pw" not in hide_secrets(address)
    assert find_secret(address)


@pytest.mark.parametrize("address", ["a.png?w=640&s=2", f"a.png?design=oak&v={'0123456789abcdef' * 2}"])
def test_what_is_no_secret_is_kept(address):
    assert hide_secrets(address) == address
    assert not find_secret(address)


def test_dates_of_retry_after():
    assert 50 < read_retry_after(formatdate(time.time() + 60, usegmt=True)) <= 60
    assert [read_retry_after(text) for text in ("", "nan", "soon", "-3", "2.5")] == [0, 0, 0, 0, 2.5]


def test_the_table_in_the_documentation_has_these_numbers():
    table = (Path(__file__).parents[3] / "docs" / "formats.md").read_text()
    again = f"asked up to {ATTEMPTS} times in all, after `Retry-After` if that is up to {LONGEST:g} s"
    asked = f"| status {', '.join(map(str, BUSY))}, a broken connection, {SILENCE:g} s of silence | {again}"
    assert asked in table
    assert f"up to {MAX_BYTES >> 20} MiB" in table

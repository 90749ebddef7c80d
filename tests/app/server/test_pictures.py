"""Pictures: of the index, by id, while the file is what was indexed; nothing else on this machine."""

import os
from io import BytesIO
from pathlib import Path

import pytest
from conftest import picture, png, write_shard
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from starlette.testclient import TestClient

from app.server import pictures
from app.server.pictures import Pictures, build_pictures
from index.build.pipeline import build_index
from index.embedders.onnx import OnnxEmbedder
from index.errors import ImageError, UsageError
from index.stores.registry import open_store

FORMATS = {"a.tif": "image/jpeg", "b.webp": "image/webp", "c.gif": "image/gif", "d.bmp": "image/jpeg"}


@pytest.fixture
def index(folder: Path, tmp_path: Path, student_file: Path):
    for name in FORMATS:
        picture(30).save(folder / name)
    picture(31, 900, 600).save(folder / "wide.jpg")
    (tmp_path / "secret.png").write_bytes((folder / "0.png").read_bytes() + b"secret")
    return build_index([folder], OnnxEmbedder(student_file), tmp_path / "idx")


@pytest.fixture
def client(index, tmp_path: Path) -> TestClient:
    app = FastAPI()
    app.include_router(build_pictures(Pictures(index, tmp_path / "cache")))
    return TestClient(app)


def ids(index) -> dict[str, int]:
    return {item.name: i for i, item in enumerate(index.items)}


def test_a_picture_has_its_digest_as_an_address_too(client, index):
    for item, place in ((index.items[i], i) for i in range(len(index.items))):
        assert client.get(f"/thumbs/{item.digest}").content == client.get(f"/thumbs/{place}").content
    for other in ("0" * 32, "-" + "1" * 31, "x" * 32):
        assert client.get(f"/thumbs/{other}").status_code == 404


def test_a_thumbnail_is_small_and_made_once(client, index, tmp_path: Path, monkeypatch):
    wide = ids(index)["wide.jpg"]
    answer = client.get(f"/thumbs/{wide}")
    assert answer.headers["content-type"] == "image/jpeg"
    assert Image.open(BytesIO(answer.content)).size == (320, 213)
    monkeypatch.setattr(pictures, "decode", lambda *a: pytest.fail("decoded again"))
    assert client.get(f"/thumbs/{wide}").content == answer.content
    again = Pictures(index, tmp_path / "cache")  # after a restart
    assert again.thumbnail(index.items[wide]) == answer.content


def test_thumbnails_that_nobody_looks_at_make_room(index, tmp_path: Path):
    shown = Pictures(index, tmp_path / "cache")
    sizes = [len(shown.thumbnail(item)) for item in index.items[:4]]
    files = [next((tmp_path / "cache").rglob(f"{item.digest}*")) for item in index.items[:4]]
    for age, file in zip((40, 10, 30, 20), files, strict=True):
        os.utime(file, (1e9 - age, 1e9))
    shown.trim(sizes[1] + sizes[3])
    assert [file.exists() for file in files] == [False, True, False, True]
    Pictures(index, tmp_path / "none").trim()  # there is no cache yet


def test_an_original_is_the_file_itself_or_what_a_browser_can_show_of_it(client, index, monkeypatch):
    for name, kind in {"0.png": "image/png", "more/10.jpg": "image/jpeg", **FORMATS}.items():
        item = index.items[ids(index)[name]]
        answer = client.get(f"/images/{ids(index)[name]}")
        assert answer.headers["content-type"] == kind
        assert answer.headers["x-content-type-options"] == "nosniff"
        if name in ("a.tif", "d.bmp"):
            shown = Image.open(BytesIO(answer.content))
            assert (shown.format, shown.size) == ("JPEG", (item.width, item.height))
        else:
            assert answer.content == Path(item.path).read_bytes()
    monkeypatch.setattr(pictures, "MAX_ORIGINAL_BYTES", 100)
    monkeypatch.setattr(pictures, "MAX_SIDE", 30)
    small = client.get(f"/images/{ids(index)['wide.jpg']}")
    assert Image.open(BytesIO(small.content)).size == (30, 20)


@pytest.mark.parametrize("kind", ["thumbs", "images"])
def test_a_browser_that_has_it_is_sent_nothing(client, kind):
    answer = client.get(f"/{kind}/0")
    assert "no-cache" in answer.headers["cache-control"]
    again = client.get(f"/{kind}/0", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(f"/{kind}/1", headers={"If-None-Match": answer.headers["etag"]}).status_code == 200


def test_an_image_that_must_be_mended_is_shown(folder: Path, tmp_path: Path, student_file: Path):
    """Its comment is longer than Pillow unpacks; what is decoded is without it."""
    info = PngInfo()
    info.add_text("note", "a" * (2 << 20), zip=True)
    picture(5).save(folder / "noted.png", pnginfo=info)
    index = build_index([folder], OnnxEmbedder(student_file), tmp_path / "idx")
    data, mime = Pictures(index, tmp_path / "cache").original(index.items[ids(index)["noted.png"]])
    assert (mime, Image.open(BytesIO(data)).size) == ("image/jpeg", picture(5).size)


@pytest.mark.parametrize("kind", ["thumbs", "images"])
@pytest.mark.parametrize("warm", [True, False])
def test_a_file_that_is_gone_or_has_changed_is_not_served(client, index, tmp_path: Path, kind, warm):
    path, size = Path(index.items[0].path), index.items[0].size
    if warm:
        assert client.get(f"/{kind}/0").status_code == 200

    path.write_bytes(b"secret" + bytes(size - 6))  # of the same size
    os.utime(path, (1, 1))
    assert "has changed since" in client.get(f"/{kind}/0").json()["detail"]
    path.unlink()
    answer = client.get(f"/{kind}/0")
    assert (answer.status_code, answer.json()["detail"]) == (404, "0.png is not there any more.")
    path.symlink_to(tmp_path / "secret.png")
    assert client.get(f"/{kind}/0").status_code == 404
    path.unlink()
    os.mkfifo(path)  # reading it would never end
    assert client.get(f"/{kind}/0").status_code == 404


def test_a_file_that_was_only_touched_is_served(client, index):
    os.utime(index.items[0].path, (1, 1))
    assert client.get("/thumbs/0").status_code == 200
    assert client.get("/thumbs/0").status_code == 200


def test_a_cache_that_cannot_be_written_costs_time_only(index):
    assert Pictures(index, Path("/proc/nowhere")).thumbnail(index.items[0]).startswith(b"\xff\xd8")


ATTACKS = """
-1 12000 99999999999999999999999 1e1 0x1 +1 %201 1%20 1.0 01x \u0661 \uff10 true null NaN
.. ../ ../../etc/passwd ..%2f..%2fsecret.png %2e%2e/secret.png %2e%2e%2f%2e%2e%2fetc%2fpasswd
..%5c..%5csecret.png ..%5C..%5Cetc%5Cpasswd %252e%252e%252fsecret.png ..%c0%afsecret.png ..%ef%bc%8fsecret.png
%00 0%00 0%00.png 0/../../secret.png 0/..%2f..%2fsecret.png 0%2f..%2fsecret.png 0;../../secret.png
/etc/passwd //etc/passwd %2fetc%2fpasswd file:///etc/passwd C:%5Cwindows
""".split()


@pytest.mark.parametrize("kind", ["thumbs", "images"])
def test_only_an_id_names_a_picture(client, kind):
    for attack in [*ATTACKS, "9" * 5000, "A" * 5000]:
        answer = client.get(f"/{kind}/{attack}")
        assert answer.status_code == 404, attack
        assert b"root:" not in answer.content
        assert len(answer.content) < 200


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=20).map(lambda sent: sent.decode("latin-1")))
def test_whatever_is_no_number_of_an_item_is_no_item(index, text):
    with pytest.raises(ImageError, match="no such image"):
        Pictures(index).find(f"x{text}")
    for text_of_id in (text, text.strip(), f"+{text}"):
        try:
            item = Pictures(index).find(text_of_id)
        except ImageError:
            continue
        assert item == index.items[int(text_of_id)]  # made when it is looked up


def test_an_image_at_an_address_is_shown_where_the_command_line_allows_it(
    site, student_file: Path, tmp_path: Path
):
    shard = write_shard(tmp_path / "some.tar", [(f"{i}.png", png(i)) for i in range(3)])
    site.files["/photos/some.tar"] = shard.read_bytes()
    build_index([f"{site.address}/photos/some.tar"], OnnxEmbedder(student_file), tmp_path / "idx")
    site.asked.clear()

    def get(path: str, *allowed: str):
        app = FastAPI()
        shown = Pictures(open_store(tmp_path / "idx", allowed=allowed), tmp_path / "cache")
        app.include_router(build_pictures(shown))
        return TestClient(app).get(path)

    for path in ("/thumbs/1", "/images/1"):
        answer = get(path)
        assert (answer.status_code, site.asked) == (404, [])
        assert "1.png lies at an address: `serve --fetch` allows to read it" in answer.text
    assert get("/images/1", f"{site.address}/photos").content == png(1)
    assert get("/thumbs/1", f"{site.address}/photos").headers["content-type"] == "image/jpeg"
    with pytest.raises(UsageError, match="not read"):
        get("/images/1", "ftp://host/")

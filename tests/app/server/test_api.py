"""The JSON API, and many users at once."""

import asyncio
import base64
import csv
import html
import re
import shlex
import shutil
import struct
import subprocess
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from pathlib import Path

import httpx
import numpy as np
import pytest
from conftest import picture, write_embedder
from fastapi import FastAPI
from prometheus_client import REGISTRY
from starlette.testclient import TestClient
from teacher_server import TeacherServer, serving

from app.server import concurrency as shared
from app.server.api import api_help, build_api
from app.server.concurrency import MOST_WAITING, BusyError, SharedSearcher
from index.build.pipeline import build_index
from index.embedders.onnx import OnnxEmbedder
from index.embedders.options import EmbedderOptions
from index.errors import BudgetError, RetrievalError, UnreachableError
from index.images.decode import read_photo
from index.images.file import ImageFile
from index.search import Searcher, open_searcher
from index.stores.options import IndexOptions
from index.teachers.spec import TeacherSpec


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A folder with the models, twelve pictures and an index of them."""
    root = tmp_path_factory.mktemp("api")
    (root / "images").mkdir()
    for i in range(12):
        picture(i).save(root / "images" / f"{i:02}.png")
    student = OnnxEmbedder(write_embedder(root / "student.onnx", seed=1))
    teacher = OnnxEmbedder(write_embedder(root / "teacher.onnx", dim=12, side=64, seed=2))
    build_index([root / "images"], student, root / "idx", teacher)
    return root


@pytest.fixture(scope="module")
def searcher(root: Path) -> SharedSearcher:
    return SharedSearcher(open_searcher(root / "idx"))


@pytest.fixture
def app(searcher) -> FastAPI:
    return serve_api(searcher)


def serve_api(searcher: SharedSearcher) -> FastAPI:
    app = FastAPI()
    app.include_router(build_api(searcher))
    return app


@pytest.fixture
def client(app) -> TestClient:
    return TestClient(app)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    picture(99).save(tmp_path / "query.png")
    return tmp_path / "query.png"


def truth(searcher: Searcher, photo: Path, mode: str, k: int) -> list[int]:
    found = Searcher.find(searcher, [read_photo(ImageFile(photo, photo.name))], mode, k)
    return found.results.ids[0].tolist()


@pytest.mark.parametrize("mode", ["student", "teacher"])
def test_a_photo_finds_what_the_index_finds(client, searcher, photo, mode):
    expected = truth(searcher, photo, mode, 5)
    form = client.post(f"/search?mode={mode}&k=5", files={"image": photo.read_bytes()}).json()
    url = f"data:image/png;base64,{base64.b64encode(photo.read_bytes()).decode()}"
    as_json = client.post(f"/search?mode={mode}&k=5", json={"image": url}).json()
    for answer in (form, as_json):
        assert [hit["id"] for hit in answer["results"]] == expected
        assert answer["milliseconds"].keys() == {"decode", "embed", "search"}
    first = form["results"][0]
    assert first["rank"] == 1
    assert first["name"] == searcher.index.items[expected[0]].name
    assert (first["thumbnail"], first["image"]) == (f"thumbs/{expected[0]}", f"images/{expected[0]}")
    assert str(searcher.index.path.parent) not in str(form)  # where things are is nobody's business


@pytest.mark.parametrize("mode", ["student", "teacher"])
def test_an_id_finds_what_its_photo_finds_though_no_model_is_asked(client, searcher, monkeypatch, mode):
    item = searcher.index.items[3]
    expected = truth(searcher, Path(item.path), mode, 4)
    monkeypatch.setattr(searcher.models[mode], "embed", lambda batch: pytest.fail("asked"))
    answer = client.get(f"/search?id=3&mode={mode}&k=4").json()
    assert [hit["id"] for hit in answer["results"]] == expected
    assert answer["query"] == {"id": 3, "name": item.name}


def test_a_mode_without_its_model_runs_in_a_lane_that_refuses_it(searcher, monkeypatch):
    monkeypatch.delitem(searcher._limiters, "teacher")
    monkeypatch.delitem(searcher._running, "teacher")
    assert asyncio.run(searcher.run("teacher", lambda: "refused")) == "refused"


def test_where_narrows_every_search(root, tmp_path: Path, photo):
    rows = "".join(f"{i:02}.png,{('red', 'blue', 'green')[i % 3]},{i}\n" for i in range(12))
    (root / "images" / "table.csv").write_text(f"path,colour,price\n{rows}")
    options = IndexOptions(metadata=root / "images" / "table.csv")
    build_index([root / "images"], OnnxEmbedder(root / "student.onnx"), tmp_path / "idx", options=options)
    client = TestClient(serve_api(SharedSearcher(open_searcher(tmp_path / "idx"))))
    for where, ids in (
        ("colour=red", {0, 3, 6, 9}),
        ("colour=red,blue;price<5", {0, 1, 3, 4}),
        ("price>=3;price<=4", {3, 4}),
    ):
        by_photo = client.post("/search", params={"where": where}, files={"image": photo.read_bytes()})
        by_id = client.get("/search", params={"where": where, "id": 11})
        for answer in (by_photo, by_id):
            assert {hit["id"] for hit in answer.json()["results"]} == ids
    refused = ("price", "takes column=value"), ("size=1", "no column 'size'"), ("price<2024-05", "is no date")
    for wrong, said in refused:
        answer = client.get("/search", params={"where": wrong, "id": 0})
        assert "--" not in answer.json()["detail"]
        assert (answer.status_code, said in answer.json()["detail"]) == (400, True)
    name, mode = "retrieval_failed_searches_total", {"mode": "student"}
    failed, none = REGISTRY.get_sample_value(name, mode), {"where": "price>99"}
    by_photo = client.post("/search", params=none, files={"image": photo.read_bytes()})
    by_id = client.get("/search", params={**none, "id": 0})
    for answer, query in ((by_photo, "upload"), (by_id, "00.png")):
        assert (answer.status_code, answer.json()["results"]) == (200, []), "no photo passes"
        assert answer.json()["query"]["name"] == query
    assert client.get("/search", params={**none, "id": 3, "format": "csv"}).text == "rank,id,score,name\r\n"
    assert REGISTRY.get_sample_value(name, mode) == failed


def test_csv_says_the_same(client):
    rows = list(csv.DictReader(StringIO(client.get("/search?id=3&format=csv").text)))
    results = client.get("/search?id=3").json()["results"]
    assert [(int(row["rank"]), int(row["id"]), row["name"]) for row in rows] == [
        (hit["rank"], hit["id"], hit["name"]) for hit in results
    ]


def test_embed_is_the_students_vector(client, searcher, photo):
    answer = client.post("/embed", files={"image": photo.read_bytes()}).json()
    student = searcher.models["student"]
    expected = student.embed([student.prepare(read_photo(ImageFile(photo, "")))])[0]
    np.testing.assert_allclose(answer["embedding"], expected, atol=1e-6)
    assert answer["dim"] == 8


def huge_png() -> bytes:
    """A PNG of 300 megapixels that takes a few hundred bytes to say so."""
    header = struct.pack(">IIBBBBB", 20_000, 15_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01"


@pytest.mark.parametrize("route", ["/search", "/embed"])
@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ({"files": {"image": ("paper.pdf", b"%PDF-1.7")}}, "cannot be used: not an image that can be read"),
        ({"files": {"image": huge_png()}}, "megapixels"),
        ({"files": {"image": JPEG}}, "cannot be used"),
        ({"files": {"image": b""}}, "cannot be used: empty file"),
        ({"files": {"a": b"x", "b": b"y"}}, "Too many files"),
        ({"data": {"image": "text"}, "files": {}}, "Send a form"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, "boundary"),
        ({"json": {"image": "http://127.0.0.1/a.png"}}, "is an address, and none is followed"),
        ({"json": {"image": "file:///etc/passwd"}}, "image is not base64"),
        ({"json": {"image": "/etc/passwd"}}, "cannot be used|is not base64"),
        ({"json": {"image": None}}, "image is no image"),
        ({"json": {"image": "data:image/png,x"}}, "data URL without base64"),
        ({"json": ["image"]}, "Send a form"),
        ({"json": {}}, "Send a form"),
        ({"content": b"[" * 100_000}, "Send a form"),
        ({"content": b'{"image":' * 50_000}, "Send a form"),
        ({"content": b"\xff\xfe"}, "Send a form"),
        ({}, "Send a form"),
    ],
)
def test_what_is_no_photo_is_400_with_a_line(client, route, sent, reason):
    answer = client.post(route, **sent)
    assert answer.status_code == 400
    assert re.search(reason, answer.json()["detail"])
    assert "\n" not in answer.json()["detail"]


@pytest.mark.parametrize(
    ("query", "status", "reason"),
    [
        ("id=12", 404, "has no image 12; its ids are 0 to 11"),
        ("id=-1", 404, "its ids are"),
        ("id=99999999999999999999999", 404, "its ids are"),
        ("id=" + "9" * 5000, 422, "id: "),
        ("id=a", 422, "id: "),
        ("id=1.5", 422, "id: "),
        ("", 422, "id: "),
        ("id=1&k=0", 422, "k: .*greater than or equal to 1"),
        ("id=1&k=501", 422, "k: .*less than or equal to 500"),
        ("id=1&k=1e9", 422, "k: "),
        ("id=1&format=xml", 422, "format: "),
        ("id=1&mode=best", 400, "No mode 'best' here, only student, teacher"),
        ("id=1&mode=" + "a" * 500, 422, "mode: "),
    ],
)
def test_what_cannot_be_asked_for(client, query, status, reason):
    answer = client.get(f"/search?{query}")
    assert answer.status_code == status
    detail = answer.json()["detail"]
    assert re.search(
        reason, detail if isinstance(detail, str) else f"{detail[0]['loc'][-1]}: {detail[0]['msg']}"
    )


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (UnreachableError("teacher.example cannot be reached"), 502),
        (BudgetError("The budget is spent."), 402),
        (RetrievalError("It answered with a vector of length 0."), 502),
        (BusyError("The teacher is busy."), 503),
    ],
)
def test_a_teacher_that_fails_leaves_the_student_be(client, searcher, photo, monkeypatch, failure, status):
    def fail(batch):
        raise failure

    before = REGISTRY.get_sample_value("retrieval_failed_searches_total", {"mode": "teacher"}) or 0
    monkeypatch.setattr(searcher.models["teacher"], "embed", fail)
    answer = client.post("/search?mode=teacher", files={"image": photo.read_bytes()})
    assert (answer.status_code, answer.json()["detail"]) == (status, str(failure))
    assert client.post("/search", files={"image": photo.read_bytes()}).status_code == 200
    after = REGISTRY.get_sample_value("retrieval_failed_searches_total", {"mode": "teacher"})
    assert after == before + 1


def test_a_teacher_that_is_down_leaves_the_student_be(root, tmp_path: Path, photo):
    student = OnnxEmbedder(root / "student.onnx")
    with serving(TeacherServer(OnnxEmbedder(root / "teacher.onnx"))) as url:
        spec = TeacherSpec(url, EmbedderOptions(), tmp_path / "ledger.sqlite", 100)
        build_index([root / "images"], student, tmp_path / "paid", spec.open("cpu"))
    http = TestClient(serve_api(SharedSearcher(open_searcher(tmp_path / "paid", spec))))
    sent = {"image": photo.read_bytes()}
    down = http.post("/search?mode=teacher", files=sent)
    assert down.status_code == 502
    assert "cannot be reached" in down.json()["detail"]
    assert http.post("/search", files=sent).status_code == 200
    assert http.get("/search?id=0&mode=teacher").status_code == 200  # by the vectors that are kept


def test_an_index_without_a_teacher_says_so(root, tmp_path: Path, photo):
    student = OnnxEmbedder(root / "student.onnx")
    alone = SharedSearcher(Searcher(build_index([root / "images"], student, tmp_path / "alone"), student))
    answer = TestClient(serve_api(alone)).post("/search?mode=teacher", files={"image": photo.read_bytes()})
    assert answer.status_code == 400
    assert "made without a teacher" in answer.json()["detail"]


def test_the_student_never_waits_for_the_teacher(app, searcher, photo, monkeypatch):
    """Also when more wait for the teacher than the server has threads."""
    asked, let_go, at_once = threading.Event(), threading.Event(), []
    embed = searcher.models["teacher"].embed

    def slow(batch):
        at_once.append(1)
        asked.set()
        assert let_go.wait(20)
        assert len(at_once) == 1  # one at a time, as the model wants it
        at_once.pop()
        return embed(batch)

    monkeypatch.setattr(searcher.models["teacher"], "embed", slow)
    data = photo.read_bytes()
    with serving(app) as address, ThreadPoolExecutor(60) as users, httpx.Client(timeout=30) as http:
        url = address.replace("/v1/embeddings", "/search")
        waiting = [users.submit(http.post, f"{url}?mode=teacher", files={"image": data}) for _ in range(60)]
        assert asked.wait(20)
        start = time.monotonic()
        assert httpx.post(url, files={"image": data}, timeout=10).status_code == 200
        assert httpx.get(f"{url}?id=1&mode=teacher", timeout=10).status_code == 200
        assert time.monotonic() - start < 5
        assert not any(one.done() for one in waiting)
        let_go.set()
        assert [one.result().status_code for one in waiting] == [200] * 60


def test_too_many_at_once_are_told_to_come_back(app, searcher, photo, monkeypatch):
    let_go = threading.Event()
    embed = searcher.models["teacher"].embed
    monkeypatch.setattr(searcher.models["teacher"], "embed", lambda batch: let_go.wait(20) and embed(batch))
    data, many = photo.read_bytes(), MOST_WAITING + 10
    with serving(app) as address, ThreadPoolExecutor(many) as users, httpx.Client(timeout=30) as http:
        url = address.replace("/v1/embeddings", "/search?mode=teacher")
        waiting = [users.submit(http.post, url, files={"image": data}) for _ in range(many)]
        while sum(one.done() for one in waiting) < 9:
            time.sleep(0.01)
        let_go.set()
        answers = [one.result() for one in waiting]
    refused = [answer for answer in answers if answer.status_code == 503]
    assert len(refused) == 9
    assert refused[0].headers["retry-after"] == "1"
    assert {answer.status_code for answer in answers} == {200, 503}


def test_a_burst_of_searches_with_the_student_is_answered(app, photo):
    data, many = photo.read_bytes(), 2 * MOST_WAITING + 22
    with serving(app) as address, ThreadPoolExecutor(many) as users, httpx.Client(timeout=30) as http:
        url = address.replace("/v1/embeddings", "/search")
        waiting = [users.submit(http.post, url, files={"image": data}) for _ in range(many)]
        assert {one.result().status_code for one in waiting} == {200}


def test_a_search_does_not_wait_for_ever(searcher, photo, monkeypatch):
    monkeypatch.setattr(shared, "TURN_SECONDS", 0.01)
    with searcher._turn("teacher"), pytest.raises(BusyError, match="teacher is busy"):
        searcher.find([read_photo(ImageFile(photo, ""))], "teacher", 1)
    assert searcher.find([read_photo(ImageFile(photo, ""))], "teacher", 1).results.ids.shape == (1, 1)


def test_every_stage_is_timed(client, photo):
    def count(stage: str, mode: str) -> float:
        labels = {"stage": stage, "mode": mode}
        return REGISTRY.get_sample_value("retrieval_stage_seconds_count", labels) or 0

    kinds = [
        (stage, mode) for stage in ("decode", "wait", "embed", "search") for mode in ("student", "teacher")
    ]
    before = [count(*kind) for kind in kinds]
    for mode in ("student", "teacher"):
        client.post(f"/search?mode={mode}", files={"image": photo.read_bytes()})
    assert [count(*kind) for kind in kinds] == [value + 1 for value in before]


def test_an_index_that_is_replaced_is_served_as_it_was(root, tmp_path: Path, photo):
    models = [OnnxEmbedder(root / name) for name in ("student.onnx", "teacher.onnx")]
    index = build_index([root / "images"], models[0], tmp_path / "idx", models[1])
    client = TestClient(serve_api(SharedSearcher(Searcher(index, *models))))

    def answers() -> list:
        by_photo = client.post("/search?k=12", files={"image": photo.read_bytes()})
        return [by_photo.json()["results"], client.get("/search?id=3&mode=teacher").json()["results"]]

    before = answers()
    picture(50).save(tmp_path / "new.png")
    build_index([root / "images" / "00.png", tmp_path / "new.png"], models[0], tmp_path / "idx")
    assert answers() == before


def test_stored_vectors_are_kept_open_though_their_model_is_missing(root, tmp_path: Path):
    models = [OnnxEmbedder(root / name) for name in ("student.onnx", "teacher.onnx")]
    index = build_index([root / "images"], models[0], tmp_path / "idx", models[1])
    expected = Searcher(index, *models).search_items([3], "teacher", 5)
    shared = SharedSearcher(Searcher(index, models[0]))
    build_index([root / "images" / "00.png"], models[0], tmp_path / "idx")
    assert (shared.search_items([3], "teacher", 5).ids == expected.ids).all()


def test_an_index_that_is_replaced_while_it_is_opened_is_refused(root, tmp_path: Path):
    student = OnnxEmbedder(root / "student.onnx")
    opened = Searcher(build_index([root / "images"], student, tmp_path / "idx"), student)
    build_index([root / "images" / "00.png"], student, tmp_path / "idx")
    with pytest.raises(RetrievalError, match="was replaced meanwhile"):
        SharedSearcher(opened)


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl on this machine")
def test_the_lines_of_the_help_work_as_they_stand(app, tmp_path: Path):
    picture(99).save(tmp_path / "photo.jpg")
    with serving(app) as address:
        lines = re.findall(
            "<code>(curl .*?)</code>", api_help(address.replace("/v1/embeddings", "/"), ["student"])
        )
        answers = [
            subprocess.run(
                shlex.split(html.unescape(line)), cwd=tmp_path, capture_output=True, text=True, check=True
            ).stdout
            for line in lines
        ]
    assert len(lines) == 3
    assert answers[0].startswith("rank,id,score,name")
    assert '"rank": 1' in answers[1]
    assert '"embedding":[' in answers[2]


def test_the_help_escapes_its_address():
    assert "<script>" not in api_help("http://a/<script>", ["student"])


def test_examples_draw_the_search_and_are_checked(app, root: Path):
    with TestClient(app) as client:
        plain = client.get("/search?id=0&k=12").json()["results"]
        best, last = plain[0]["id"], plain[-1]["id"]
        moved = client.get(f"/search?id=0&k=12&like={last}&unlike={best}").json()["results"]
        assert {hit["id"] for hit in moved} == {hit["id"] for hit in plain} - {best, last}
        photo = {"image": (root / "images" / "00.png").read_bytes()}
        sent = client.post(f"/search?k=12&like={last}&unlike={best}", files=photo).json()["results"]
        assert [hit["id"] for hit in sent] == [hit["id"] for hit in moved]
        assert client.get("/search?id=0&like=12").status_code == 404
        for wrong in ("a", "-1", "3,5,"):
            refused = client.get(f"/search?id=0&like={wrong}")
            assert (refused.status_code, "like: Give ids" in refused.text) == (422, True)


def test_what_comes_with_a_photo_and_is_not_read_is_refused(app, root: Path):
    photo = (root / "images" / "00.png").read_bytes()
    text = f"data:image/png;base64,{base64.b64encode(photo).decode()}"
    with TestClient(app) as client:
        for answer in (
            client.post("/search", files={"image": photo}, data={"k": "2"}),
            client.post("/search", json={"image": text, "k": 2}),
        ):
            assert (answer.status_code, "k: Give it in the address" in answer.text) == (422, True)
        assert len(client.post("/search?k=2", json={"image": text}).json()["results"]) == 2

"""The student in place of a paid teacher: `/v1/embeddings`, asked by our own client and by hand."""

import base64
import weakref
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
from conftest import png
from fastapi import FastAPI
from teacher_server import serving

from app.server import openai_api
from app.server.concurrency import SharedSearcher
from app.server.guard import Guard, Rules
from app.server.openai_api import build_embeddings
from index.build.pipeline import build_index
from index.embedders.onnx import OnnxEmbedder
from index.embedders.options import EmbedderOptions
from index.embedders.registry import open_embedder
from index.errors import RetrievalError
from index.images.decode import decode, read_photo
from index.images.file import ImageFile
from index.search import Searcher

LIMIT = 200_000  # bytes of a request


@pytest.fixture
def student(student_file: Path) -> OnnxEmbedder:
    return OnnxEmbedder(student_file, "cpu")


@pytest.fixture
def searcher(student, folder, tmp_path) -> SharedSearcher:
    return SharedSearcher(Searcher(build_index([folder], student, tmp_path / "idx"), student))


@pytest.fixture
def url(searcher):
    app = FastAPI()
    app.add_middleware(Guard, rules=Rules(most_bytes=LIMIT))
    app.include_router(build_embeddings(searcher))
    with serving(app) as address:
        yield address


@pytest.mark.parametrize("dialect", ["infinity", "jina", "multipart"])
def test_it_is_a_teacher_like_any_other(url, student, folder, dialect):
    photos = [read_photo(ImageFile(path, path.name)) for path in sorted(folder.glob("*.png"))]
    remote = open_embedder(url, options=EmbedderOptions(dialect=dialect))
    np.testing.assert_allclose(
        remote.embed([remote.prepare(photo) for photo in photos]),
        student.embed([student.prepare(photo) for photo in photos]),
        atol=1e-6,
    )


def test_one_image_as_openai_clients_send_it(url, student, folder):
    data = (folder / "0.png").read_bytes()
    picture = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    answer = httpx.post(url, json={"model": "any", "input": picture}).json()
    assert answer["object"] == "list"
    assert answer["model"] == "student.onnx"
    assert len(answer["data"][0]["embedding"]) == 8


@pytest.mark.parametrize("encoding", [{}, {"encoding_format": "float"}, {"encoding_format": "base64"}])
def test_openai_own_client(url, student, folder, encoding):
    """It asks for base64 unless it is told otherwise, and takes it apart itself."""
    photos = [read_photo(ImageFile(path, path.name)) for path in sorted(folder.glob("*.png"))]
    urls = [f"data:image/png;base64,{base64.b64encode(photo.data).decode()}" for photo in photos]
    with openai.OpenAI(base_url=url.removesuffix("/embeddings"), api_key="any", max_retries=0) as client:
        answer = client.embeddings.create(model="student", input=urls, **encoding)
        rows = [entry.embedding for entry in answer.data]
        if encoding == {"encoding_format": "base64"}:
            rows = [np.frombuffer(base64.b64decode(row), "<f4") for row in rows]
        expected = student.embed([student.prepare(photo) for photo in photos])
        np.testing.assert_allclose(rows, expected, atol=1e-6)
        assert [model.id for model in client.models.list()] == ["student.onnx"]
        with pytest.raises(openai.BadRequestError, match="input 1 is an address"):
            client.embeddings.create(model="student", input=[urls[0], "https://example.org/a.png"])


def test_of_many_photos_one_is_decoded_at_a_time(searcher, monkeypatch):
    alive: list[weakref.ref] = []

    def watch(data, name, side):
        assert not any(each() for each in alive)
        photo = decode(data, name, side)
        alive.append(weakref.ref(photo.image))
        return photo

    monkeypatch.setattr(openai_api, "decode", watch)
    answer = openai_api._answer(SharedSearcher(searcher), [png(i) for i in range(4)], "float")
    assert len(answer["data"]) == len(alive) == 4


@pytest.mark.parametrize(
    ("request_", "status", "reason"),
    [
        ({"json": {"input": ["data:image/png;base64,????"]}}, 400, "input 0 is not base64"),
        ({"json": {"input": "a red shoe"}}, 400, "embeds images, not text: send a data URL"),
        ({"json": {"input": ["aGVsbG8="]}}, 400, "input 0: not an image"),
        ({"json": {"input": ["http://127.0.0.1/a.png"]}}, 400, "is an address, and none is followed"),
        ({"json": {"input": [3]}}, 400, "input 0 is no image"),
        ({"json": {"input": []}}, 400, "between 1 and 256"),
        ({"json": {"input": ["aGVsbG8="] * 300}}, 400, "between 1 and 256 images, not 300"),
        ({"json": {"input": ["a"], "modality": "text"}}, 400, "images only"),
        ({"json": {"input": ["aGVsbG8="], "encoding_format": "int8"}}, 400, "encoding_format"),
        ({"json": [1]}, 400, "Send JSON"),
        ({"content": b"[" * 100_000}, 400, "Send JSON"),
        ({"content": bytes(LIMIT + 1)}, 413, "at most 0.2 MB"),
        ({"content": iter([bytes(LIMIT), b"0"])}, 413, "at most 0.2 MB"),
        ({"json": {"input": ["aGVsbG8="], "dimensions": 4}}, 400, "dimensions must be 8"),
        ({"json": {"input": ["aGVsbG8="], "dimensions": "8.5"}}, 400, "dimensions must be 8"),
        ({"json": {"input": ["aGVsbG8="], "dimensions": 0}}, 400, "dimensions must be 8"),
        ({"files": {"images": b"x"}, "data": {"dimensions": "16"}}, 400, "dimensions must be 8"),
        ({"files": {"others": b"x"}}, 400, "between 1 and 256"),
        ({"files": [("images", b"x")] * 257}, 400, "Too many files"),
    ],
)
def test_requests_that_cannot_be_answered(url, request_, status, reason):
    answer = httpx.post(url, **request_)
    assert answer.status_code == status
    assert reason in answer.json()["error"]["message"]


@pytest.mark.parametrize("dimensions", [8, "8", None])
def test_the_length_that_it_has_may_be_asked_for(url, folder, dimensions):
    picture = base64.b64encode((folder / "0.png").read_bytes()).decode()
    answer = httpx.post(url, json={"input": picture, "dimensions": dimensions}).json()
    assert len(answer["data"][0]["embedding"]) == 8


def test_it_waits_for_its_turn_like_every_search(url, searcher, folder, monkeypatch):
    monkeypatch.setattr("app.server.concurrency.MOST_FOR_STUDENT", -1000)
    picture = base64.b64encode((folder / "0.png").read_bytes()).decode()
    answer = httpx.post(url, json={"input": picture})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "Too many" in answer.json()["error"]["message"]


def test_a_model_that_fails_is_said_in_openais_form(url, searcher, folder, monkeypatch):
    def fail(inputs, names):
        raise RetrievalError("It broke.")

    monkeypatch.setattr(searcher, "embed_inputs", fail)
    picture = base64.b64encode((folder / "0.png").read_bytes()).decode()
    answer = httpx.post(url, json={"input": picture})
    assert (answer.status_code, answer.json()["error"]["message"]) == (502, "It broke.")

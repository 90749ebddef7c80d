"""The student in place of a paid teacher: `/v1/embeddings`, asked by our own client and by hand."""

import base64
from pathlib import Path

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from teacher_server import serving

from app.embeddings import LARGEST_REQUEST, build_embeddings
from index.embedder import OnnxEmbedder, open_embedder
from index.images import ImageFile, read_photo
from index.options import EmbedderOptions


@pytest.fixture
def student(student_file: Path) -> OnnxEmbedder:
    return OnnxEmbedder(student_file, "cpu")


@pytest.fixture
def url(student):
    app = FastAPI()
    app.include_router(build_embeddings(student))
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


@pytest.mark.parametrize(
    ("request_", "status", "reason"),
    [
        ({"json": {"input": ["data:image/png;base64,????"]}}, 400, "input 0 is not base64"),
        ({"json": {"input": ["aGVsbG8="]}}, 400, "input 0: not an image"),
        ({"json": {"input": ["http://127.0.0.1/a.png"]}}, 400, "is an address, and none is followed"),
        ({"json": {"input": [3]}}, 400, "input 0 is no image"),
        ({"json": {"input": []}}, 400, "between 1 and 256"),
        ({"json": {"input": ["aGVsbG8="] * 300}}, 400, "between 1 and 256"),
        ({"json": {"input": ["a"], "modality": "text"}}, 400, "images only"),
        ({"json": {"input": ["aGVsbG8="], "encoding_format": "int8"}}, 400, "encoding_format"),
        ({"json": [1]}, 400, "Send JSON"),
        ({"content": b"[" * 100_000}, 400, "Send JSON"),
        ({"content": bytes(LARGEST_REQUEST + 1)}, 413, "at most 50 MB"),
        ({"content": iter([b"{}"])}, 411, "Content-Length"),
        ({"files": {"others": b"x"}}, 400, "between 1 and 256"),
    ],
)
def test_requests_that_cannot_be_answered(url, request_, status, reason):
    answer = httpx.post(url, **request_)
    assert answer.status_code == status
    assert reason in answer.json()["detail"]

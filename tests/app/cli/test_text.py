"""Search by words as a user types it: distil from an image tower, index, ask the text tower."""

import json
from pathlib import Path

import numpy as np
import pytest
from teacher_server import TeacherServer, serving
from text_towers import (
    COLOURS,
    write_image_tower,
    write_photos,
    write_text_tower,
    write_tokenizer,
)
from typer.testing import CliRunner

from app.cli import app
from index.embedders.options import EmbedderOptions
from index.io import content_digest
from index.teachers.ledger import default_ledger
from index.text.models import open_text

EACH = 12


def retrieval(*arguments: object, code: int = 0):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == code, done.output
    return done


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Coloured photos, both towers, a student distilled from the image tower, and its index."""
    root = tmp_path_factory.mktemp("words")
    photos, teacher = write_photos(root / "photos", EACH), write_image_tower(root / "images.onnx")
    write_text_tower(root / "text.onnx")
    write_tokenizer(root / "tokenizer.json")
    student = root / "student" / "student.onnx"
    small = ["--student", "test_efficientnet", "--weights", "none", "--size", 32, "--dim", 8, "--steps", 40]
    retrieval("distill", photos, "--teacher", teacher, "--out", student.parent, "--budget", 60,
              "--ledger", root / "asked.sqlite", *small)  # fmt: skip
    retrieval("index", photos, "--model", student, "--teacher", teacher, "--out", root / "idx")
    retrieval("index", photos, "--model", student, "--out", root / "alone")
    return root


def towers(root: Path) -> list[object]:
    return ["--text-teacher", root / "text.onnx", "--tokenizer", root / "tokenizer.json"]


def precision(root: Path, index: str, mode: str, template: str = "{}", *options: object) -> float:
    """The share of the photos of a colour among as many results as there are, over all colours."""
    words = [template.format(colour) for colour in COLOURS]
    asked = options or towers(root)
    done = retrieval("search", root / index, *words, "-k", EACH, "--mode", mode, "--json", *asked)
    queries = json.loads(done.stdout)["queries"]
    hits = [
        [hit["name"].startswith(colour) for hit in query["results"]]
        for colour, query in zip(COLOURS, queries, strict=True)
    ]
    return float(np.mean(hits))


@pytest.mark.parametrize(
    ("mode", "least"), [("teacher", 0.85), ("student", 0.8), ("asymmetric", 0.8), ("rerank", 0.85)]
)
def test_words_find_the_photos_that_they_tell_of(made, mode, least):
    assert precision(made, "idx", mode) >= least
    assert precision(made, "idx", mode, "{} shoes") >= least


def test_a_student_needs_no_teacher_to_be_searched_by_words(made):
    """What `distill` wrote beside the student travels with the index."""
    assert (made / "alone" / "data-1" / "teacher_space.npz").is_file()
    assert precision(made, "alone", "student") == precision(made, "idx", "student")
    done = retrieval("search", made / "alone", "red", "--mode", "teacher", *towers(made), code=2)
    assert "cannot be searched in mode 'teacher', only student" in done.stderr


def test_the_teacher_itself_may_be_gone(made, tmp_path):
    (made / "images.onnx").rename(tmp_path / "away.onnx")
    try:
        assert precision(made, "idx", "teacher") >= 0.85
        assert "does not exist" in retrieval(
            "search", made / "idx", made / "photos" / "red0.png", "--mode", "teacher", code=1
        ).stderr  # fmt: skip
    finally:
        (tmp_path / "away.onnx").rename(made / "images.onnx")


def test_photos_and_words_may_be_mixed(made, monkeypatch):
    monkeypatch.setenv("RETRIEVAL_TEXT_TEACHER", str(made / "text.onnx"))
    monkeypatch.setenv("RETRIEVAL_TOKENIZER", str(made / "tokenizer.json"))
    photo = made / "photos" / "blue0.png"
    lines = retrieval(
        "search", made / "idx", photo, "red", "missing.png", "-k", 1, code=1
    ).stdout.splitlines()
    assert lines[0] == str(photo)
    assert "blue" in lines[1].rpartition("/")[2]
    assert lines[2] == "red"
    assert "red" in lines[3].rpartition("/")[2]
    assert lines[4].startswith("missing.png: ")


def test_without_a_text_model_its_option_is_named(made):
    done = retrieval("search", made / "idx", "red shoes", code=1)
    assert done.stdout.strip().endswith("To search by words, give --text-teacher")
    done = retrieval("search", made / "idx", made / "photos", code=1)
    assert done.stdout.strip().endswith(f"Name the photos in it, as {made / 'photos' / '*.jpg'}")
    done = retrieval("search", made / "idx", "red", "--text-option", "pool=cls", code=2)
    assert "Give --text-teacher" in done.stderr


def test_a_student_without_its_teacher_space_says_what_is_missing(made, tmp_path):
    student = tmp_path / "student.onnx"
    student.write_bytes((made / "student" / "student.onnx").read_bytes())
    retrieval("index", made / "photos", "--model", student, "--out", tmp_path / "idx")
    done = retrieval("search", tmp_path / "idx", "red", *towers(made), code=2)
    assert "its student came without teacher_space.npz" in done.stderr


@pytest.mark.parametrize("dialect", ["infinity", "jina"])
def test_an_endpoint_is_paid_once_for_each_text(made, tmp_path, dialect):
    text = open_text(str(made / "text.onnx"), made / "tokenizer.json", "cpu", EmbedderOptions())
    server, ledger = TeacherServer(text), tmp_path / "paid.sqlite"
    with serving(server._api) as url:
        asked = ["--text-teacher", url, "--text-option", f"dialect={dialect}", "--ledger", ledger]
        done = retrieval("search", made / "idx", "red", "--mode", "teacher", *asked, code=1)
        assert "Give a larger --budget" in done.stderr
        assert precision(made, "idx", "student", "{}", *asked, "--budget", 200) == precision(
            made, "idx", "student"
        )
        assert precision(made, "idx", "teacher", "{}", *asked) >= 0.85  # the ledger answers, without a budget
    assert max(server.charged.values()) == 1
    assert server.charged[content_digest(b"red")] == 1
    assert not ledger.exists()  # it is of photos
    assert (tmp_path / "paid.texts.sqlite").is_file()


def test_texts_have_a_ledger_of_their_own_in_the_cache_too():
    url = "https://example.com/v1/embeddings"
    text = open_text(url, None, "cpu", EmbedderOptions(model="clip"))
    assert text.key == f"{url}#clip texts"
    assert default_ledger(text.key) != default_ledger(f"{url}#clip")

"""What the scripts of the page are answered, without a browser."""

import json
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pytest
from conftest import known, picture
from PIL import Image

from app.page.search.query import Query
from app.page.search.tab import SearchPage
from app.server.labels import Labels
from index.build.pipeline import build_index
from index.embedders.onnx import OnnxEmbedder
from index.errors import RetrievalError, UsageError
from index.io import content_digest
from index.search import Searcher

BOTH = {"modes": ["student", "teacher"], "k": 4}


@pytest.fixture
def searcher(folder: Path, tmp_path: Path, student_file: Path, teacher_file: Path) -> Searcher:
    student, teacher = OnnxEmbedder(student_file), OnnxEmbedder(teacher_file)
    return Searcher(build_index([folder], student, tmp_path / "idx", teacher), student, teacher)


@pytest.fixture
def page(searcher: Searcher) -> SearchPage:
    return SearchPage(searcher, price=2.0)


@pytest.fixture
def data() -> bytes:
    buffer = BytesIO()
    picture(99).save(buffer, "PNG")
    return buffer.getvalue()


def form(request: dict, *files: tuple[str, bytes]):
    from gradio.data_classes import DataWithFiles

    return DataWithFiles(data={"request": json.dumps(request)}, files=list(files))


def test_the_first_column_comes_alone_and_then_both(page: SearchPage, searcher: Searcher, monkeypatch):
    asked = []
    find = searcher.find

    def count(photos, mode: str, *how):
        asked.append(mode)
        return find(photos, mode, *how)

    monkeypatch.setattr(searcher, "find", count)
    soon = page.search({**BOTH, "item": 0, "soon": True})
    assert "data-id" in soon["columns"][0]
    assert "is searching" in soon["columns"][1]
    assert asked == ["student"]
    both = page.search({**BOTH, "item": 0})
    assert asked == ["student", "teacher"]  # the first column is not searched again
    assert 'class="mark' in both["columns"][0]
    assert "2,000.00" in both["numbers"]
    assert both["more"]
    assert not page.search({**BOTH, "item": 0, "k": 50})["more"]


def test_a_photo_that_was_fetched_is_searched_with_once(page, searcher, data, monkeypatch):
    monkeypatch.setattr("app.page.search.tab.Query.of_address", lambda each: Query.of_bytes(data, each))
    soon = page.search({**BOTH, "address": "https://shop.example/a.png", "soon": True})
    monkeypatch.setattr(searcher, "find", lambda *_: pytest.fail("It was remembered."))
    again = page.search({"modes": ["student"], "k": 4, "sent": soon["sent"]})
    assert again["columns"] == soon["columns"][:1]


def test_no_more_is_offered_than_is_given(page: SearchPage, monkeypatch):
    monkeypatch.setattr("app.page.search.query.MAX_RESULTS", 5)
    monkeypatch.setattr("app.page.search.tab.MAX_RESULTS", 5)
    found = page.search({**BOTH, "item": 0, "k": 9})
    assert (found["k"], found["columns"][0].count("data-id"), found["more"]) == (5, 5, False)


def test_a_photo_is_known_by_its_digest_once_it_was_sent(page: SearchPage, data: bytes):
    sent = page.search(form(BOTH, ("mine.png", data)))
    assert (sent["name"], sent["sent"]) == ("mine.png", content_digest(data))
    again = page.search({**BOTH, "sent": sent["sent"]})
    assert again["columns"] == sent["columns"]
    turned = page.search({**BOTH, "sent": sent["sent"], "turn": 1, "box": [0, 0, 0.5, 1]})
    assert turned["columns"] != sent["columns"]
    shown = page.picture(sent["sent"])
    assert Image.open(BytesIO(b64decode(shown.partition(",")[2]))).size == (48, 40)


def test_what_is_not_known_is_asked_for_again(page: SearchPage):
    assert page.search({**BOTH, "sent": "0" * 32}) == {"forgotten": True}
    assert page.picture("0" * 32) == ""


def test_a_teacher_that_fails_leaves_the_student(page: SearchPage, searcher: Searcher, monkeypatch):
    def fail(batch):
        raise RetrievalError("http://teacher cannot be reached. Start it <again>.")

    monkeypatch.setattr(searcher.models["teacher"], "embed", fail)
    answer = page.search({**BOTH, "item": 1})
    assert answer["columns"][0].count("data-id") == 4
    assert "cannot be reached. Start it &lt;again&gt;." in answer["columns"][1]
    assert "in common" not in answer["numbers"]
    monkeypatch.undo()
    assert page.search({**BOTH, "item": 1})["columns"][1].count("data-id") == 4  # a failure is not remembered


def test_a_photo_is_the_same_one_after_the_index_was_written_again(page, searcher, folder: Path):
    first, other = searcher.index.items[0], searcher.index.items[5]
    asked = {"modes": ["student"], "k": 4}
    found = page.search({**asked, "item": other.digest})
    assert (found["item"], found["name"]) == (other.digest, other.name)
    assert page.search({**asked, "item": "5"})["item"] == other.digest  # as old links have it
    (folder / first.name).unlink()
    student = searcher.models["student"]
    page = SearchPage(Searcher(build_index([folder], student, searcher.index.path), student))
    assert page.search({**asked, "item": other.digest})["name"] == other.name
    assert other.name in page.details(other.digest)
    for gone in ({"item": first.digest}, {"item": 1, "unlike": [first.digest]}):
        assert "no longer in the index" in page.search({**asked, **gone})["error"]
    assert "no longer in the index" in page.details(first.digest)


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({**BOTH, "item": 12}, "no image 12"),
        ({**BOTH, "item": "<b>"}, "cannot be read"),
        ({**BOTH, "modes": ["magic"], "item": 1}, "no mode magic"),
        ({**BOTH, "address": "http://127.0.0.1/a.png"}, "private network"),
        (form(BOTH, ("a.pdf", b"%PDF-1.7")), "not an image"),
        (form(BOTH, ("a.png", b"")), "empty file"),
    ],
)
def test_errors_are_one_line(page: SearchPage, asked, complaint: str):
    answer = page.search(asked)
    assert set(answer) == {"error"}
    assert complaint in answer["error"]


def test_a_form_that_cannot_be_read(page: SearchPage):
    asked = form({})
    asked.data["request"] = "{"
    assert "cannot be read" in page.search(asked)["error"]


def test_details_come_with_the_metadata(page: SearchPage, searcher: Searcher, monkeypatch):
    item = searcher.index.items[3]
    assert item.name in page.details(3)
    assert "no image 99" in page.details(99)
    assert "no such image" in page.details("first")
    files = [[(item.path, item.name)] for item in searcher.index.items]
    table = pa.table({"path": [item.path], "brand": ["Apfelsaft"]})
    monkeypatch.setattr(searcher.index, "_known", known(files, table), raising=False)
    assert "Apfelsaft" in page.details(3)
    assert "Apfelsaft" not in page.details(4)


def test_photos_are_forgotten_when_there_is_no_room(searcher: Searcher, data: bytes, monkeypatch):
    monkeypatch.setattr("app.page.search.tab.CACHED_BYTES", len(data) + 10)
    page = SearchPage(searcher)
    first = page.search(form(BOTH, ("a.png", data)))["sent"]
    other = BytesIO()
    picture(98).save(other, "PNG")
    page.search(form(BOTH, ("b.png", other.getvalue())))
    assert page.search({**BOTH, "sent": first}) == {"forgotten": True}
    assert "forgotten" not in page.search(form(BOTH, ("large.png", data + b" " * 100)))


def test_a_title_is_a_column_of_the_metadata(searcher: Searcher):
    with pytest.raises(UsageError, match="--title: no column 'price' here; there are none"):
        SearchPage(searcher, labels=Labels("price"))

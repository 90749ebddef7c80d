"""Search by words over HTTP, by the page's scripts and by language models."""

import asyncio
import json
from dataclasses import replace

import numpy as np
import pytest
from page_tools import ids, needs_chromium, settle, start_server
from starlette.testclient import TestClient
from text_towers import DIM, write_image_tower, write_photos, write_text_tower, write_tokenizer

from app.page.search.strength import Scale
from app.page.search.tab import SearchPage
from app.page.search.views import render_search
from app.server.app import ServerOptions, build_app
from app.server.concurrency import SharedSearcher
from index.build.pipeline import build_index
from index.embedders.onnx import OnnxEmbedder
from index.embedders.teacher_space import TEACHER_SPACE, TeacherSpace
from index.search import Searcher, open_searcher
from index.stores.filters import Filter
from index.teachers.spec import TextSpec
from index.text.models import LONGEST, Text


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    """An index whose student is its teacher, so that the teacher space changes nothing."""
    root = tmp_path_factory.mktemp("words")
    model = OnnxEmbedder(write_image_tower(root / "student.onnx"))
    TeacherSpace(np.zeros(DIM, np.float32), np.eye(DIM, dtype=np.float32)).save(root / TEACHER_SPACE)
    build_index([write_photos(root / "photos", 4)], model, root / "idx", model)
    tokenizer = write_tokenizer(root / "tokenizer.json")
    text = TextSpec(str(write_text_tower(root / "text.onnx")), tokenizer=tokenizer)
    return open_searcher(root / "idx", device="cpu", text=text)


@pytest.fixture(scope="module")
def http(searcher: Searcher, tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    return TestClient(build_app(searcher, ServerOptions(host="0.0.0.0"), tmp_path_factory.mktemp("cache")))


def starts(names: list[str]) -> set[str]:
    return {name[:3] for name in names}


@pytest.mark.parametrize("mode", ["student", "teacher", "rerank"])
def test_the_api_is_searched_by_words(http, mode):
    answer = http.get("/search", params={"text": " Red  shoes", "mode": mode, "k": 4}).json()
    assert starts([hit["name"] for hit in answer["results"]]) == {"red"}
    assert answer["query"] == {"text": "Red shoes"}
    assert answer["mode"] == mode
    assert set(answer["milliseconds"]) == {"embed", "search"}


def test_what_it_refuses(http):
    for params, status, said in (
        ({"text": "red", "id": 0}, 422, "Give one, or a text, and not both"),
        ({}, 422, "Give one, or a text, and not both"),
        ({"text": "x" * (LONGEST + 1)}, 422, "at most 1000 characters"),
        ({"text": " "}, 400, "1 to 1000 printable characters"),
        ({"text": "a\u0007b"}, 400, "1 to 1000 printable characters"),
        ({"text": "red", "mode": "asymmetric"}, 400, "No mode 'asymmetric' for words here, only student"),
        ({"text": "red", "like": "0"}, 422, "like: Give it with a photo or an id"),
    ):
        answer = http.get("/search", params=params)
        assert answer.status_code == status, params
        assert said in answer.json()["detail"]


def test_without_a_text_model_its_option_is_named(searcher, tmp_path):
    plain = open_searcher(searcher.index.path, device="cpu")
    http = TestClient(build_app(plain, ServerOptions(host="0.0.0.0"), tmp_path))
    answer = http.get("/search", params={"text": "red"})
    assert answer.status_code == 400
    assert answer.json()["detail"].endswith("Give --text-teacher.")
    assert http.get("/health").json()["text_modes"] == []


def test_health_and_help_tell_of_it(http):
    health = http.get("/health").json()
    assert health["text_modes"] == ["student", "teacher", "rerank"]
    assert health["models"]["text"]["name"] == "text.onnx"


def test_words_can_be_narrowed(searcher):
    shared = SharedSearcher(searcher)
    found = shared.find_text(Text("red"), "student", 3, Filter(prefix="blue"))
    assert starts([searcher.index.items[i].name for i in found.results.ids[0]]) == {"blu"}


def test_a_page_shows_what_words_find(searcher):
    page = SearchPage(SharedSearcher(searcher))
    answer = page.search({"modes": ["student", "teacher"], "k": 4, "text": "yellow"})
    assert answer["name"] == "yellow"
    assert answer["sent"] == ""
    for column in answer["columns"]:
        assert column.count("yellow") >= 4
        assert "blue" not in column
    assert "1 to 1000 printable" in page.search({"modes": ["student"], "k": 4, "text": "\x07"})["error"]
    other = page.search({"modes": ["student"], "k": 4, "text": "green"})  # not what was remembered
    assert "yellow" not in other["columns"][0]
    page.measuring.wait(60)
    page.scales["student"] = Scale(2, 2, 2)  # of two photos: words are never so near
    assert "Nothing close" in page.search({"modes": ["student"], "k": 4, "item": 0})["columns"][0]
    far = page.search({"modes": ["student"], "k": 4, "text": "yellow"})["columns"][0]
    assert "Nothing close" not in far
    assert 'class="card"' in far


def test_a_page_says_in_which_modes_words_are_searched(searcher):
    page = SearchPage(SharedSearcher(searcher))
    asked = {"modes": ["student", "teacher"], "k": 4, "text": "red"}
    page.searcher.text = replace(searcher.text, space=None)
    student, teacher = page.search(asked)["columns"]
    assert "No mode &#39;student&#39; for words here, only teacher." in student
    assert teacher.count("data-id") == 4
    page.searcher.text = None
    assert "Give --text-teacher." in page.search(asked)["columns"][0]


def test_the_box_for_words_is_there_if_they_can_be_used():
    shells = [render_search(["student"], [], None, words=words) for words in (False, True)]
    assert ["data-words" in shell for shell in shells] == [False, True]


def test_a_language_model_may_ask_in_words(searcher):
    pytest.importorskip("mcp")
    from app.server.mcp import build_tools

    tools = build_tools(SharedSearcher(searcher), 1000)
    names = {tool.name for tool in asyncio.run(tools.list_tools())}
    assert names == {"search_by_photo", "search_by_id", "search_by_text"}
    content = asyncio.run(tools.call_tool("search_by_text", {"text": "blue", "k": 4}))
    found = content[1] if isinstance(content, tuple) else json.loads(content[0].text)
    assert starts([hit["name"] for hit in found["results"]]) == {"blu"}


@needs_chromium
@pytest.mark.slow
def test_words_typed_on_the_page_are_searched_with(browser, searcher):
    root = searcher.index.path.parent
    towers = ["--text-teacher", str(root / "text.onnx"), "--tokenizer", str(root / "tokenizer.json")]
    process, address = start_server(root / "idx", *towers)
    try:
        tab = browser.new_page()
        tab.goto(address)
        tab.fill(".search .address", "red shoes")
        tab.press(".search .address", "Enter")
        settle(tab)
        names = [searcher.index.items[i].name for i in ids(tab)[:4]]
        assert starts(names) == {"red"}
        assert tab.inner_text(".search .caption") == "red shoes"
        assert not tab.is_visible(".search .frame")
        assert "text=red+shoes" in tab.url
        tab.reload()  # the address is enough
        settle(tab)
        assert [searcher.index.items[i].name for i in ids(tab)[:4]] == names
        tab.click("#first .card .hit")  # from words to a photo
        settle(tab)
        assert "text=" not in tab.url
        assert tab.is_visible(".search .frame")
        tab.close()
    finally:
        process.kill()
        process.wait(10)

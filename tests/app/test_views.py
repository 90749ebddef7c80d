from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np

from app.compare import Comparison
from app.views import render_column, render_error, render_summary
from index.search import Found, Results
from index.store import Item


def found(ids: list[int], scores: list[float], embed: float = 0.012, search: float = 0.0004) -> Found:
    return Found(Results(np.array([ids]), np.array([scores], np.float32)), embed, search)


INDEX = SimpleNamespace(
    items=[
        Item(f"/p/{i}.jpg", name, "d", 1, 1, 1, 1)
        for i, name in enumerate(["a.jpg", "b.jpg", "<img onerror=x>"])
    ]
)


class Collector(HTMLParser):
    def __init__(self, html: str):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def test_cards_show_rank_score_and_name_and_mark_what_both_found():
    html = Collector(render_column(found([1, 0], [0.9, 0.5]), INDEX, found([0, 2], [0.8, 0.7])))
    cards = [attrs for tag, attrs in html.tags if tag == "button"]
    assert [card["data-id"] for card in cards] == ["1", "0"]
    assert ["shared" in card["class"] for card in cards] == [False, True]
    assert html.text == ["1", "0.900", "b.jpg", "both", "2", "0.500", "a.jpg"]
    assert [attrs["src"] for tag, attrs in html.tags if tag == "img"] == ["thumbs/1", "thumbs/0"]


def test_names_are_escaped():
    html = Collector(render_column(found([2], [0.5]), INDEX, None))
    assert "<img onerror=x>" in html.text
    assert not any("onerror" in attrs for _, attrs in html.tags)
    assert Collector(render_error("<script>alert(1)</script>")).tags == [
        ("p", {"class": "note error", "role": "alert"})
    ]


def test_padding_and_empty_lists():
    assert "data-id" not in render_column(found([-1], [-np.inf]), INDEX, None)
    assert "Nothing found" in render_column(found([-1], [-np.inf]), INDEX, None)


def test_the_summary_has_the_numbers():
    text = " ".join(
        Collector(render_summary(Comparison(found([0], [1]), found([1], [1]), 0.25, 0.125), 12)).text
    )
    assert "overlap@12 25%" in text
    assert "RBO 0.12" in text
    assert text.count("12 + 0.4 ms") == 2
    alone = " ".join(Collector(render_summary(Comparison(found([0], [1]), None, None, None), 12)).text)
    assert "overlap" not in alone
    assert "teacher" not in alone

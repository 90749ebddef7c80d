from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np

from app.page.search.columns import Agreement, SearchColumn
from app.page.search.views import (
    HTML,
    Costs,
    render_column,
    render_details,
    render_numbers,
    render_search,
)
from app.page.views import render_error
from app.server.labels import Labels
from index.search import Found, Results
from index.stores.records import File, Item, Space


def column(
    mode: str, ids: list[int], scores: list[float], decode: float = 0.001, embed: float = 0.012
) -> SearchColumn:
    return SearchColumn(
        mode, Found(Results(np.array([ids]), np.array([scores], np.float32)), embed, 0.0004), decode
    )


NAMES = ["a.jpg", "more/b.jpg", "<img onerror=x>"]
INDEX = SimpleNamespace(
    items=[Item(f"/p/{i}.jpg", name, f"d{i}", 1_500_000, 20, 10, 0) for i, name in enumerate(NAMES)],
    manifest=SimpleNamespace(spaces={"student": Space("s", "s", 8), "teacher": Space("t", "t", 12)}),
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

    def all(self, name: str) -> list[dict[str, str]]:
        return [attrs for tag, attrs in self.tags if tag == name]


def test_cards_show_rank_score_and_name_and_how_far_each_moved():
    html = Collector(
        render_column(
            column("student", [1, 0, 2], [0.9, 0.5, 0.4]),
            INDEX,
            column("teacher", [0, 3, 1], [0.8, 0.7, 0.6]),
        )
    )
    assert [card["data-id"] for card in html.all("li")] == ["1", "0", "2"]
    assert [card["data-digest"] for card in html.all("li")] == ["d1", "d0", "d2"]
    assert [image["src"] for image in html.all("img")] == ["thumbs/d1", "thumbs/d0", "thumbs/d2"]
    text = " ".join(html.text).replace("\u200a", "")
    assert text == "1 ▲2 b 0.900 2 ▼1 a 0.500 3 only here <img onerr or=x> 0.400"  # cut in the middle
    marks = [each for each in html.all("span") if each.get("class", "").startswith("mark")]
    names = [each["title"] for each in html.all("span") if each.get("class") == "name"]
    assert names == ["more/b.jpg", "a.jpg", "<img onerror=x>"]
    assert [mark["title"] for mark in marks][:2] == ["Teacher has it at 3", "Teacher has it at 1"]


def test_a_column_of_the_metadata_names_results():
    index = SimpleNamespace(
        items=INDEX.items, metadata_of=lambda item: [{"product": "Pears <green>"}, {}][item]
    )
    label = partial(Labels("product").of, index)
    html = Collector(render_column(column("student", [0, 1], [0.9, 0.5]), index, label=label))
    assert " ".join(html.text) == "1 Pears <g reen> 0.900 2 b 0.500"
    assert html.all("button")[0]["aria-label"] == "1. Pears <green>, similarity 0.900"
    assert [card["data-name"] for card in html.all("li")] == ["a.jpg", "more/b.jpg"]


def test_cards_have_a_caption_and_a_link_but_no_script():
    rows = [
        {"name": "Pears", "price": "3.90", "url": "https://shop.example/?a=1&b"},
        {"url": "javascript:alert(1)"},
    ]
    index = SimpleNamespace(items=INDEX.items, metadata_of=rows.__getitem__)
    label = partial(Labels("name", "price", "url").of, index)
    html = Collector(render_column(column("student", [0, 1], [0.9, 0.5]), index, label=label))
    assert [link["href"] for link in html.all("a")] == [rows[0]["url"]]
    assert html.all("button")[0]["aria-label"] == "1. Pears, 3.90, similarity 0.900"
    assert "3.90" in html.text
    about = Collector(render_details(0, INDEX.items[0], rows[0], label(0)))
    assert [link["href"] for link in about.all("a")] == [rows[0]["url"]]
    assert about.text.count("Pears") == 1


def test_without_another_side_nothing_is_marked():
    found = column("student", [1], [0.9])
    for other in (None, SearchColumn("teacher", None, missing="gone")):
        assert "mark" not in render_column(found, INDEX, other)


def test_names_are_escaped():
    html = Collector(
        render_column(column("student", [2], [0.5]), INDEX)
        + render_details(2, INDEX.items[2], {"<b>": "<i>"})
    )
    assert not any("onerror" in attrs for _, attrs in html.tags)
    assert not html.all("b") + html.all("i")
    assert Collector(render_error("<script>alert(1)</script>")).tags == [("p", {"class": "note error"})]
    page = Collector(render_search(["student"], [("d0", '"><script>')], {"<b>": ['"><script>']}))
    assert not page.all("script")
    assert not page.all("b")


def test_padding_is_left_out_and_reasons_are_shown():
    assert "data-id" not in render_column(column("student", [-1], [-np.inf]), INDEX)
    assert "No results" in render_column(column("student", [-1], [-np.inf]), INDEX)
    assert "out of money" in render_column(SearchColumn("teacher", None, missing="out of money"), INDEX)
    assert "Teacher is searching…" in HTML.waiting("teacher", 3)


def test_the_numbers():
    columns = [column("student", [0], [1]), column("teacher", [0], [1], embed=0.12)]
    html = Collector(render_numbers(columns, INDEX, Agreement(0.25, 0.125, 12), Costs(2.0, 500)))
    text = " ".join(html.text)
    assert "in common 3 of 12" in text
    assert "order agrees 0.12" in text
    assert "Student 13 ms 1.0 ms 12 ms 0.4 ms 32 3.7 hours" in text
    assert "Teacher 121 ms 1.0 ms 120 ms 0.4 ms 48 33.7 hours costs 2,000.00" in text
    assert "Training used 500 teacher calls (1.00). Every search after the first 500 saves money." in text
    free = render_numbers(columns, INDEX, None, Costs(learnt_from=500))
    assert "Every search after the first 500 saves a call." in free
    widths = [float(each["style"].removeprefix("width:").rstrip("%")) for each in html.all("i")]
    slow = [column("student", [0], [1], 0.0, 0.2996), column("teacher", [0], [1], 0.0, 0.4996)]
    assert "83.3 hours" in render_numbers(slow, INDEX, None, Costs())
    assert "5.8 days" in render_numbers(slow, INDEX, None, Costs())
    assert sum(widths[3:]) > 99.9  # the slower column fills its bar
    assert abs(sum(widths[:3]) - 100 * 0.0134 / 0.1214) < 0.1


def test_numbers_of_one_side_and_of_none():
    alone = " ".join(Collector(render_numbers([column("student", [0], [1])], INDEX, None, Costs())).text)
    assert "in common" not in alone
    soon = Collector(render_numbers([column("student", [0], [1])], INDEX, None, Costs(), "teacher"))
    assert "in common - order agrees -" in " ".join(soon.text)  # they keep their place
    assert "Teacher - - - - - -" in " ".join(soon.text)
    assert "saves money" not in alone
    assert render_numbers([SearchColumn("student", None, missing="x")], INDEX, None, Costs()) == ""


def test_filters_are_offered_where_the_gallery_can_be_narrowed():
    assert "Filters" not in render_search(["student"], [], None)
    page = Collector(render_search(["student", "teacher"], [("d1", "b")], {"brand": ["x", "y"]}))
    assert [each["data-column"] for each in page.all("select") if "data-column" in each] == ["brand"]
    assert [each["data-digest"] for each in page.all("button") if "data-digest" in each] == ["d1"]


def test_numbers_are_offered_in_their_order():
    columns = {"price": ["10.45", "9.98", "100"], "brand": ["x", "9", "10"]}
    offered = [each.get("value") for each in Collector(render_search(["student"], [], columns)).all("option")]
    known = {value for values in columns.values() for value in values}
    assert [value for value in offered if value in known] == ["9.98", "10.45", "100", "x", "9", "10"]


def test_details():
    text = " ".join(Collector(render_details(1, INDEX.items[1], {"brand": "x"})).text)
    assert text == "more/b.jpg Size 20 by 10 pixels, 1.5 MB Id 1 brand x"


def test_copies_of_an_image_are_told():
    copies = (File("/p/c.jpg", "c.jpg", 0), File("/p/d.jpg", "<d>.jpg", 0))
    item = replace(INDEX.items[0], copies=copies)
    told = Collector(render_details(0, item, {}))
    assert "Also as c.jpg, <d>.jpg" in " ".join(told.text)
    index = SimpleNamespace(items=[item, INDEX.items[1]])
    text = " ".join(Collector(render_column(column("student", [0, 1], [0.9, 0.8]), index)).text)
    assert text == "1 a +2 0.900 2 b 0.800"

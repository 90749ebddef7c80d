from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import picture
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from app.page.search.query import MAX_RESULTS, Query, View, read_request
from index.errors import ImageError, UsageError
from index.stores.filters import Filter

SEARCHER = SimpleNamespace(modes=["student", "asymmetric"], index=SimpleNamespace(items=[None] * 5))
ASKED = {"modes": ["student"], "k": 12}


def png(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("turn", range(4))
def test_a_picture_is_turned_then_cut(turn: int):
    image = picture(1, 40, 20)
    query = Query("a", png(image), "d", view=View(turn, (0.25, 0.1, 0.75, 0.5)))
    whole = np.rot90(np.asarray(image), -turn)
    height, width = whole.shape[:2]
    rows, columns = (
        slice(round(0.1 * height), round(0.5 * height)),
        slice(round(0.25 * width), round(0.75 * width)),
    )
    assert np.array_equal(np.asarray(query.photo(8).image), whole[rows, columns])


def test_the_whole_picture_keeps_its_bytes_and_a_part_gets_others():
    data = png(picture(1))
    query = Query.of_bytes(data, "a")
    assert query.photo(8).data is data
    part = Query("a", data, query.digest, view=View(0, (0, 0, 0.5, 1))).photo(8)
    assert part.digest != query.digest
    assert Image.open(BytesIO(part.data)).size == part.image.size


def test_a_small_part_of_a_jpeg_is_decoded_at_a_size_that_serves_it():
    buffer = BytesIO()
    picture(1, 1600, 1600).save(buffer, "JPEG")
    assert Query.of_bytes(buffer.getvalue(), "a").photo(64).image.width == 200
    part = Query("a", buffer.getvalue(), "d", view=View(0, (0, 0, 0.1, 0.1)))
    assert part.photo(64).image.width == 80


def test_a_picture_that_cannot_be_read():
    with pytest.raises(ImageError):
        Query.of_bytes(b"nothing", "a").photo(8)


@given(st.lists(st.floats(), min_size=4, max_size=4), st.integers())
def test_a_view_is_part_of_the_picture_or_refused(box: list[float], turn: int):
    try:
        view = View(turn, tuple(box))
    except UsageError:
        return
    left, top, right, bottom = view.box
    assert 0 <= left < right <= 1
    assert 0 <= top < bottom <= 1
    assert view.turn in range(4)


@pytest.mark.parametrize(
    "asked",
    [
        {},
        [],
        "id",
        {**ASKED, "k": None},
        {**ASKED, "k": float("inf")},
        {**ASKED, "item": "one"},
        {**ASKED, "box": [0, 0, 1]},
        {**ASKED, "box": [float("nan"), 0, 1, 1]},
        {**ASKED, "box": "whole"},
        {**ASKED, "turn": 7},
        {**ASKED, "columns": 3},
        {**ASKED, "like": [0] * 101},
        {**ASKED, "item": 5},
        {**ASKED, "item": -1},
        {**ASKED, "modes": []},
        {**ASKED, "modes": 4},
        {**ASKED, "modes": ["magic"]},
    ],
)
def test_nonsense_is_refused_in_one_line(asked: dict):
    with pytest.raises(UsageError) as caught:
        read_request(asked, SEARCHER)
    assert "\n" not in str(caught.value)


def test_a_wish_is_held_within_bounds():
    request = read_request(
        {**ASKED, "k": 10**9, "cut": -3, "columns": {"brand": 7}, "modes": ["student"] * 9}, SEARCHER
    )
    assert (request.k, request.filter, request.modes) == (
        MAX_RESULTS,
        Filter("", {"brand": "7"}, 0.0),
        ("student", "student"),
    )
    assert (
        read_request({**ASKED, "modes": ["student", "teacher"]}, SEARCHER).modes[1] == "teacher"
    )  # says why it is missing

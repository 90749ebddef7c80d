"""Occlusion maps: what a match rests on lights up."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from conftest import write_embedder
from PIL import Image

from app.page.search.tab import SearchPage
from app.page.search.views import render_why
from app.page.search.why import GREY, GRID, middle, name_place, occlude, occlusion_maps
from app.server.concurrency import SharedSearcher
from index.build.pipeline import build_index
from index.embedders.onnx import OnnxEmbedder
from index.search import Searcher
from index.vectors import UNIT_FLOATS

SIDE, CELLS = 32, 4  # of the tiny students, which take the mean colours of so many cells


def scene(seed: int, *things: tuple[int, int, tuple[int, int, int]]) -> np.ndarray:
    """A pale ground of its own with coloured things, each in one cell of the student's."""
    cells = np.random.default_rng(seed).integers(GREY - 30, GREY + 30, (CELLS, CELLS, 3)).astype(np.uint8)
    for row, column, colour in things:
        cells[row, column] = colour
    return cells.repeat(SIDE // CELLS, 0).repeat(SIDE // CELLS, 1)


def maps_of(student: OnnxEmbedder, first, second) -> tuple[float, np.ndarray]:
    return occlusion_maps(student.embed, UNIT_FLOATS.similarity, first, second)


def cell_of(drops: np.ndarray) -> tuple[int, int]:
    """The student's cell in which the largest drop is: row and column."""
    return tuple(int((each + 0.5) * CELLS / GRID) for each in divmod(int(drops.argmax()), GRID))


@pytest.fixture(scope="module")
def student(tmp_path_factory) -> OnnxEmbedder:
    return OnnxEmbedder(write_embedder(tmp_path_factory.mktemp("why") / "student.onnx", dim=64, seed=1))


@pytest.mark.parametrize(("row", "column", "other"), list(product(range(CELLS), repeat=3)))
def test_the_one_thing_that_two_photos_share_lights_up_in_both(student, row, column, other):
    thing, sky = (row, column, (250, 20, 30)), ((row + 2) % 4, other, (20, 40, 250))
    first, second = scene(1, thing), scene(2, thing, sky)
    whole, drops = maps_of(student, first, second)
    assert drops.shape == (2, GRID, GRID)
    one, two = student.embed([first, second])
    assert whole == pytest.approx(float(one @ two), abs=1e-6)
    row_of, column_of = (np.indices((GRID, GRID)) + 0.5) * CELLS / GRID
    away = np.maximum(abs(row_of - row - 0.5), abs(column_of - column - 0.5)) > 1.5
    for each in drops:
        assert cell_of(each) == (row, column)
        assert each.max() > 0.15
        assert each[away].max() < each.max() / 2


def test_every_part_is_covered_and_no_two_squares_are_alike():
    image = np.zeros((10 * GRID, 10 * GRID, 3), np.uint8)
    covered = occlude(image)
    assert len(covered) == GRID * GRID
    assert not image.any()
    where = np.stack(covered)[..., 0] == GREY
    assert where.any(0).all()
    assert len({each.tobytes() for each in where}) == GRID * GRID
    assert where[GRID * GRID // 2].sum() == 20 * 20


def test_places_have_names():
    for place, name in ((0, "top left"), (24, "middle"), (27, "right"), (45, "bottom")):
        drops = np.zeros((GRID, GRID), np.float32)
        drops.flat[place] = 0.25
        assert name_place(drops) == name
        assert render_why(0.75, np.stack([drops, 0 * drops])) == [
            f"What of your photo the match rests on: most of all the {name}. With that covered, the "
            "similarity falls from 0.75 to 0.50.",
            "No part of this result alone makes the match.",
        ]


def test_what_a_student_does_not_look_at_is_left_out():
    assert middle((0, 0, 1, 1), 0.5) == [0.25, 0.25, 0.75, 0.75]
    assert middle((0.5, 0, 1, 0.5), 1.0) == [0.5, 0, 1, 0.5]


@pytest.fixture(scope="module")
def page(tmp_path_factory, student) -> SearchPage:
    """Two photos with one thing at the top left, and one with the same at the bottom right."""
    root, red = tmp_path_factory.mktemp("photos"), (250, 20, 30)
    for i, things in enumerate(([(0, 0, red)], [(0, 0, red), (3, 0, (10, 90, 10))], [(3, 3, red)])):
        Image.fromarray(scene(i, *things)).save(root / f"{i}.png")
    return SearchPage(SharedSearcher(Searcher(build_index([root], student, root / "idx"), student)))


ASKED = {"modes": ["student"], "k": 2, "item": 0}


def test_the_page_maps_both_photos_of_a_match(page: SearchPage):
    answer = page.why({**ASKED, "hit": 1})
    maps = np.array(answer["maps"])
    assert maps.shape == (2, GRID, GRID)
    assert maps.max((1, 2)).tolist() == [1, 1]
    assert [cell_of(each) for each in maps] == [(0, 0), (0, 0)]
    assert answer["boxes"] == [[0, 0, 1, 1], [0, 0, 1, 1]]
    assert [text.count("most of all the top left") for text in answer["said"]] == [1, 1]


def test_the_map_is_of_the_photo_as_it_is_looked_at(page: SearchPage):
    turned = np.array(page.why({**ASKED, "hit": 2, "turn": 2})["maps"])
    assert cell_of(turned[0]) == (3, 3)
    part = page.why({**ASKED, "hit": 1, "box": [0, 0, 0.5, 0.5]})
    assert part["boxes"] == [[0, 0, 0.5, 0.5], [0, 0, 1, 1]]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"hit": 99}, "The index has no image 99"),
        ({"hit": "x"}, "There is no such image"),
        ({"hit": float("inf")}, "There is no such image"),
        ({}, "The index has no image -1"),
        ({"item": None, "sent": "gone", "hit": 1}, "This photo is not known any more. Search with it again."),
        ({"item": None, "text": "pears", "hit": 1}, "This photo is not known any more."),
        ({"item": None, "address": "http://127.0.0.1/a.png", "hit": 1}, "This photo is not known any more."),
        ({"modes": ["nothing"], "hit": 1}, "There is no mode nothing here"),
    ],
)
def test_what_cannot_be_explained_says_why(page: SearchPage, asked: dict, said: str):
    assert said in page.why({**ASKED, **asked})["error"]


def test_a_photo_that_is_gone_says_so(page: SearchPage):
    gone = Path(page.searcher.index.items[2].path)
    data = gone.read_bytes()
    gone.unlink()
    assert "2.png cannot be read any more" in page.why({**ASKED, "hit": 2})["error"]
    gone.write_bytes(data)

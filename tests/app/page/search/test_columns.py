from pathlib import Path

import numpy as np
import pytest

from app.page.search.columns import SearchColumn, agreement, rank_shifts, search_column
from app.page.search.query import Query, SearchRequest, View
from index.build.pipeline import build_index
from index.embedders.onnx import OnnxEmbedder
from index.errors import ImageError
from index.search import Found, Results, Searcher
from index.stores.filters import Filter

REQUEST = SearchRequest(("student",), 4)


@pytest.fixture
def searcher(folder: Path, tmp_path: Path, student_file: Path, teacher_file: Path) -> Searcher:
    student, teacher = OnnxEmbedder(student_file), OnnxEmbedder(teacher_file)
    return Searcher(build_index([folder], student, tmp_path / "idx", teacher), student, teacher)


def listed(*ids: int) -> SearchColumn:
    scores = -np.arange(len(ids), dtype=np.float32)
    return SearchColumn("student", Found(Results(np.array([ids]), scores[None]), 0, 0))


def test_both_sides_find_and_agree_as_their_lists_do(searcher: Searcher):
    for item in range(12):
        columns = [
            search_column(searcher, Query.of_item(searcher, item), mode, REQUEST)
            for mode in ("student", "teacher")
        ]
        assert all(item not in column.ids and len(column.ids) == 4 for column in columns)
        agreed = agreement(*columns)
        assert agreed.overlap == len({*columns[0].ids} & {*columns[1].ids}) / 4
        assert 0 <= agreed.rbo <= 1
        assert all(column.decode_seconds > 0 < column.seconds - column.decode_seconds for column in columns)


def test_a_part_of_an_image_does_not_find_that_image(searcher: Searcher):
    whole = Query.of_item(searcher, 3)
    part = search_column(searcher, Query.of_item(searcher, 3), "student", REQUEST)
    cut = type(whole)(whole.name, whole.data, whole.digest, True, View(0, (0, 0, 0.98, 0.98)))
    column = search_column(searcher, cut, "student", REQUEST)
    assert 3 not in column.ids
    assert len(column.ids) == 4
    assert part.ids[0] in column.ids


def test_shifts_say_how_many_ranks_higher(searcher: Searcher):
    assert rank_shifts(listed(5, 6, 7, 8), listed(7, 6, 5, 9)) == [2, 0, -2, None]
    assert agreement(listed(1, 2), listed(2, 1)).overlap == 1
    assert agreement(listed(1, 2), listed(1)).overlap == 0.5
    assert agreement(listed(1), listed(-1)) is None


def test_without_a_teacher_its_side_says_why(searcher: Searcher):
    alone = Searcher(searcher.index, searcher.models["student"])
    column = search_column(alone, Query.of_item(alone, 0), "teacher", REQUEST)
    assert (column.found, column.ids, column.missing) == (None, [], alone.teacher_missing)
    assert agreement(listed(1), column) is None


def test_a_picture_that_cannot_be_read_is_said_in_one_line(searcher: Searcher):
    with pytest.raises(ImageError, match=r"Can't open a\.pdf: not an image .* Use JPEG"):
        search_column(searcher, Query.of_bytes(b"%PDF", "a.pdf"), "student", REQUEST)


def test_a_search_is_narrowed(searcher: Searcher):
    request = SearchRequest(("student",), 4, filter=Filter("more/", cut=0.1))
    column = search_column(searcher, Query.of_item(searcher, 0), "student", request)
    assert {searcher.index.items[item].name[:5] for item in column.ids} == {"more/"}

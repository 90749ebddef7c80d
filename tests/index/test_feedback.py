from pathlib import Path

import numpy as np
import pytest
from conftest import picture

from index.build.pipeline import build_index
from index.embedders.onnx import OnnxEmbedder
from index.errors import UsageError
from index.feedback import LIKE, UNLIKE, Examples, rocchio
from index.images.decode import decode
from index.search import Searcher
from index.vectors import pack


def test_a_query_moves_by_the_means_of_the_examples(unit_rows):
    queries, like, unlike = unit_rows(2, 8), unit_rows(3, 8), unit_rows(1, 8)
    moved = rocchio(queries, like, unlike)
    wanted = queries + LIKE * like.mean(axis=0) - UNLIKE * unlike.mean(axis=0)
    np.testing.assert_allclose(moved, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), atol=1e-6)
    assert moved.dtype == np.float32
    np.testing.assert_allclose(rocchio(queries, like[:0], unlike[:0]), queries, atol=1e-6)


def test_codes_count_as_the_floats_of_their_signs(unit_rows):
    signs = np.sign(unit_rows(3, 16)) / 4
    np.testing.assert_allclose(
        rocchio(signs[:1], pack(signs[1:]), signs[:0]), rocchio(signs[:1], signs[1:], signs[:0])
    )


def test_examples_that_leave_nothing_are_refused():
    row = np.array([[1.0, 0.0]], np.float32)
    with pytest.raises(UsageError, match="cancel the query out"):
        rocchio(row * np.float32(UNLIKE), row[:0], row)


@pytest.fixture
def searcher(folder: Path, tmp_path: Path, student_file: Path, teacher_file: Path) -> Searcher:
    student, teacher = OnnxEmbedder(student_file), OnnxEmbedder(teacher_file)
    return Searcher(build_index([folder], student, tmp_path / "idx", teacher), student, teacher)


@pytest.mark.parametrize("mode", ["student", "teacher", "rerank"])
def test_examples_are_not_found_and_draw_the_search(searcher: Searcher, mode: str):
    photo = decode((Path(searcher.index.items[0].path)).read_bytes(), "photo", 64)
    before = [item for item, _ in searcher.find([photo], mode, 12).results.hits()]
    last = before[-1]
    examples = Examples(like=[last], unlike=[before[0]])
    after = searcher.find([photo], mode, 12, None, examples).results
    assert {item for item, _ in after.hits()} == set(before) - {last, before[0]}
    assert searcher.search_items([0], mode, 12, examples=examples).ids.tolist() == after.ids.tolist()
    shown = decode(Path(searcher.index.items[last].path).read_bytes(), "shown", 64)  # the photo is its item
    by_photo = searcher.find([photo], mode, 12, None, Examples(like=[shown], unlike=[before[0]])).results
    np.testing.assert_array_equal(by_photo.ids, after.ids)
    drawn = dict(searcher.find([photo], mode, 12, None, Examples(unlike=[before[0]])).results.hits())
    assert last in drawn


def test_an_example_from_elsewhere_draws_too(searcher: Searcher, tmp_path: Path):
    picture(77).save(tmp_path / "other.png")
    other = decode((tmp_path / "other.png").read_bytes(), "other", 64)
    near = searcher.find([other], "student", 1).results.ids[0, 0]
    photo = decode(Path(searcher.index.items[0].path).read_bytes(), "photo", 64)
    scores = [
        dict(searcher.find([photo], "student", 12, None, examples).results.hits()).get(near)
        for examples in (Examples(unlike=[other]), Examples(), Examples(like=[other]))
    ]
    if near != 0:
        assert scores[0] < scores[1] < scores[2]

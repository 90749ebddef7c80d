from pathlib import Path

import pytest

from app.compare import compare, milliseconds_per_image
from index.embedder import OnnxEmbedder
from index.images import find_images, read_photo
from index.pipeline import build_index
from index.search import Searcher


@pytest.fixture
def searcher(folder: Path, tmp_path: Path, student_file: Path, teacher_file: Path) -> Searcher:
    student, teacher = OnnxEmbedder(student_file), OnnxEmbedder(teacher_file)
    return Searcher(build_index([folder], student, tmp_path / "idx", teacher), student, teacher)


def test_agreement_is_that_of_the_two_lists(searcher: Searcher, folder: Path):
    for file in find_images([folder]):
        result = compare(searcher, read_photo(file), 4)
        student, teacher = set(result.student.results.ids[0]), set(result.teacher.results.ids[0])
        assert result.overlap == len(student & teacher) / 4
        assert 0 <= result.rbo <= 1
        assert result.student.embed_seconds > 0 < result.student.search_seconds


def test_without_a_teacher_there_is_no_agreement(searcher: Searcher, folder: Path):
    alone = Searcher(searcher.index, searcher.models["student"])
    result = compare(alone, read_photo(find_images([folder])[0]), 4)
    assert result.teacher is result.overlap is result.rbo is None


def test_time_is_measured(searcher: Searcher, folder: Path):
    photos = [read_photo(file) for file in find_images([folder])[:2]]
    assert 0 < milliseconds_per_image(searcher.models["student"], photos, rounds=2) < 1000

from pathlib import Path

import numpy as np
import pytest

from index.embedder import OnnxEmbedder
from index.errors import UsageError
from index.images import ImageFile, read_photo
from index.pipeline import build_index
from index.search import Results, Searcher, open_searcher
from index.teacher import TeacherSpec
from index.teacher_space import TeacherSpace


@pytest.fixture
def space(unit_rows) -> TeacherSpace:
    return TeacherSpace(unit_rows(1, 12)[0] * 0, np.eye(8, 12, dtype=np.float32))


@pytest.fixture
def searcher(folder: Path, tmp_path: Path, student_file: Path, teacher_file: Path, space) -> Searcher:
    student, teacher = OnnxEmbedder(student_file), OnnxEmbedder(teacher_file)
    return Searcher(build_index([folder], student, tmp_path / "idx", teacher, space), student, teacher)


def photo(folder: Path, name: str):
    return read_photo(ImageFile(folder / name, name))


def test_results_check_themselves():
    ids = np.array([[1, 2]])
    with pytest.raises(ValueError, match="must fall"):
        Results(ids, np.array([[0.1, 0.2]], np.float32))
    with pytest.raises(ValueError, match="do not fit"):
        Results(ids, np.array([[0.1]], np.float32))


@pytest.mark.parametrize("mode", ["student", "teacher"])
def test_search_is_exact_and_leaves_the_query_out(searcher: Searcher, folder: Path, mode: str):
    vectors = searcher.index.vectors(mode)
    for i, entry in enumerate(searcher.index.items):
        found = searcher.find([photo(folder, entry.name)], mode, 5).results
        similarity = vectors @ vectors[i]
        similarity[i] = -np.inf
        assert found.ids[0].tolist() == np.argsort(-similarity, kind="stable")[:5].tolist()
        np.testing.assert_allclose(found.scores[0], np.sort(similarity)[::-1][:5], atol=1e-5)


def test_asymmetric_search_compares_the_student_with_the_projected_teacher(searcher, folder, space):
    entry = searcher.index.items[4]
    projected = space.project(np.asarray(searcher.index.vectors("teacher")))
    similarity = projected @ searcher.index.vectors("student")[4]
    similarity[4] = -np.inf
    found = searcher.find([photo(folder, entry.name)], "asymmetric", 3).results
    assert found.ids[0].tolist() == np.argsort(-similarity)[:3].tolist()


def test_copies_of_the_query_are_left_out_too(folder, tmp_path, student_file):
    (folder / "copy.png").write_bytes((folder / "0.png").read_bytes())
    student = OnnxEmbedder(student_file)
    searcher = Searcher(build_index([folder], student, tmp_path / "idx"), student)
    found = searcher.find([photo(folder, "0.png")], "student", 99).results
    names = [searcher.index.items[i].name for i in found.ids[0] if i >= 0]
    assert len(names) == 11
    assert not {"0.png", "copy.png"} & set(names)


def test_more_than_there_is_gives_all_there_is(searcher, unit_rows):
    found = searcher.search(unit_rows(2, 8), "student", 100)
    assert found.ids.shape == (2, 12)
    assert sorted(found.ids[0].tolist()) == list(range(12))


def test_wrong_modes_and_depths_are_usage_errors(searcher, unit_rows, student_file):
    with pytest.raises(UsageError, match="mode 'psychic', only student, teacher, asymmetric"):
        searcher.search(unit_rows(1, 8), "psychic", 1)
    with pytest.raises(UsageError, match="-k must be at least 1"):
        searcher.search(unit_rows(1, 8), "student", 0)
    alone = Searcher(searcher.index, OnnxEmbedder(student_file))
    assert alone.modes == ["student", "asymmetric"]
    assert alone.teacher_missing


def test_an_index_of_another_model_is_refused_by_name(searcher, teacher_file):
    with pytest.raises(UsageError, match=r"another student: student\.onnx .* not teacher\.onnx"):
        Searcher(searcher.index, OnnxEmbedder(teacher_file))
    with pytest.raises(UsageError, match="another teacher"):
        open_searcher(searcher.index.path, TeacherSpec(str(searcher.index.model_file)))


def test_a_remembered_teacher_is_found_again_or_its_absence_explained(searcher, teacher_file):
    path = searcher.index.path
    assert "teacher" in open_searcher(path).modes
    assert "teacher" not in open_searcher(path, with_teacher=False).modes
    moved = teacher_file.rename(teacher_file.with_name("moved.onnx"))
    without = open_searcher(path)
    assert without.modes == ["student", "asymmetric"]
    assert "does not exist" in without.teacher_missing
    assert "--teacher" in without.teacher_missing
    assert "teacher" in open_searcher(path, TeacherSpec(str(moved))).modes


def test_items_are_searched_with_by_their_stored_vectors_and_no_model(searcher, folder):
    alone = Searcher(searcher.index, searcher.models["student"])
    assert "teacher" not in alone.modes
    assert alone.stored_modes == ["student", "teacher", "asymmetric"]
    for mode in alone.stored_modes:
        found = alone.search_items([3, 7], mode, 5)
        for row, item in enumerate((3, 7)):
            entry = searcher.index.items[item]
            expected = searcher.find([photo(folder, entry.name)], mode, 5).results
            assert found.ids[row].tolist() == expected.ids[0].tolist()
            np.testing.assert_allclose(found.scores[row], expected.scores[0], atol=1e-5)
    with pytest.raises(UsageError, match="mode 'psychic'"):
        alone.search_items([0], "psychic", 5)


def test_copies_of_an_item_are_left_out_too(folder, tmp_path, student_file):
    (folder / "copy.png").write_bytes((folder / "0.png").read_bytes())
    student = OnnxEmbedder(student_file)
    searcher = Searcher(build_index([folder], student, tmp_path / "idx"), student)
    names = [item.name for item in searcher.index.items]
    found = searcher.search_items([names.index("0.png")], "student", 99).ids[0]
    assert sorted(found[found >= 0]) == [
        i for i, name in enumerate(names) if name not in ("0.png", "copy.png")
    ]

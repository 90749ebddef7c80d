from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from index.build.pipeline import build_index
from index.embedders.onnx import OnnxEmbedder
from index.embedders.teacher_space import TeacherSpace
from index.errors import UsageError
from index.images.decode import read_photo
from index.images.file import ImageFile
from index.search import Results, Searcher, open_searcher
from index.stores.filters import Filter
from index.stores.options import IndexOptions
from index.teachers.spec import TeacherSpec
from index.text.models import Text


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
    with pytest.raises(UsageError, match="mode 'psychic', only student, teacher, asymmetric, rerank"):
        searcher.search(unit_rows(1, 8), "psychic", 1)
    with pytest.raises(UsageError, match="-k must be at least 1"):
        searcher.search(unit_rows(1, 8), "student", 0)
    alone = Searcher(searcher.index, OnnxEmbedder(student_file))
    assert alone.modes == ["student", "asymmetric"]
    assert alone.teacher_missing.endswith("Index again with --teacher.")


def test_a_wrong_depth_shows_before_a_teacher_or_a_ranker_is_asked(searcher, folder, monkeypatch):
    monkeypatch.setattr(searcher.models["teacher"], "embed", lambda _batch: pytest.fail("asked"))
    with pytest.raises(UsageError, match="-k must be at least 1, not 0"):
        searcher.find([photo(folder, "3.png")], "teacher", 0)
    searcher.reranker = SimpleNamespace(decode_side=1, order=lambda *_: pytest.fail("asked"))
    with pytest.raises(UsageError, match="-k must be at least 1, not -2"):
        searcher.find([photo(folder, "3.png")], "rerank", -2)


def test_of_the_modes_of_vectors_a_ranker_takes_one_away(searcher):
    searcher.reranker = SimpleNamespace()
    assert searcher.vector_modes == ["student", "teacher", "asymmetric"]
    assert searcher.modes == [*searcher.vector_modes, "rerank"]


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


def test_reranking_orders_what_the_student_found_by_the_teacher(searcher, folder, monkeypatch):
    monkeypatch.setattr("index.search.RERANKED", 5)
    calls = []
    teacher = searcher.models["teacher"]
    ask = teacher.embed
    monkeypatch.setattr(teacher, "embed", lambda batch: calls.append(len(batch)) or ask(batch))
    query = photo(folder, "3.png")
    found = searcher.find([query], "rerank", 4).results
    assert calls == [1]
    five = searcher.find([query], "student", 5).results.ids[0]
    similarity = searcher.index.vectors("teacher") @ ask([teacher.prepare(query)])[0]
    best = five[np.argsort(-similarity[five])][:4]
    assert found.ids[0].tolist() == best.tolist()
    np.testing.assert_allclose(found.scores[0], similarity[best], atol=1e-5)


def test_reranking_needs_the_teacher_and_both_vectors(searcher, student_file, unit_rows):
    assert searcher.modes[-1] == "rerank"
    with pytest.raises(UsageError, match="teacher_vectors"):
        searcher.search(unit_rows(1, 8), "rerank", 3)
    alone = Searcher(searcher.index, OnnxEmbedder(student_file))
    assert "rerank" not in alone.modes
    found = alone.search(unit_rows(1, 8), "rerank", 3, teacher_vectors=unit_rows(1, 12))
    assert found.ids.shape == (1, 3)  # vectors are enough


@pytest.fixture
def with_metadata(folder: Path, tmp_path: Path, student_file: Path, teacher_file: Path) -> Searcher:
    rows = [f"{i}.png,{'odd' if i % 2 else 'even'}" for i in range(10)]
    (tmp_path / "table.csv").write_text("\n".join(["path,parity", *rows]))
    student, teacher = OnnxEmbedder(student_file), OnnxEmbedder(teacher_file)
    index = build_index(
        [folder], student, tmp_path / "idx", teacher, options=IndexOptions(metadata=tmp_path / "table.csv")
    )
    return Searcher(index, student, teacher)


@pytest.mark.parametrize("mode", ["student", "teacher", "rerank"])
def test_a_narrow_search_ranks_what_it_keeps_and_nothing_else(with_metadata, folder, mode):
    searcher = with_metadata
    assert searcher.index.columns == {"parity": ["even", "odd"]}
    query = photo(folder, "3.png")
    names = [item.name for item in searcher.index.items]

    def found(narrow):
        ids = searcher.find([query], mode, 99, narrow).results.ids[0]
        return [names[i] for i in ids if i >= 0]

    every = found(None)
    assert len(every) == 11
    assert found(Filter(columns={"parity": "odd"})) == [
        n for n in every if n in {f"{i}.png" for i in (1, 5, 7, 9)}
    ]
    assert found(Filter("more/")) == [name for name in every if name.startswith("more/")]
    with pytest.raises(UsageError, match=r"parity=odd and .*: parity is even, odd; paths start with more/"):
        found(Filter("more/", {"parity": "odd"}))
    with pytest.raises(UsageError, match="no column 'weight', only parity"):
        found(Filter(columns={"weight": "1"}))


def test_a_cut_ends_each_list_where_the_scores_fall_off(searcher, unit_rows):
    queries = unit_rows(4, 8)
    every = searcher.search(queries, "student", 12)
    cut = searcher.search(queries, "student", 12, filter=Filter(cut=0.8))
    for row in range(4):
        kept = every.scores[row] >= 0.8 * every.scores[row, 0]
        assert 0 < kept.sum() < 12
        assert cut.ids[row, : kept.sum()].tolist() == every.ids[row, kept].tolist()
        assert (cut.ids[row, kept.sum() :] == -1).all()


def test_a_wrong_column_shows_before_the_teacher_is_asked(with_metadata, folder, monkeypatch):
    monkeypatch.setattr(with_metadata.models["teacher"], "embed", lambda _batch: pytest.fail("asked"))
    with pytest.raises(UsageError, match="no column 'weight'"):
        with_metadata.find([photo(folder, "3.png")], "rerank", 3, Filter(columns={"weight": "1"}))


def test_an_index_without_metadata_has_no_columns(searcher):
    assert searcher.index.columns == {}


def test_a_batch_finds_what_each_finds_alone(searcher, unit_rows):
    queries = unit_rows(5, 8)
    together = searcher.search(queries, "student", 4, [[1], [], [2, 3], [], []])
    for row in range(5):
        alone = searcher.search(queries[row : row + 1], "student", 4, [[[1], [], [2, 3], [], []][row]])
        assert alone.ids[0].tolist() == together.ids[row].tolist()


def test_an_approximate_index_is_searched_as_it_was_tuned(folder, tmp_path, student_file):
    student = OnnxEmbedder(student_file)
    searcher = Searcher(
        build_index([folder], student, tmp_path / "idx", options=IndexOptions(factory="SQ4")), student
    )
    made = searcher.index.manifest.spaces["student"]
    assert made.refine > 0  # four bits a number do not tell twelve pictures apart
    assert made.recall >= 0.95
    vectors = searcher.index.vectors("student")
    found = searcher.search(vectors[:3], "student", 12)
    np.testing.assert_allclose(found.scores, -np.sort(-(vectors[:3] @ vectors.T)), atol=1e-6)


def test_items_are_searched_with_by_their_stored_vectors_and_no_model(searcher, folder):
    alone = Searcher(searcher.index, searcher.models["student"])
    assert "teacher" not in alone.modes
    assert alone.stored_modes == ["student", "teacher", "asymmetric", "rerank"]
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


def test_words_leave_out_the_vectors_of_the_teacher_before_an_upgrade(searcher: Searcher):
    searcher.text = SimpleNamespace(space=object())
    assert searcher.text_modes == searcher.stored_modes
    spaces = searcher.index.manifest.spaces
    spaces["student"] = replace(spaces["student"], queries="a later student")
    assert set(searcher.stored_modes) - set(searcher.text_modes) == {"teacher", "rerank"}
    for mode in ("teacher", "rerank"):
        with pytest.raises(
            UsageError, match=r"in mode student.* alone: its teacher's vectors are of the teacher"
        ):
            searcher.find_text(Text("red"), mode, 3)

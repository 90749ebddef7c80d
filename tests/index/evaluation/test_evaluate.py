import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import picture
from PIL import ImageEnhance
from sklearn.metrics import average_precision_score
from teacher_server import TeacherServer, serving

from index.build.pipeline import build_by_name, build_index
from index.embedders.onnx import OnnxEmbedder
from index.embedders.options import EmbedderOptions
from index.errors import RetrievalError, UsageError
from index.evaluation.evaluate import evaluate_by_name, evaluate_labelled, label_items, read_labels
from index.evaluation.rankings import Options
from index.images.decode import read_photo
from index.search import Searcher, open_searcher
from index.stores.writing.store import FolderStore
from index.teachers.ledger_report import read_account
from index.teachers.spec import TeacherSpec


def write_csv(path: Path, rows: list[tuple[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            [("path", "label", "group"), *((name, label, "x") for name, label in rows)]
        )
    return path


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Five motifs, four gallery views and two queries of each."""
    rows: dict[str, list[tuple[str, str]]] = {"gallery": [], "queries": []}
    rng = np.random.default_rng(0)
    for split, views in (("gallery", 4), ("queries", 2)):
        (tmp_path / split).mkdir()
        for motif in range(5):
            for view in range(views):
                name = f"{split}/{motif}-{view}.png"
                ImageEnhance.Color(picture(motif)).enhance(rng.uniform(0, 2)).save(tmp_path / name)
                rows[split].append((name, str(motif)))
        write_csv(tmp_path / f"{split}.csv", rows[split])
    return tmp_path


@pytest.fixture
def searcher(labelled: Path, student_file: Path, teacher_file: Path) -> Searcher:
    student, teacher = OnnxEmbedder(student_file), OnnxEmbedder(teacher_file)
    index = build_index([labelled / "gallery"], student, labelled / "idx", teacher)
    return Searcher(index, student, teacher)


def test_figures_are_those_of_an_independent_computation(searcher: Searcher, labelled: Path):
    queries, labels = read_labels(labelled / "queries.csv"), read_labels(labelled / "gallery.csv")
    scores = evaluate_labelled(searcher, queries, labels, Options(["student", "teacher"]))
    gallery = np.array([Path(item.path).stem[0] for item in searcher.index.items])
    for mode in ("student", "teacher"):
        others = Searcher(searcher.index, searcher.models["student"], searcher.models["teacher"])
        precision, first = [], []
        for query in queries:
            vector = others.models[mode].embed([others.models[mode].prepare(read_photo(query.file))])
            similarity = (vector @ searcher.index.vectors(mode).T)[0]
            precision.append(average_precision_score(gallery == query.label, similarity))
            first.append(gallery[similarity.argmax()] == query.label)
        assert scores[mode]["mAP"] == pytest.approx(np.mean(precision))
        assert scores[mode]["R@1"] == pytest.approx(np.mean(first))
        assert scores[mode]["queries"] == 10
    assert scores["teacher"]["overlap@10"] == scores["teacher"]["RBO"] == pytest.approx(1)
    assert 0 < scores["student"]["overlap@10"] < 1


def test_a_query_from_the_gallery_never_finds_itself(searcher: Searcher, labelled: Path):
    labels = read_labels(labelled / "gallery.csv")
    # Each item alone in its class: nothing but itself could be relevant.
    alone = [type(entry)(entry.file, str(i)) for i, entry in enumerate(labels)]
    with pytest.raises(RetrievalError, match="No query has an image of its label"):
        evaluate_labelled(searcher, alone, alone, Options(["student"]))
    scores = evaluate_labelled(searcher, labels, labels, Options(["student"]))
    assert scores["student"]["queries"] == 20


def test_labels_find_items_by_link_and_by_content(searcher: Searcher, labelled: Path, tmp_path: Path):
    moved = tmp_path / "moved"
    shutil.copytree(labelled / "gallery", moved / "gallery")
    shutil.copy(labelled / "gallery.csv", moved / "gallery.csv")
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "gallery").symlink_to(labelled / "gallery")
    shutil.copy(labelled / "gallery.csv", linked / "gallery.csv")
    direct = label_items(searcher.index, read_labels(labelled / "gallery.csv"))
    assert sorted(direct) == sorted(str(motif) for motif in range(5) for _ in range(4))
    for other in (moved, linked):
        np.testing.assert_array_equal(label_items(searcher.index, read_labels(other / "gallery.csv")), direct)


def test_wrong_csv_files_and_modes_are_usage_errors(searcher: Searcher, labelled: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="cannot be read as a CSV"):
        read_labels(tmp_path / "none.csv")
    (tmp_path / "bad.csv").write_text("file,class\na,b\n")
    with pytest.raises(UsageError, match="needs a header `path,label`"):
        read_labels(tmp_path / "bad.csv")
    for short in ("dog", ",b.png", "dog,"):
        (tmp_path / "short.csv").write_text(f"label,path\ncat,a.png\n{short}\n")
        with pytest.raises(UsageError, match="has a row without a path or label"):
            read_labels(tmp_path / "short.csv")
    (tmp_path / "two.csv").write_text("path,label\na.png,cat\nb.png,cat\na.png,cat\na.png,dog\n")
    with pytest.raises(UsageError, match=r"two\.csv gives a\.png more than one label"):
        read_labels(tmp_path / "two.csv")
    strangers = read_labels(write_csv(tmp_path / "x.csv", [("nowhere.png", "1")]))
    with pytest.raises(UsageError, match="None of the 1 labelled images"):
        label_items(searcher.index, strangers)
    queries = read_labels(labelled / "queries.csv")
    with pytest.raises(UsageError, match="no mode 'asymmetric'"):
        evaluate_labelled(searcher, queries, queries, Options(["asymmetric"]))


@pytest.mark.parametrize("name", ["loop/a.png", "a\0b.png", "pipe.png"])
def test_a_labelled_file_that_cannot_be_read_is_no_image_of_the_index(
    searcher: Searcher, labelled: Path, name: str, capsys
):
    """Nor is one that nobody may read, which is not tried here, for root may read all."""
    (labelled / "loop").symlink_to("loop")
    os.mkfifo(labelled / "pipe.png")
    rows = [(f"gallery/{motif}-{view}.png", str(motif)) for motif in range(5) for view in range(3)]
    labels = read_labels(write_csv(labelled / "some.csv", [*rows, (name, "9")]))
    assert "9" not in label_items(searcher.index, labels)
    queries = read_labels(write_csv(labelled / "asked.csv", [("queries/0-0.png", "0"), (name, "0")]))
    assert evaluate_labelled(searcher, queries, labels, Options(["student"]))["student"]["queries"] == 1
    assert "skipped" in capsys.readouterr().err


def test_a_labelled_file_too_large_to_be_read_matches_nothing(searcher, labelled, monkeypatch):
    monkeypatch.setattr("index.images.file.MAX_BYTES", 10)
    labels = read_labels(labelled / "gallery.csv")[1:]  # so that contents are compared
    assert (label_items(searcher.index, labels) == "").sum() == 1


def test_by_name_evaluates_every_mode_of_the_index(searcher: Searcher, labelled: Path):
    files = labelled / "idx", labelled / "queries.csv"
    scores = evaluate_by_name(*files, labelled / "gallery.csv", None, TeacherSpec(), "cpu", Options())
    assert list(scores) == ["student", "teacher", "rerank"]
    with pytest.raises(UsageError, match="do not go together"):
        evaluate_by_name(
            *files, labelled / "gallery.csv", labelled / "x.json", TeacherSpec(), "cpu", Options()
        )
    with pytest.raises(UsageError, match="Give --labels with a CSV file, or --revisited"):
        evaluate_by_name(*files, None, None, TeacherSpec(), "cpu", Options())


def test_a_paid_teacher_that_was_replaced_is_noticed_before_it_is_asked(
    labelled: Path, student_file: Path, teacher_file: Path
):
    """Where something is asked at all, and the budget has one to spare."""
    server = TeacherServer(OnnxEmbedder(teacher_file))
    tables = labelled / "queries.csv", labelled / "gallery.csv"
    real, ledger = server._embed, labelled / "l.sqlite"
    with serving(server) as url:

        def spec(budget: int) -> TeacherSpec:
            return TeacherSpec(url, EmbedderOptions(), ledger, budget)

        def spend(budget: int) -> int:
            evaluate_by_name(labelled / "i", *tables, None, spec(budget), "cpu", Options(["student"]))
            return read_account(ledger).spent

        build_by_name([labelled / "gallery"], student_file, FolderStore(labelled / "i"), spec(20), "cpu")
        server._embed = lambda data: real(data)[:, ::-1].copy()
        with pytest.raises(RetrievalError, match=r"answers otherwise about .*png than before"):
            spend(32)
        server._embed = real
        assert spend(31) == 31  # one that shows it, and ten queries
        assert spend(99) == 31
        ledger = labelled / "m.sqlite"
        build_by_name([labelled / "gallery"], student_file, FolderStore(labelled / "j"), spec(20), "cpu")
        assert spend(31) == 31  # one to compare, and ten queries


@pytest.mark.parametrize("allowed", [False, True])
def test_a_file_of_vectors_that_lacks_the_queries_is_left_out(
    labelled: Path, student_file: Path, capsys, allowed: bool
):
    names = [entry.file.path.name for entry in read_labels(labelled / "gallery.csv")]
    rows = np.random.default_rng(0).normal(size=(len(names), 6)).astype(np.float32)
    np.savez(labelled / "vectors.npz", ids=np.array(names), vectors=rows)
    teacher = TeacherSpec(str(labelled / "vectors.npz"), EmbedderOptions(allow_missing=allowed))
    build_by_name([labelled / "gallery"], student_file, FolderStore(labelled / "i"), teacher, "cpu")
    tables = labelled / "queries.csv", labelled / "gallery.csv"
    scores = evaluate_by_name(labelled / "i", *tables, None, TeacherSpec(), "cpu", Options())
    assert "student" in scores
    assert "teacher" not in scores
    assert "The student alone is scored" in capsys.readouterr().err
    searcher = open_searcher(labelled / "i")
    modes = searcher.modes
    lists = [read_labels(table) for table in tables]
    assert evaluate_labelled(searcher, *lists, Options(searcher.vector_modes)) == scores
    assert searcher.modes == modes == ["student", "teacher", "rerank"]  # others search with it, too
    with pytest.raises(UsageError, match="has no mode 'teacher', only student"):
        evaluate_labelled(searcher, *lists, Options(["teacher"]))


def test_whitening_is_learnt_from_the_gallery_and_applied_to_both_sides(searcher: Searcher, labelled: Path):
    queries, labels = read_labels(labelled / "queries.csv"), read_labels(labelled / "gallery.csv")
    scores = evaluate_labelled(searcher, queries, labels, Options(["student"], whiten=0.5))
    gallery = np.array(searcher.index.vectors("student"))
    names = np.array([Path(item.path).stem[0] for item in searcher.index.items])
    values, axes = np.linalg.eigh(np.cov(gallery.T, bias=True))
    order = values.argsort()[::-1][: (values > 1e-10).sum()]

    def whiten(vectors: np.ndarray) -> np.ndarray:
        flat = (vectors - gallery.mean(axis=0)) @ axes[:, order] * (values[order] ** 0.5 + 1e-3) ** -0.5
        return flat / np.linalg.norm(flat, axis=1, keepdims=True)

    model = searcher.models["student"]
    precision = []
    for query in queries:
        vector = model.embed([model.prepare(read_photo(query.file))])
        precision.append(
            average_precision_score(names == query.label, (whiten(vector) @ whiten(gallery).T)[0])
        )
    assert scores["student"]["mAP"] == pytest.approx(np.mean(precision), abs=1e-6)


def test_options_on_the_command_line():
    with pytest.raises(UsageError, match="--whiten must lie between 0 and 1"):
        Options(whiten=2.0)


def test_reranking_lies_between_the_student_and_the_teacher(searcher: Searcher, labelled: Path, monkeypatch):
    queries, labels = read_labels(labelled / "queries.csv"), read_labels(labelled / "gallery.csv")
    modes = Options(["student", "teacher", "rerank"])
    whole = evaluate_labelled(searcher, queries, labels, modes)
    assert whole["rerank"] == whole["teacher"]  # there are fewer than a hundred items
    monkeypatch.setattr("index.evaluation.rankings.RERANKED", 1)
    none = evaluate_labelled(searcher, queries, labels, modes)
    assert none["rerank"] == none["student"] != whole["rerank"]


def test_queries_without_an_image_of_their_label_are_counted(searcher: Searcher, labelled: Path, capsys):
    queries, labels = read_labels(labelled / "queries.csv"), read_labels(labelled / "gallery.csv")
    known = [entry for entry in labels if entry.label != "0"]
    assert evaluate_labelled(searcher, queries, known, Options(["student"]))["student"]["queries"] == 8
    assert "2 of 10 queries left out: the index has no image of their label." in capsys.readouterr().err


def test_a_folder_is_no_table_of_labels(tmp_path: Path):
    with pytest.raises(UsageError, match=r"is a folder\. Give a CSV file with the columns path and label"):
        read_labels(tmp_path)

"""A new teacher for an old index."""

import re
import shlex
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import picture, write_embedder

from distill.fit import Former
from distill.options import Options, Target
from distill.targets.placement import place
from distill.training.recipes import Recipe
from distill.upgrade import bill_upgrade, sum_up, upgrade_by_name
from index.build.pipeline import build_by_name
from index.build.rewrite import replace_student
from index.embedders.onnx import OnnxEmbedder
from index.errors import UsageError
from index.search import open_searcher
from index.stores.folder import Index
from index.stores.maintenance import verify_index
from index.stores.options import IndexOptions
from index.stores.writing.store import FolderStore
from index.teachers.spec import TeacherSpec

OPTIONS = Options(
    budget=20, student="test_efficientnet", weights="none", stages=3, size=32, device="cpu", steps=2,
    recipe=Recipe(batch=8),
)  # fmt: skip


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for i in range(30):
        picture(i).save(tmp_path / "photos" / f"{i:02}.png")
    rows = [f"{i:02}.png,{'red' if i % 2 else 'blue'}\n" for i in range(30)]
    (tmp_path / "colours.csv").write_text("path,colour\n" + "".join(rows))
    return tmp_path / "photos"


@pytest.fixture
def index(photos: Path, tmp_path: Path, student_file: Path) -> Path:
    """Made by an old student, with metadata."""
    options = IndexOptions(metadata=tmp_path / "colours.csv")
    build_by_name([photos], student_file, FolderStore(tmp_path / "idx"), TeacherSpec(), "cpu", options)
    return tmp_path / "idx"


def test_queries_improve_at_once_and_the_gallery_follows(index, photos, tmp_path, teacher_file, student_file):
    old = Index(index)
    vectors = np.array(old.rows("student"))
    spec = TeacherSpec(str(teacher_file), ledger=tmp_path / "l.sqlite")
    bill = bill_upgrade(index, spec, tmp_path / "new", OPTIONS)
    assert (bill.images, bill.answered, bill.queries) == (30, 0, 20)
    assert not spec.ledger.exists()
    made, summary = upgrade_by_name(index, spec, tmp_path / "new", OPTIONS)
    assert bill_upgrade(index, spec, tmp_path / "new", OPTIONS).queries == 0
    new = OnnxEmbedder(tmp_path / "new" / "student.onnx")
    assert made.run["asked_now"] == 20
    assert made.run["former"] == OnnxEmbedder(student_file).key
    assert f"--model {tmp_path / 'new' / 'student.onnx'} --out {index} --update" in summary
    searcher = open_searcher(index)
    assert searcher.models["student"].key == new.key
    np.testing.assert_array_equal(searcher.index.rows("student"), vectors)
    assert searcher.index.columns == {"colour": ["blue", "red"]}
    assert verify_index(index) == []

    teacher_file.unlink()  # from now on nobody can be asked
    (photos / "00.png").unlink()
    model, store = tmp_path / "new" / "student.onnx", FolderStore(index)
    report = build_by_name([photos], model, store, TeacherSpec(), "cpu", IndexOptions(update=True))
    made = report.store
    assert len(made) == 29
    assert made.manifest.spaces["student"].key == new.key
    assert made.manifest.spaces["student"].queries == ""
    assert made.columns == {"colour": ["blue", "red"]}
    assert np.abs(np.array(made.rows("student")) - vectors[1:]).max() > 0.01


def test_the_command_that_makes_vectors_again_can_be_typed(index, tmp_path):
    run = {"teacher": {"spec": "its teacher.onnx"}}
    made = SimpleNamespace(summary="Made.", run=run, folder=tmp_path / "new student")
    opened = Index(index)
    opened.manifest = replace(opened.manifest, sources=["/my photos", "/b"], teacher="old.onnx")
    command = re.search(r"again: (.*) \(after", sum_up(opened, made))[1]
    models = ["--model", f"{tmp_path}/new student/student.onnx", "--teacher", "its teacher.onnx"]
    words = ["retrieval", "index", "/my photos", "/b", *models, "--out", str(index), "--update"]
    assert shlex.split(command) == words


def test_the_former_student_may_go_on(index, photos, tmp_path, student_file):
    write_embedder(tmp_path / "other.onnx", dim=8, seed=5)
    other = OnnxEmbedder(tmp_path / "other.onnx")
    replace_student(index, other)
    assert open_searcher(index).models["student"].key == other.key
    options = IndexOptions(update=True)
    picture(99).save(photos / "99.png")
    made = build_by_name([photos], student_file, FolderStore(index), TeacherSpec(), "cpu", options).store
    assert made.manifest.spaces["student"].queries == ""
    assert open_searcher(index).models["student"].key == OnnxEmbedder(student_file).key


def test_what_it_costs_is_said_of_the_photos_that_are_there(index, photos, tmp_path, teacher_file):
    asked = index, TeacherSpec(str(teacher_file), ledger=tmp_path / "l.sqlite"), tmp_path / "new", OPTIONS
    for file in sorted(photos.iterdir())[10:]:
        file.rename(tmp_path / file.name)
    assert (bill_upgrade(*asked).images, bill_upgrade(*asked).queries) == (10, 10)
    photos.rename(tmp_path / "moved")
    with pytest.raises(UsageError, match="None of the images"):
        bill_upgrade(*asked)


@pytest.mark.parametrize("within", ["", "new"])
def test_a_student_is_not_written_into_the_index(index, tmp_path, teacher_file, within):
    before = sorted(path.name for path in index.iterdir())
    ledger = tmp_path / "l.sqlite"
    with pytest.raises(UsageError, match="is in the index folder"):
        bill_upgrade(index, TeacherSpec(str(teacher_file), ledger=ledger), index / within, OPTIONS)
    with pytest.raises(UsageError, match="is in the index folder"):
        upgrade_by_name(index, TeacherSpec(str(teacher_file), ledger=ledger), index / within, OPTIONS)
    assert sorted(path.name for path in index.iterdir()) == before
    assert not ledger.exists()


def test_a_student_that_shrinks_does_so_in_one_process(index, tmp_path, teacher_file, monkeypatch):
    monkeypatch.setattr("distill.pipeline.open_fabric", lambda device: SimpleNamespace(world_size=2))
    small = replace(OPTIONS, weights="auto", target=Target("mflops", 1))
    with pytest.raises(UsageError, match="shrinks in one process"):
        upgrade_by_name(index, TeacherSpec(str(teacher_file)), tmp_path / "new", small)


def test_vectors_of_another_length_are_refused(index, tmp_path):
    write_embedder(tmp_path / "longer.onnx", dim=9)
    with pytest.raises(UsageError, match=r"vectors of length 8; those of longer.onnx have 9"):
        replace_student(index, OnnxEmbedder(tmp_path / "longer.onnx"))
    assert Index(index).manifest.generation == 1


def test_places_are_turned_towards_the_former_space_and_keep_their_similarities(unit_rows):
    features, answers = unit_rows(80, 24), unit_rows(60, 40, seed=1)
    placed = place(features, features, np.arange(60), answers, 8, 0.25)
    turned, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(8, 8)))
    rows = np.arange(10, 80)
    vectors = (placed.rows @ turned)[rows].astype(np.float32)
    aligned = Former("key", rows, vectors).align(placed)
    np.testing.assert_allclose(aligned.rows[rows], vectors, atol=1e-4)
    np.testing.assert_allclose(aligned.rows @ aligned.rows.T, placed.rows @ placed.rows.T, atol=1e-4)
    np.testing.assert_allclose(
        aligned.space.project(answers), placed.space.project(answers) @ turned, atol=1e-4
    )
    noisy = Former("key", rows, unit_rows(70, 8, seed=3)).align(placed)
    np.testing.assert_allclose(noisy.rows @ noisy.rows.T, placed.rows @ placed.rows.T, atol=1e-4)
    assert replace(aligned, trust=placed.trust).facts == placed.facts

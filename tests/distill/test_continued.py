"""Topping a student up, with its teacher and when that is gone."""

import json
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import picture, write_embedder
from safetensors.torch import load_file

from distill import fit, pipeline
from distill.continued import KEPT, _limit, bill_further, continue_by_name, keep_what_it_is, open_teacher
from distill.examples import hold_out
from distill.options import Options
from distill.pipeline import distill_by_name
from distill.report.report import read_run
from distill.training.recipes import Recipe
from index.build.taught import Taught
from index.embedders.onnx import OnnxEmbedder
from index.embedders.options import EmbedderOptions
from index.errors import UsageError
from index.images.decode import read_photo
from index.images.file import digest_pool
from index.images.sources import find_images
from index.teachers.ledger import Ledger
from index.teachers.spec import TeacherSpec

WHAT = {"student": "test_efficientnet", "weights": "none", "stages": 3, "size": 32, "dim": 6}
MORE = Options(budget=10, device="cpu", steps=2, recipe=Recipe(batch=8))


def draw(folder: Path, numbers: Iterable[int]) -> Path:
    folder.mkdir()
    for i in numbers:
        picture(i).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student that was taught on forty pictures, of which twenty are answered."""
    root = tmp_path_factory.mktemp("shelf")
    draw(root / "old", range(40))
    teacher = TeacherSpec(
        str(write_embedder(root / "teacher.onnx", dim=12, side=64, seed=2)), ledger=root / "ledger.sqlite"
    )
    options = replace(MORE, budget=20, **WHAT)
    distill_by_name([root / "old"], teacher, root / "student", options, [20])
    return root


@pytest.fixture
def student(shelf: Path, tmp_path: Path) -> Path:
    """Its folder, and a ledger beside it, which a test may write to."""
    shutil.copyfile(shelf / "ledger.sqlite", tmp_path / "ledger.sqlite")
    return Path(shutil.copytree(shelf / "student", tmp_path / "student"))


@pytest.fixture
def spec(tmp_path: Path) -> TeacherSpec:
    """The ledger, and no word of where the teacher is."""
    return TeacherSpec(ledger=tmp_path / "ledger.sqlite")


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """Thirty pictures, of which five were taught."""
    return draw(tmp_path / "new", range(35, 65))


@pytest.mark.usefixtures("quick_export")
def test_new_photos_alone_are_paid_for_and_old_answers_are_replayed(
    tmp_path, student, new, spec, monkeypatch
):
    started = []

    def train(network, examples, *rest):
        started.append({name: value.clone() for name, value in network.state_dict().items()})
        return train_student(network, examples, *rest)

    train_student = fit.train_student
    monkeypatch.setattr(fit, "train_student", train)
    assert bill_further([str(new)], student, spec, MORE).queries == 10
    made = continue_by_name([str(new)], student, spec, tmp_path / "more", MORE)
    assert made.run["asked_now"] == 10
    assert made.run["queried"] == 30
    assert made.run["former"] == OnnxEmbedder(student / "student.onnx").key
    assert made.run["options"]["size"] == 32
    weights = load_file(student / "student.safetensors")
    assert all((started[0][name] == value).all() for name, value in weights.items())
    assert len(Taught.load(made.folder / "taught.npz").digests) == 65
    again = continue_by_name([str(new)], student, spec, tmp_path / "again", MORE)
    assert again.run["asked_now"] == 0
    assert again.run["training"]["loss"] == made.run["training"]["loss"]


@pytest.mark.slow
def test_in_place_when_the_teacher_is_gone(shelf, student, new, spec, capsys, monkeypatch):
    monkeypatch.setattr("index.teachers.spec.open_embedder", refuse)
    made = continue_by_name([str(new)], student, spec, student, MORE)
    assert "teacher.onnx is not asked; its ledger answers. It is gone." in capsys.readouterr().err
    assert made.run["asked_now"] == 0
    assert made.run["queried"] == 20
    assert len(Taught.load(student / "taught.npz").digests) == 65
    assert read_run(student)["teacher"] == read_run(shelf / "student")["teacher"]


def test_options_that_are_given_join_those_of_before(student, spec, monkeypatch):
    run = json.loads((student / "run.json").read_text())
    run["teacher"]["options"]["size"] = 64
    (student / "run.json").write_text(json.dumps(run))
    monkeypatch.setattr("index.teachers.spec.open_embedder", refuse)
    given = replace(spec, options=EmbedderOptions(allow_missing=True))
    assert open_teacher(student, given, "cpu").options == EmbedderOptions(size=64, allow_missing=True)


def refuse(*_):
    raise UsageError("It is gone.")


@pytest.mark.usefixtures("quick_export")
def test_photos_that_moved_are_known_and_those_that_changed_are_not_asked_about(
    shelf, student, new, spec, tmp_path, capsys
):
    moved = Path(shutil.copytree(shelf / "old", tmp_path / "moved"))
    notes = Taught.load(student / "taught.npz")
    places = [text.replace(str(shelf), str(tmp_path)) for text in notes.locations]
    replace(notes, locations=np.array(places)).save(student / "taught.npz")
    with pytest.raises(UsageError, match="Name their folder"):
        continue_by_name([str(draw(tmp_path / "x", range(70, 80)))], student, spec, tmp_path / "m", MORE)
    draw(tmp_path / "old", range(500, 501)).joinpath("500.png").rename(tmp_path / "old" / "0.png")
    changed = read_photo(find_images([tmp_path / "old"])[0]).digest
    options = replace(MORE, budget=40, also=(str(moved),))  # of which nothing is asked: it was taught
    made = continue_by_name([str(new), str(moved)], student, spec, tmp_path / "more", options)
    assert "gone from where" not in capsys.readouterr().err
    assert made.run["queried"] == 45  # twenty of before, and the 25 that are new
    with Ledger(spec.ledger, made.run["teacher"]["key"]) as ledger:
        assert not ledger.known([changed])


def test_what_cannot_be_is_refused(shelf, student, new, spec, tmp_path, student_file):
    with pytest.raises(UsageError, match="--size is 32 and stays so"):
        continue_by_name([str(new)], student, spec, tmp_path / "m", replace(MORE, size=64))
    with pytest.raises(UsageError, match="was taught on all of these photos"):
        continue_by_name([str(shelf / "old")], student, spec, tmp_path / "m", MORE)
    other = TeacherSpec(str(student_file), ledger=tmp_path / "other.sqlite")
    with pytest.raises(UsageError, match=r"was taught by teacher.onnx, not by student.onnx"):
        continue_by_name([str(new)], student, other, tmp_path / "m", MORE)
    changed = write_embedder(tmp_path / "teacher.onnx", dim=12, side=64, seed=3)
    other = TeacherSpec(str(changed), ledger=tmp_path / "third.sqlite")
    with pytest.raises(UsageError, match=r"^teacher.onnx has changed since it taught"):
        continue_by_name([str(new)], student, other, tmp_path / "m", MORE)
    whole = (student / "student.safetensors").read_bytes()
    (student / "student.safetensors").write_bytes(whole[:99])
    with pytest.raises(UsageError, match=r"student.safetensors is missing or damaged"):
        continue_by_name([str(new)], student, spec, tmp_path / "m", MORE)
    (student / "taught.npz").unlink()
    with pytest.raises(UsageError, match="Distil it again"):
        continue_by_name([str(new)], student, spec, tmp_path / "m", MORE)


@pytest.mark.parametrize("queries", [False, True])
@pytest.mark.usefixtures("quick_export")
def test_what_the_weights_have_learnt_is_not_measured_on(shelf, new, spec, tmp_path, queries):
    """With query photos nothing of the pool was held out the first time."""
    snaps = (str(draw(tmp_path / "snaps", range(500, 520))),) if queries else ()
    options = replace(MORE, budget=40, queries=snaps, **WHAT)
    teacher = TeacherSpec(str(shelf / "teacher.onnx"), ledger=spec.ledger)
    first = distill_by_name([shelf / "old"], teacher, tmp_path / "first", options).run
    seen = []
    real = pipeline.fit_student

    def watch(pool, answered, *rest):
        seen.append({digest for digest, held in zip(answered.digests, answered.held, strict=True) if held})
        return real(pool, answered, *rest)

    monkeypatch = pytest.MonkeyPatch()
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "fit_student", watch)
        continue_by_name([str(new)], tmp_path / "first", teacher, tmp_path / "more", replace(MORE, budget=25))
    old = sorted(digest_pool(find_images([shelf / "old"])))
    held = hold_out(old) if first["training"]["held_out"] else np.zeros(len(old), bool)
    learnt = {digest for digest, out in zip(old, held, strict=True) if not out}
    assert not seen[0] & learnt


@pytest.mark.slow
@pytest.mark.usefixtures("quick_export")
def test_query_photos_of_before_leave_the_budget_to_new_photos(shelf, new, spec, tmp_path):
    teacher = TeacherSpec(str(shelf / "teacher.onnx"), ledger=spec.ledger)
    snaps = (str(draw(tmp_path / "snaps", range(500, 520))),)
    first = distill_by_name(
        [shelf / "old"], teacher, tmp_path / "first", replace(MORE, budget=40, queries=snaps, **WHAT)
    )
    assert first.run["query_photos"] == 8
    chosen = replace(MORE, queries=snaps)
    made = continue_by_name([str(new)], tmp_path / "first", teacher, tmp_path / "more", chosen)
    assert made.run["asked_now"] == 8  # and two answers about query photos, which were paid for before
    again = continue_by_name([str(new)], tmp_path / "first", teacher, tmp_path / "again", chosen)
    assert again.run["asked_now"] == 0
    assert len(made.run["query_digests"]) == 8
    newer = draw(tmp_path / "newer", range(600, 612))
    third = continue_by_name([str(newer)], tmp_path / "more", teacher, tmp_path / "third", chosen)
    assert third.run["asked_now"] == 8


@pytest.mark.usefixtures("quick_export")
@pytest.mark.slow
def test_photos_of_other_queries_count_as_paid_in_an_earlier_try(shelf, new, spec, tmp_path):
    teacher = TeacherSpec(str(shelf / "teacher.onnx"), ledger=spec.ledger)
    snaps = [
        (str(draw(tmp_path / name, range(start, start + 20))),) for name, start in (("a", 500), ("b", 700))
    ]
    distill_by_name(
        [shelf / "old"], teacher, tmp_path / "first", replace(MORE, budget=40, queries=snaps[0], **WHAT)
    )
    others = replace(MORE, queries=snaps[1])
    once = continue_by_name([str(new)], tmp_path / "first", teacher, tmp_path / "once", others)
    assert once.run["asked_now"] == MORE.budget
    again = continue_by_name([str(new)], tmp_path / "first", teacher, tmp_path / "again", others)
    assert again.run["asked_now"] == 0


@pytest.mark.usefixtures("quick_export")
def test_photos_that_were_taught_are_no_query_photos_wherever_they_are(shelf, student, new, spec, tmp_path):
    teacher, snaps = TeacherSpec(str(shelf / "teacher.onnx"), ledger=spec.ledger), tmp_path / "snaps"
    draw(snaps, [*range(25), *range(500, 503)])
    old = draw(tmp_path / "old", range(25, 40))
    with np.load(student / "taught.npz") as taught:
        moved = np.array([str(old / Path(each).name) for each in taught["locations"]])
        np.savez_compressed(tmp_path / "moved.npz", **{**taught, "locations": moved})
    (tmp_path / "moved.npz").replace(student / "taught.npz")
    chosen = replace(MORE, budget=25, queries=(str(snaps),))
    made = continue_by_name([str(new)], student, teacher, tmp_path / "more", chosen)
    assert made.run["query_photos"] == made.run["agreement"]["held_out"] == 3


def test_the_bill_counts_photos_to_ask_about_first(student, new, shelf, spec, tmp_path):
    more = draw(tmp_path / "more", range(300, 303))
    bills = [bill_further([str(new)], student, spec, replace(MORE, also=also)) for also in ((), (str(more),))]
    assert bills[1].images == bills[0].images + 3


def test_a_run_of_a_later_version_is_one_line(student, new, spec, tmp_path):
    run = json.loads((student / "run.json").read_text())
    run["teacher"]["options"]["new"] = 1
    (student / "run.json").write_text(json.dumps(run))
    with pytest.raises(UsageError, match="new"):
        continue_by_name([str(new)], student, spec, tmp_path / "m", MORE)


def test_calls_that_failed_in_another_ledger_raise_no_budget(tmp_path: Path):
    with Ledger(tmp_path / "l.sqlite", "teacher") as ledger:
        assert _limit([], ledger, 10, {"cost": {"failed_calls": 7}}) == 10


@pytest.mark.usefixtures("quick_export")
def test_old_photos_that_the_sample_leaves_out_are_not_said_to_be_gone(
    shelf, student, new, spec, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("distill.continued.MOST", 20)
    continue_by_name([str(new)], student, spec, tmp_path / "more", MORE)
    assert "gone from where" not in capsys.readouterr().err
    old, taught = (
        set(Taught.load(each / "taught.npz").digests.tolist()) for each in (student, tmp_path / "more")
    )
    assert {*sorted(old)[:20]} <= taught  # new photos do not crowd them out


def test_codes_and_copies_are_made_again_unless_others_are_asked_for():
    made = [{"name": name, "admitted": name != "int8"} for name in ("fp32", "fp16", "int8")]
    kept = {name: getattr(Options(), name) for name in KEPT}
    run = {"options": {**kept, "bits": 64}, "variants": made}
    same = keep_what_it_is(Options(), run)
    assert (same.bits, same.variants) == (64, ("fp16",))
    others = keep_what_it_is(Options(bits=128, variants=("int8",)), run)
    assert (others.bits, others.variants) == (128, ("int8",))
    assert keep_what_it_is(Options(), {"options": kept}).bits == 0

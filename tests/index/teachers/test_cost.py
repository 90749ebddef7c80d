"""What is said before anything is spent."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import picture, write_embedder
from teacher_server import TeacherServer, serving

from index.build.embed import embed_files
from index.build.pipeline import build_index
from index.embedders.base import Calls
from index.embedders.onnx import OnnxEmbedder
from index.embedders.options import EmbedderOptions
from index.errors import BudgetError, UnansweredError, UsageError
from index.images.decode import read_photo
from index.images.file import ImageFile, digest_pool
from index.images.sources import find_images
from index.search import open_searcher
from index.stores.options import IndexOptions
from index.teachers.cost import bill_by_name, format_seconds, make_bill, require_budget
from index.teachers.ledger import Ledger
from index.teachers.spec import TeacherSpec


@pytest.fixture
def teacher(teacher_file: Path) -> OnnxEmbedder:
    return OnnxEmbedder(teacher_file, "cpu")


def test_the_figures(folder, tmp_path, teacher, unit_rows):
    teacher.calls = Calls(concurrency=1)
    files = find_images([folder])
    (folder / "copy.png").write_bytes((folder / "0.png").read_bytes())
    with Ledger(tmp_path / "l.sqlite", teacher.key) as ledger:
        first = make_bill(find_images([folder]), teacher, ledger, 8, wanted=8, price=2.5)
        assert (first.images, first.answered, first.queries, first.seconds) == (12, 0, 8, None)
        assert first.money == pytest.approx(0.02)
        digests = digest_pool(files)[:3]
        ledger.add(digests, unit_rows(3, 12), ledger.reserve(digests, 9, 9).calls, seconds=6.0)
        later = make_bill(files, teacher, ledger, 8, wanted=8)
        assert (later.answered, later.queries, later.spent, later.money) == (3, 5, 3, None)
        assert later.seconds == pytest.approx(10)
        assert make_bill(files, teacher, ledger, 2, wanted=2).queries == 0
        ledger.lose(ledger.reserve(["elsewhere"], 9, 9).calls.values())
        assert make_bill(files, teacher, ledger, 8, wanted=8).queries == 4  # what was lost is spent
    text = str(later)
    for part in ("already answered  3", "queries to make   5", "8, of which 3 spent", "10 s", "no --price"):
        assert part in text


@pytest.mark.parametrize("price", [-1.0, float("nan"), float("inf")])
def test_a_price_that_is_none(tmp_path, teacher, price):
    with (
        Ledger(tmp_path / "l.sqlite", teacher.key) as ledger,
        pytest.raises(UsageError, match="--price must be 0 or more, and finite"),
    ):
        make_bill([], teacher, ledger, 1, price=price)


def test_a_rate_that_is_given_bounds_the_one_that_was_measured(tmp_path, unit_rows):
    spec = TeacherSpec("http://127.0.0.1:9/v1", EmbedderOptions(rate=4, concurrency=3), tmp_path / "l.sqlite")
    model = spec.open_plain("cpu")
    with spec.open_ledger(model.key) as ledger:
        assert make_bill([], model, ledger, 1).rate == 4
        ledger.add(["a"], unit_rows(1, 3), ledger.reserve(["a"], 9, 9).calls, seconds=1.0)
        assert make_bill([], model, ledger, 1).rate == 3  # one a second in each of three lanes


def test_a_budget_that_is_too_small_is_refused_before_anything_is_asked(folder, tmp_path, teacher):
    server = TeacherServer(teacher)
    student = OnnxEmbedder(write_embedder(tmp_path / "s.onnx"), "cpu")
    with serving(server) as url:
        spec = TeacherSpec(url, EmbedderOptions(batch=4), tmp_path / "l.sqlite", budget=11)
        with pytest.raises(BudgetError, match=r"12 images .*Nothing was asked\. Give --budget 12"):
            build_index([folder], student, tmp_path / "idx", spec.open("cpu"))
        assert not server.calls


def test_an_index_of_a_paid_teacher_and_its_searches(folder, tmp_path, teacher):
    """Each image of the gallery is paid once; so is each new query, and a search without budget says so."""
    server = TeacherServer(teacher)
    student = OnnxEmbedder(write_embedder(tmp_path / "s.onnx"), "cpu")
    picture(99).save(tmp_path / "new.png")
    new = read_photo(ImageFile(tmp_path / "new.png", "new.png"))
    with serving(server) as url:
        spec = TeacherSpec(url, EmbedderOptions(batch=4, model="m"), tmp_path / "l.sqlite", budget=12)
        index = build_index([folder], student, tmp_path / "idx", spec.open("cpu"))
        assert sum(server.charged.values()) == 12
        assert index.manifest.spaces["teacher"].dim == 12
        assert index.manifest.teacher_options["model"] == "m"
        build_index([folder], student, tmp_path / "idx", spec.open("cpu"))
        old = read_photo(find_images([folder])[3])
        again = TeacherSpec(url, ledger=tmp_path / "l.sqlite")  # the rest is remembered
        assert open_searcher(tmp_path / "idx", again).find([old], "teacher", 3).results.ids.shape == (1, 3)
        assert sum(server.charged.values()) == 12
        with pytest.raises(BudgetError, match="not asked 1 of 1 questions: 12 of the budget of 0"):
            open_searcher(tmp_path / "idx", again).find([new], "teacher", 3)
        for _ in range(2):
            found = open_searcher(tmp_path / "idx", replace(again, budget=13)).find([new], "teacher", 3)
        assert sum(server.charged.values()) == 13
        build_index([folder], student, tmp_path / "plain", teacher)
        direct = open_searcher(tmp_path / "plain").find([new], "teacher", 3)
        assert found.results.ids.tolist() == direct.results.ids.tolist()


def test_an_update_asks_a_paid_teacher_about_new_images_only(folder, tmp_path, teacher):
    """Even where the ledger is another one, and knows nothing."""
    server = TeacherServer(teacher)
    student = OnnxEmbedder(write_embedder(tmp_path / "s.onnx"), "cpu")
    with serving(server) as url:
        spec = TeacherSpec(url, EmbedderOptions(batch=4), tmp_path / "l.sqlite", budget=12)
        build_index([folder], student, tmp_path / "idx", spec.open("cpu"))
        (folder / "1.png").rename(folder / "moved.png")
        (folder / "copy.png").write_bytes((folder / "2.png").read_bytes())
        another = replace(spec, ledger=tmp_path / "another.sqlite", budget=1)
        assert (
            len(
                build_index(
                    [folder],
                    student,
                    tmp_path / "idx",
                    another.open("cpu"),
                    options=IndexOptions(update=True),
                )
            )
            == 12
        )
        assert sum(server.charged.values()) == 12
        picture(99).save(folder / "new.png")
        assert bill_by_name([folder], another, "cpu", None, update=tmp_path / "idx").queries == 1
        updated = build_index(
            [folder], student, tmp_path / "idx", another.open("cpu"), options=IndexOptions(update=True)
        )
        assert sum(server.charged.values()) == 13
    fresh = build_index([folder], student, tmp_path / "plain", teacher)
    assert list(updated.items) == list(fresh.items)
    np.testing.assert_allclose(updated.vectors("teacher"), fresh.vectors("teacher"), atol=1e-6)


def test_an_index_does_not_choose_whom_to_ask_or_what_to_run(folder, tmp_path, teacher, monkeypatch):
    """An index folder may come from a stranger: what it names must be named again by the user."""
    student = OnnxEmbedder(write_embedder(tmp_path / "s.onnx"), "cpu")
    index = build_index([folder], student, tmp_path / "idx", teacher)
    manifest = index.path / "manifest.json"
    told = manifest.read_text()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "surprise.py").write_text("raise SystemExit('this must not run')")
    for spec in ("surprise:run", "http://127.0.0.1:9/v1/embeddings"):
        manifest.write_text(told.replace(json.dumps(index.manifest.teacher), json.dumps(spec)))
        searcher = open_searcher(tmp_path / "idx")
        assert "teacher" not in searcher.modes
        assert f"Give --teacher {spec}" in searcher.teacher_missing


class Partial(OnnxEmbedder):
    """A model that has no answer for some images."""

    def embed(self, batch):
        dark = {i: "too dark" for i, one in enumerate(batch) if one.mean() < self.least}
        if dark:
            raise UnansweredError("some are too dark", dark)
        return super().embed(batch)


@pytest.mark.parametrize("least", [0, 125, 256])
def test_an_image_without_an_answer_is_listed_and_the_others_go_on(folder, teacher_file, student_file, least):
    partial, student = Partial(teacher_file, "cpu"), OnnxEmbedder(student_file, "cpu")
    partial.least = least
    done = list(embed_files(find_images([folder]), {"student": student, "teacher": partial}, batch=5))
    items = [item for some in done for item in some.items]
    failures = [failure for some in done for failure in some.failures]
    assert len(items) + len(failures) == 12
    assert (len(failures) > 0) == (least > 0)
    assert (len(items) > 0) == (least < 256)
    for some in done:
        for vectors in some.vectors.values():
            assert len(vectors) == len(some.items)


def test_a_bill_needs_a_teacher(folder):
    with pytest.raises(UsageError, match="Give --teacher"):
        bill_by_name([folder], TeacherSpec(), "cpu", None)


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5 s"), (119, "119 s"), (600, "10 min"), (7300, "2 h 02 min")]
)
def test_times_for_people(seconds, text):
    assert format_seconds(seconds) == text


def test_the_budget_is_enough_or_not():
    require_budget(10, 2, 12)
    with pytest.raises(BudgetError):
        require_budget(10, 3, 12)


def test_a_bill_writes_nothing(folder, tmp_path, monkeypatch):
    """Nor does it bind a ledger to what was assumed when it was made."""
    monkeypatch.setattr("index.teachers.ledger.user_cache_path", lambda name: tmp_path / "cache")
    here = set(tmp_path.rglob("*"))
    for ledger in (tmp_path / "l.sqlite", None):
        assert (
            bill_by_name([folder], TeacherSpec("http://127.0.0.1:9/v1", ledger=ledger), "cpu", 1.0).images
            == 12
        )
    assert set(tmp_path.rglob("*")) == here
    with Ledger(tmp_path / "l.sqlite", "http://127.0.0.1:9/v1#") as kept:
        kept.add(digest_pool(find_images([folder]))[:5], np.ones((5, 3), np.float32))
    before = (tmp_path / "l.sqlite").read_bytes()
    again = TeacherSpec("http://127.0.0.1:9/v1", ledger=tmp_path / "l.sqlite", budget=9)
    assert bill_by_name([folder], again, "cpu", 1.0).answered == 5
    assert (tmp_path / "l.sqlite").read_bytes() == before
    assert [path.name for path in tmp_path.glob("l.sqlite*")] == ["l.sqlite"]
    other = replace(again, options=EmbedderOptions(model="other"))
    assert bill_by_name([folder], other, "cpu", 1.0).answered == 0  # and says that a run needs another ledger
    assert (tmp_path / "l.sqlite").read_bytes() == before

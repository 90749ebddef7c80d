import math

import numpy as np
import pytest

from index.evaluation.verdict import Estimate, estimate_mean, half_width, judge_agreement, judge_labels


def test_an_estimate_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        mean, (low, high) = estimate_mean(rng.beta(6, 3, 100))
        assert low < mean < high
        covered += low <= 2 / 3 <= high
    assert 0.92 <= covered / 400 <= 0.98


def test_one_share_tells_nothing_of_the_mean():
    assert str(Estimate.measure(np.array([0.5]), "query photos")) == "50 % (95 %: 0 to 100)"


def test_an_estimate_is_read_from_a_run():
    facts = {"held_out": 100, "overlap@10": 0.7, "interval": [0.66, 0.74], "population": "query photos"}
    read = Estimate.read(facts)
    assert str(read) == "70 % (95 %: 66 to 74)"
    assert (read.count, read.population) == (100, "query photos")
    assert "among 390 images, measured on" in str(judge_agreement(Estimate.read(facts | {"among": 390})))
    old = Estimate.read({"held_out": 100, "overlap@10": 0.7})  # of a version that noted no interval
    assert (round(old.low, 2), round(old.high, 2)) == (0.61, 0.79)


@pytest.mark.parametrize(("mean", "kind"), [(0.86, "alone"), (0.72, "rerank"), (0.49, "more")])
def test_agreement_decides_and_its_interval_is_told(mean: float, kind: str):
    verdict = judge_agreement(Estimate(mean, mean - 0.04, mean + 0.04, 1234, "query photos"))
    assert verdict.kind == kind
    assert f"(95 %: {100 * mean - 4:.0f} to {100 * mean + 4:.0f})" in str(verdict)
    assert "1,234 query photos" in str(verdict)


def test_few_photos_decide_nothing():
    for count, among in ((2, 10), (19, 400), (100, 20)):
        verdict = judge_agreement(Estimate(1.0, 1.0, 1.0, count, "query photos", among))
        assert verdict.kind == "few"
    assert half_width(np.arange(5.0)) == pytest.approx(2.776 * np.arange(5.0).std(ddof=1) / 5**0.5, rel=1e-3)


@pytest.mark.parametrize(
    ("student", "again", "kind"),
    [(0.499, 0.5, "alone"), (0.425, 0.43, "alone"), (0.3, 0.4, "rerank"), (0.3, 0.35, "more")],
)
def test_labels_decide_by_what_is_lost(student: float, again: float, kind: str):
    values = {"student": student, "asymmetric": 0.9, "rerank": again, "teacher": 0.44}
    scores = {mode: {"mAP": value, "mAP ±": 0.031, "queries": 200.0} for mode, value in values.items()}
    verdict = judge_labels(scores)
    assert verdict.kind == kind
    assert f"the student's {100 * student:.1f} ± 3.1, re-ranked {100 * again:.1f} ± 3.1" in str(verdict)
    assert "the teacher's 44.0 ± 3.1" in str(verdict)
    assert "200 labelled queries" in str(verdict)


def test_one_query_has_no_interval_and_decides_nothing():
    verdict = judge_labels({mode: {"mAP": 0.5, "queries": 1.0} for mode in ("student", "teacher")})
    assert verdict.kind == "few"
    assert "mAP is the student's 50.0, the teacher's 50.0 (95 %)" in str(verdict)


@pytest.mark.parametrize(("error", "told"), [(0.103, "few"), (math.nan, "few"), (0.099, "alone")])
def test_an_interval_that_is_too_wide_decides_nothing(error: float, told: str):
    scores = {
        mode: {"mAP": 0.501, "mAP ±": width, "queries": 40.0}
        for mode, width in (("student", error), ("teacher", 0.05))
    }
    verdict = judge_labels(scores)
    assert verdict.kind == told
    assert str(verdict).startswith("Too few queries to tell: on your 40") == (told == "few")

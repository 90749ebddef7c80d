import numpy as np
import pytest

from distill.targets.predictor import Predictor


def test_a_linear_teacher_is_predicted(unit_rows):
    features = unit_rows(300, 10)
    teacher = features @ np.random.default_rng(1).normal(size=(10, 6)).astype(np.float32)
    predictor = Predictor.fit(features[:200], teacher[:200])
    guesses = predictor.predict(features[200:])
    assert 1 - ((guesses - teacher[200:]) ** 2).sum() / (teacher[200:] ** 2).sum() > 0.95
    assert predictor.explained > 0.95


def test_what_is_left_out_is_what_a_fit_without_it_predicts(unit_rows, monkeypatch):
    features, answers = unit_rows(40, 8), unit_rows(40, 5)
    monkeypatch.setattr("distill.targets.predictor.PENALTIES", np.array([0.5]))
    whole = Predictor.fit(features, answers)
    centred = features - whole.centre
    squared = ((centred[:, None] - centred[None]) ** 2).sum(axis=2)
    kernel = np.exp(-whole.width * squared).astype(np.float64)
    penalty = 0.5 * np.linalg.eigvalsh(kernel).mean()
    for row in (0, 7, 39):
        rest = np.delete(np.arange(40), row)
        inner = kernel[np.ix_(rest, rest)] + penalty * np.eye(39)
        mean = answers[rest].mean(axis=0, dtype=np.float64)  # without the answer, too
        weights = np.linalg.solve(inner, answers[rest] - mean)
        np.testing.assert_allclose(kernel[row, rest] @ weights + whole.mean, whole.left_out[row], atol=1e-5)


def test_noise_is_not_explained():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 30)).astype(np.float32)
    answers = rng.normal(size=(200, 20)).astype(np.float32)
    assert Predictor.fit(features, answers).explained < 0.05


@pytest.mark.parametrize("count", [2, 3])
def test_few_or_equal_answers_are_no_fault(unit_rows, count):
    features = unit_rows(count, 4)
    found = Predictor.fit(features, np.ones((count, 3), np.float32)).predict(features)
    np.testing.assert_allclose(found, 1, atol=1e-5)
    same = Predictor.fit(np.ones((count, 4), np.float32), unit_rows(count, 3))
    assert np.isfinite(same.predict(features)).all()

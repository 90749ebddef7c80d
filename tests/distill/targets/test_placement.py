import numpy as np
import pytest

from distill.targets import placement
from distill.targets.placement import SHARES, average_with_neighbours, place


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def pool():
    """Features of 300 photos; the free network sees their first half, the teacher the rest."""
    rng = np.random.default_rng(0)
    features = unit(rng.normal(size=(300, 16))).astype(np.float32)
    teacher = unit(np.tanh(3 * features[:, 8:] @ rng.normal(size=(8, 24)))).astype(np.float32)
    return features, np.ascontiguousarray(features[:, :8]), teacher


def test_a_teacher_that_knows_more_is_trusted_and_followed(pool):
    features, free, teacher = pool
    rows = np.arange(0, 300, 2)
    placed = place(features, free, rows, teacher[rows], 16, 0.25)
    assert placed.trust >= 0.75
    assert placed.explained > 0.3
    gain, error = placed.gain
    assert gain > 2 * error > 0
    assert placed.facts["with_answers"] == pytest.approx(placed.facts["free_network"] + gain)
    np.testing.assert_allclose(np.linalg.norm(placed.rows, axis=1), 1, atol=1e-5)


def test_noise_is_not_trusted_and_changes_no_place(pool):
    features, free, _ = pool
    rows = np.arange(150)
    noise = unit(np.random.default_rng(1).normal(size=(150, 32))).astype(np.float32)
    placed = place(features, free, rows, noise, 16, 0.25)
    assert placed.trust == 0.0
    assert placed.gain == (0.0, 0.0)
    other = place(features, free, rows, noise[::-1].copy(), 16, 0.25)
    np.testing.assert_allclose(placed.rows @ placed.rows.T, other.rows @ other.rows.T, atol=1e-4)
    assert placed.space.fits(32, 16)


@pytest.mark.parametrize("count", [40, 60, 80, 100])
def test_few_answers_that_are_noise_are_not_trusted(pool, count):
    """An answer mirrored in a mean that holds it looks like knowledge."""
    features, free, _ = pool
    for seed in range(10):
        noise = unit(np.random.default_rng(seed).normal(size=(count, 32))).astype(np.float32)
        assert place(features, free, np.arange(count), noise, 16, 0.25).trust == 0


def test_the_share_can_be_given(pool):
    features, free, teacher = pool
    rows = np.arange(100)
    for share in SHARES:
        assert place(features, free, rows, teacher[rows], 8, 0.25, share).trust == share


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_the_teachers_own_vectors_fall_near_the_places_of_their_photos(pool, share):
    features, free, teacher = pool
    rows = np.arange(200)
    placed = place(features, free, rows, teacher[rows], 16, 0.0, share)
    similarity = placed.rows[rows] @ placed.space.project(teacher[rows]).T
    own = np.diag(similarity)
    assert (own[:, None] >= similarity).mean() > 0.97
    assert own.mean() > (0.95 if share == 1 else 0.6)


def test_two_answers_are_enough(pool):
    features, free, teacher = pool
    placed = place(features, free, np.array([3, 8]), teacher[[3, 8]], 16, 0.25)
    assert np.isfinite(placed.rows).all()


def test_of_many_answers_a_part_predicts_and_all_are_followed(pool, monkeypatch):
    features, free, teacher = pool
    monkeypatch.setattr("distill.targets.placement.FITTED", 100)
    rows = np.arange(250)
    placed = place(features, free, rows, teacher[rows], 16, 0.0, 1.0)
    assert len(placed.free) == len(placed.asked) == 84  # every third
    own = (placed.rows[rows] * placed.space.project(teacher[rows])).sum(axis=1)
    assert own.min() > 0.9


def crowd(rng, spread):
    """Features of 40 crowds of 10 photos, and vectors of a teacher that knows the crowds alone."""
    crowds = np.repeat(np.arange(40), 10)
    centres, kinds = unit(rng.normal(size=(40, 32))), unit(rng.normal(size=(40, 48)))
    features = unit(centres[crowds] + spread * rng.normal(size=(400, 32)) / np.sqrt(32))
    teacher = unit(kinds[crowds] + 0.1 * rng.normal(size=(400, 48)) / np.sqrt(48))
    return features.astype(np.float32), teacher.astype(np.float32), crowds


def test_places_are_averaged_where_the_teachers_lists_are_of_crowds():
    features, teacher, crowds = crowd(np.random.default_rng(2), 1.0)
    rows = np.arange(0, 400, 2)
    placed = place(features, features, rows, teacher[rows], 32, 0.25)
    alone = place(features, features, rows, teacher[rows], 32, 0.25, average=False)
    assert placed.averaged
    assert placed.facts["averages_gain"] > 4
    assert not alone.averaged
    assert alone.facts["averages_gain"] is None

    def within(places):
        similarity = places @ places.T
        same = crowds[:, None] == crowds
        return similarity[same].mean() - similarity[~same].mean()

    assert within(placed.rows) > within(alone.rows) + 0.02
    np.testing.assert_allclose(np.linalg.norm(placed.rows, axis=1), 1, atol=1e-5)
    averages = average_with_neighbours(alone.rows)
    averages[rows] = alone.rows[rows]  # answers have no errors to even out
    np.testing.assert_allclose(placed.rows, averages, atol=1e-6)
    unasked, plain = (
        place(features, features, rows, teacher[rows], 32, 0.25, trust=0.0, average=average).rows
        for average in (True, False)
    )
    np.testing.assert_allclose(unasked, average_with_neighbours(plain), atol=1e-6)


def test_rows_behind_the_pool_are_averaged_with_it_and_change_none_of_it():
    rows = unit(np.random.default_rng(0).normal(size=(60, 8))).astype(np.float32)
    averaged = average_with_neighbours(rows, pool=40)
    np.testing.assert_array_equal(averaged[:40], average_with_neighbours(rows[:40]))
    alone = np.concatenate([rows[:40], rows[50:51]])
    np.testing.assert_allclose(averaged[50], average_with_neighbours(alone)[40], atol=1e-6)


@pytest.mark.parametrize(
    ("gain", "averaged"), [(3.1, False), (4.6, True)]
)  # of Lite1 and Lite2, of an expert
def test_a_gain_that_students_do_not_keep_averages_nothing(pool, monkeypatch, gain, averaged):
    features, free, teacher = pool
    rows = np.arange(0, 300, 2)
    monkeypatch.setattr(placement, "_gain_by_averaging", lambda *_: gain)
    assert place(features, free, rows, teacher[rows], 16, 0.25).averaged == averaged


def test_places_stay_where_averages_bring_nothing(pool):
    features, _, _ = pool
    rows = np.arange(0, 300, 2)
    noise = unit(np.random.default_rng(1).normal(size=(150, 32))).astype(np.float32)
    assert not place(features, features, rows, features[rows], 16, 0.25).averaged
    assert not place(features, features, rows, noise, 16, 0.25).averaged


def test_an_average_is_weighted_by_the_eighth_power_of_the_similarity():
    rows = unit(np.array([[1.0, 0.0], [0.8, 0.6], [-1.0, 0.0]])).astype(np.float32)
    first = rows[0] + 0.8**8 * rows[1]  # nothing of what is opposite
    np.testing.assert_allclose(average_with_neighbours(rows)[0], unit(first[None])[0], atol=1e-6)
    np.testing.assert_array_equal(
        average_with_neighbours(rows, np.array([2, 0])), average_with_neighbours(rows)[[2, 0]]
    )

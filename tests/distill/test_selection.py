import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.options import SELECTIONS
from distill.selection import order_by_worth, sample_pool

DIGESTS = st.integers(0, 30).map(lambda i: f"{i:02}")
POOLS = st.lists(DIGESTS, min_size=1, max_size=60)


@given(POOLS, st.sets(DIGESTS), st.integers(1, 40), st.integers(0, 5))
def test_a_sample_is_distinct_and_takes_what_is_free_first(digests, answered, most, seed):
    sample = [digests[i] for i in sample_pool(digests, answered, most, seed)]
    assert sample == sorted(set(sample))
    assert len(sample) == min(most, len(set(digests)))
    if not set(sample) <= answered:
        assert set(digests) & answered <= set(sample)


@given(POOLS, st.integers(1, 40), st.integers(0, 5), st.randoms())
def test_answers_and_names_do_not_change_the_sample(digests, most, seed, random):
    sample = [digests[i] for i in sample_pool(digests, set(), most, seed)]
    answered = set(random.sample(sample, random.randint(0, len(sample))))
    shuffled = random.sample(digests, len(digests))
    assert [shuffled[i] for i in sample_pool(shuffled, answered, most, seed)] == sample


def blobs(sizes: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Tight groups of points and the group of each."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    centres = np.eye(len(sizes), 20)[owner]
    return (centres + 0.03 * rng.normal(size=centres.shape)).astype(np.float32), owner


@pytest.mark.parametrize("how", SELECTIONS)
@pytest.mark.parametrize(("answered", "budget"), [(0, 5), (4, 9), (12, 5), (0, 60), (40, 40)])
def test_every_order_is_whole_and_takes_what_is_free_first(how, answered, budget):
    features, _ = blobs([10, 10, 10, 10])
    free = np.zeros(40, bool)
    free[np.random.default_rng(1).permutation(40)[:answered]] = True
    order = order_by_worth(features, free, budget, how, 0)
    assert sorted(order) == list(range(40))
    assert free[order[:budget]].sum() == min(answered, budget)
    assert order == order_by_worth(features, free, budget, how, 0)


def test_clusters_are_covered_large_ones_first():
    features, owner = blobs([30, 20, 10, 5])
    order = order_by_worth(features, np.zeros(65, bool), 4, "kmeans", 0)
    assert owner[order[:4]].tolist() == [0, 1, 2, 3]


def test_what_is_answered_covers_its_cluster():
    features, owner = blobs([30, 20, 10, 5])
    free = np.zeros(65, bool)
    free[[3, 55]] = True
    order = order_by_worth(features, free, 4, "kmeans", 0)
    assert set(order[:2]) == {3, 55}
    assert owner[order[2:4]].tolist() == [1, 3]


def test_an_interrupted_choice_goes_on_as_it_began():
    features = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
    for how in SELECTIONS:
        whole = order_by_worth(features, np.zeros(200, bool), 40, how, 3)[:40]
        free = np.zeros(200, bool)
        free[whole[:17]] = True
        assert set(order_by_worth(features, free, 40, how, 3)[:40]) == set(whole)


def test_the_farthest_are_taken():
    features, owner = blobs([30, 20, 10, 1, 1])
    order = order_by_worth(features, np.zeros(62, bool), 5, "kcenter", 0)
    assert set(owner[order[:5]]) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("how", SELECTIONS)
def test_copies_are_chosen_once(how):
    points = np.random.default_rng(0).normal(size=(80, 6)).astype(np.float32)
    features = np.concatenate([points, points[:20]])
    order = order_by_worth(features, np.zeros(100, bool), 90, how, 0)
    assert sorted(order) == list(range(100))

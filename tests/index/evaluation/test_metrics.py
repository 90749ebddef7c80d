import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import average_precision_score

from index.evaluation.metrics import average_precision, overlap_at_k, rank, rank_biased_overlap, recall_at_k

SCORES = hnp.arrays(np.float32, (3, 20), elements=st.integers(-5, 5).map(np.float32))
PERMUTATIONS = st.permutations(range(10)).map(lambda ids: np.array([ids]))


@given(SCORES, st.integers(0, 20))
def test_ranking_is_by_falling_score_then_rising_id(scores, k):
    for row, line in zip(rank(scores, k), scores, strict=True):
        assert row.tolist() == sorted(range(20), key=lambda i: (-line[i], i))[:k]


@given(hnp.arrays(np.bool_, (1, 30)))
def test_average_precision_is_scikit_learns_where_no_scores_tie(relevant):
    if relevant.any():
        assert average_precision(relevant)[0] == pytest.approx(
            average_precision_score(relevant[0], -np.arange(30))
        )
    else:
        assert np.isnan(average_precision(relevant)[0])


def test_average_precision_by_hand():
    # relevant at ranks 1 and 4: (1/1 + 2/4) / 2
    assert average_precision(np.array([[1, 0, 0, 1, 0]], bool))[0] == pytest.approx(0.75)


def test_recall_counts_a_query_once():
    relevant = np.array([[0, 1, 1, 0], [0, 0, 0, 1], [1, 1, 0, 0]], bool)
    assert recall_at_k(relevant, 1).tolist() == [0, 0, 1]
    assert recall_at_k(relevant, 2).tolist() == [1, 0, 1]


@given(PERMUTATIONS, PERMUTATIONS)
def test_overlap_is_set_intersection_and_symmetric(first, second):
    a, b = first[:, :4], second[:, :4]
    expected = len(set(a[0]) & set(b[0])) / 4
    assert overlap_at_k(a, b)[0] == overlap_at_k(b, a)[0] == expected


def test_padding_is_no_agreement():
    assert overlap_at_k(np.array([[1, 2, -1]]), np.array([[2, 5, -1]]))[0] == 0.5
    assert overlap_at_k(np.array([[1, 2, -1]]), np.array([[2, 1, 7]]))[0] == pytest.approx(2 / 3)
    assert rank_biased_overlap(np.array([[-1, -1]]), np.array([[-1, -1]]))[0] == 0


@given(PERMUTATIONS)
def test_rbo_of_equal_lists_is_one_and_of_disjoint_ones_zero(ids):
    assert rank_biased_overlap(ids, ids)[0] == pytest.approx(1)
    assert rank_biased_overlap(ids, ids + 100)[0] == 0


def test_rbo_by_hand():
    # Lists a b c and b a d: overlaps X = 0, 2, 2 at depths 1, 2, 3.
    p = 0.9
    expected = 2 / 3 * p**3 + (1 - p) / p * (0 / 1 * p + 2 / 2 * p**2 + 2 / 3 * p**3)
    assert rank_biased_overlap(np.array([[0, 1, 2]]), np.array([[1, 0, 3]]))[0] == pytest.approx(expected)


@given(PERMUTATIONS, PERMUTATIONS)
def test_rbo_lies_between_zero_and_one_and_is_symmetric(first, second):
    value = rank_biased_overlap(first, second)[0]
    assert 0 <= value <= 1 + 1e-12
    assert value == pytest.approx(rank_biased_overlap(second, first)[0])

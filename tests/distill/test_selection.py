from hypothesis import given
from hypothesis import strategies as st

from distill.selection import select_random

POOLS = st.lists(st.integers(0, 30).map(str), min_size=1, max_size=60)


@given(POOLS, st.sets(st.integers(0, 30).map(str)), st.integers(0, 40), st.integers(0, 5))
def test_distinct_contents_answered_ones_first(digests, answered, budget, seed):
    chosen = [digests[i] for i in select_random(digests, answered, budget, seed)]
    assert len(chosen) == len(set(chosen)) == min(budget, len(set(digests)))
    free = [digest in answered for digest in chosen]
    assert free == sorted(free, reverse=True)
    if not all(free):  # something is paid for only when nothing free is left
        assert set(digests) & answered <= set(chosen)


@given(POOLS, st.integers(0, 20), st.integers(0, 20), st.integers(0, 5))
def test_a_larger_budget_adds_to_a_smaller_one(digests, small, more, seed):
    few = select_random(digests, set(), small, seed)
    assert select_random(digests, set(), small + more, seed)[: len(few)] == few


def test_the_seed_decides():
    digests = [str(i) for i in range(100)]
    assert select_random(digests, set(), 10, 1) == select_random(digests, set(), 10, 1)
    assert select_random(digests, set(), 10, 1) != select_random(digests, set(), 10, 2)

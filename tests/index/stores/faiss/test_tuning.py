from dataclasses import replace

import numpy as np
import pytest

from index.errors import UsageError
from index.stores.faiss.tuning import EXACT_FLOATS, asked_factory, build_tuned, choose_factory, tune
from index.stores.faiss.vector_index import SearchParams, VectorIndex, search_exact
from index.stores.options import SearchTarget
from index.stores.records import Space


def crowded(count, dim, seed=0):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(40, dim))
    rows = (centres[rng.integers(0, 40, count)] + rng.normal(size=(count, dim))).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_small_collections_and_full_recall_are_searched_exactly():
    assert (
        choose_factory(1, 256, SearchTarget())
        == choose_factory(EXACT_FLOATS // 256, 256, SearchTarget())
        == "Flat"
    )
    assert choose_factory(10**6, 256, SearchTarget(recall=1)) == "Flat"
    assert choose_factory(EXACT_FLOATS // 256 + 1, 256, SearchTarget()) != "Flat"


def test_the_rest_is_chosen_by_recall_memory_and_machine():
    million = 10**6
    assert choose_factory(100_000, 256, SearchTarget()) == "HNSW32"
    assert choose_factory(100_000, 256, SearchTarget(memory=0.1)) == "RR256,IVF512,PQ128x4fs"
    assert choose_factory(million, 256, SearchTarget()) == "RR256,IVF2048,PQ128x4fs"
    assert choose_factory(million, 256, SearchTarget(recall=0.99)) == "IVF2048,SQ8"
    assert choose_factory(million, 256, SearchTarget(recall=0.99, memory=0.2)) == "RR256,IVF2048,PQ128x4fs"
    assert choose_factory(million, 256, SearchTarget(memory=0.06)) == "RR256,IVF2048,RaBitQfs"
    assert choose_factory(million, 255, SearchTarget()) == "RR255,IVF2048,RaBitQfs"
    assert choose_factory(10 * million, 256, SearchTarget()) == "RR256,IVF8192,PQ128x4fs"
    assert choose_factory(million, 256, SearchTarget(), gpu=True) == "Flat"
    assert choose_factory(million, 256, SearchTarget(memory=0.5), gpu=True) == "IVF2048,SQ8"


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_handful_has_full_recall(unit_rows, count):
    _, served = build_tuned(unit_rows(count, 8), SearchTarget())
    assert (served.factory, served.recall) == ("Flat", 1.0)


@pytest.mark.parametrize(
    "factory", ["IVF64,PQ8x4fs", "RR32,IVF64,RaBitQfs", "IVF64,SQ8", "IVF64,Flat", "HNSW8"]
)
def test_it_searches_as_hard_as_the_recall_needs(factory):
    vectors, queries = crowded(4000, 32), crowded(200, 32, seed=1)
    index, served = build_tuned(vectors, SearchTarget(0.5), factory)
    truth = search_exact(queries, vectors, 10)[1]

    def recall(served):  # of queries that are in no gallery
        ids = VectorIndex(index, vectors, SearchParams(served.probes, served.refine)).search(queries, 10)[1]
        return np.mean([len(set(a) & set(b)) / 10 for a, b in zip(ids, truth, strict=True)])

    hard = tune(index, vectors, np.arange(300), 0.95, factory)
    assert hard.recall >= 0.95
    assert recall(hard) > 0.92
    if "IVF" in factory:
        assert served.recall < 0.95
        assert recall(served) < recall(hard)


@pytest.mark.parametrize("factory", ["IVF16,PQ8x4fs,RFlat", "IVF16,PQ8x4fs,Refine(SQ8)"])
def test_an_index_that_refines_by_itself_is_given_candidates_enough(factory):
    vectors = crowded(4000, 32)
    index, served = build_tuned(vectors, SearchTarget(0.9), factory)
    assert served.recall >= 0.9
    ids = VectorIndex(index, vectors, SearchParams(served.probes, served.refine)).search(vectors[:200], 10)[1]
    truth = search_exact(vectors[:200], vectors, 10)[1]
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(ids, truth, strict=True)]) > 0.88


def test_what_cannot_reach_the_recall_says_what_it_reaches():
    _, served = build_tuned(crowded(3000, 32), SearchTarget(0.999), "PQ2x4")
    assert 0.1 < served.recall < 0.999


def test_needs_check_themselves():
    with pytest.raises(UsageError, match="--recall"):
        SearchTarget(recall=1.1)
    with pytest.raises(UsageError, match="--memory"):
        SearchTarget(memory=0)


def test_what_an_index_was_asked_for_shows_in_what_it_has():
    made = Space("", "", 256, "RR256,IVF2048,PQ128x4fs", 0.95)
    assert asked_factory(made, 10**6) == "auto"
    assert asked_factory(replace(made, memory=0.06), 10**6) == made.factory
    assert asked_factory(replace(made, factory="HNSW8"), 10**6) == "HNSW8"
    assert asked_factory(replace(made, factory="Flat"), 1000) == "auto"
    assert asked_factory(replace(made, factory="Flat", given=True), 1000) == "Flat"

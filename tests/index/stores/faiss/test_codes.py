import faiss
import numpy as np
import pytest

from index.stores.faiss.codes import CodeIndex, open_ann
from index.stores.faiss.tuning import build_tuned, name_factory
from index.stores.faiss.vector_index import EXACT, SearchParams, as_scores, build_ann, read_ann, write_ann
from index.stores.options import SearchTarget
from index.vectors import CODES, pack

NEED = SearchTarget()


def exact(queries, codes, k, keep=None):
    similarity = CODES.similarity(queries, codes)
    if keep is not None:
        similarity[:, ~keep] = -np.inf
    return -np.sort(-similarity, axis=1)[:, :k]


@pytest.fixture
def codes():
    """A thousand codes of 32 bits, twenty around each of fifty."""
    rng = np.random.default_rng(0)
    centres = rng.integers(0, 256, (50, 4), dtype=np.uint8).repeat(20, axis=0)
    return centres ^ pack(rng.normal(-1.5, 1, (1000, 32)))


@pytest.mark.parametrize("factory", [EXACT, "BIVF8"])
def test_all_lists_and_no_lists_find_what_is_nearest(codes, factory):
    index = build_ann(codes, factory)
    ann = open_ann(index, codes, SearchParams(8 if index else 0))
    queries, keep = codes[:7], np.arange(1000) % 3 == 0
    for kept in (None, keep):
        scores, ids = ann.search(queries, 12, kept)
        assert scores.tolist() == exact(queries, codes, 12, kept).tolist()
        assert np.take_along_axis(CODES.similarity(queries, codes), ids, 1).tolist() == scores.tolist()
    assert (ann.search(queries, 12, keep)[1] % 3 == 0).all()
    scores, ids = ann.search(queries, 5, np.arange(1000) < 3)
    assert (ids[:, 3:] == -1).all() and np.isneginf(scores[:, 3:]).all()


def test_a_list_that_holds_too_few_is_made_up_for(codes):
    scores, ids = open_ann(build_ann(codes, "BIVF64"), codes, SearchParams(1)).search(codes[:9], 300)
    assert (ids >= 0).all()
    assert scores.tolist() == exact(codes[:9], codes, 300).tolist()


@pytest.mark.parametrize("size", [1, 5, 8, 9])
def test_a_scan_finds_of_equal_codes_those_that_come_first(size):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (40, size), np.uint8)[rng.integers(0, 40, 3000)]
    codes[::7] = rng.integers(0, 256, (429, size), np.uint8)
    queries = np.concatenate([codes[:6], ~codes[:6]])
    for k in (1, 10, 21, 100, 3000):
        scores, ids = CodeIndex(None, codes).search(queries, k)
        distances, nearest = faiss.knn_hamming(queries, codes, k)
        assert ids.tolist() == nearest.tolist()
        assert scores.tolist() == as_scores(distances, nearest, codes).tolist()


def test_floats_of_the_query_order_the_best_again(codes):
    floats = np.random.default_rng(1).normal(size=(4, 32)).astype(np.float32)
    floats /= np.linalg.norm(floats, axis=1, keepdims=True)
    scores, ids = CodeIndex(None, codes, rescore=100).search(floats, 5)
    similarity = CODES.similarity(floats, codes)
    found = np.argsort(-CODES.similarity(pack(floats), codes), axis=1, kind="stable")
    bound = np.take_along_axis(CODES.similarity(pack(floats), codes), found[:, 99:100], 1)
    near = np.where(CODES.similarity(pack(floats), codes) >= bound, similarity, -np.inf)
    assert (scores <= -np.sort(-near, axis=1)[:, :5] + 1e-6).all()  # ties at the end of the hundred
    assert scores == pytest.approx(np.take_along_axis(similarity, ids, 1))
    assert (np.diff(scores) <= 0).all()
    every = CodeIndex(None, codes, rescore=1000).search(floats, 5)[0]
    assert every == pytest.approx(-np.sort(-similarity, axis=1)[:, :5])


def test_inverted_lists_are_tuned_written_and_read(codes, tmp_path, monkeypatch):
    monkeypatch.setattr("index.stores.faiss.tuning.EXACT_CODES", 1000)
    index, served = build_tuned(codes, NEED)
    assert served.factory == "BIVF64"
    assert served.recall >= 0.95
    assert 0 < served.probes < 64
    write_ann(index, tmp_path / "codes.faiss")
    again = read_ann(tmp_path / "codes.faiss", codes=True)
    effort = SearchParams(served.probes)
    before, after = (open_ann(one, codes, effort).search(codes[:20], 10) for one in (index, again))
    assert before[1].tolist() == after[1].tolist()


def test_few_codes_are_scanned():
    assert name_factory("auto", 500_000, 8, NEED, CODES) == EXACT
    assert name_factory("auto", 500_000, 32, NEED, CODES) == "BIVF1024"
    assert name_factory("auto", 10_000_000, 8, NEED, CODES) == "BIVF8192"
    assert name_factory("auto", 10_000_000, 8, SearchTarget(recall=1), CODES) == EXACT
    assert build_tuned(np.zeros((50, 8), np.uint8), NEED)[1].factory == EXACT

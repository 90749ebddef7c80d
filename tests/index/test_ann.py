import numpy as np
import pytest

from index.ann import (
    EXACT_LIMIT,
    build_ann,
    choose_factory,
    measure_recall,
    read_ann,
    search_exact,
    write_ann,
)
from index.errors import RetrievalError, UsageError


def test_small_collections_are_searched_exactly():
    assert choose_factory(1) == choose_factory(EXACT_LIMIT) == "Flat"
    assert choose_factory(EXACT_LIMIT + 1).startswith("HNSW")


def test_exact_search_is_numpys(unit_rows):
    vectors, queries = unit_rows(300, 16), unit_rows(7, 16, seed=1)
    scores, ids = search_exact(queries, vectors, 5)
    similarity = queries @ vectors.T
    np.testing.assert_array_equal(ids, np.argsort(-similarity, axis=1)[:, :5])
    np.testing.assert_allclose(scores, -np.sort(-similarity, axis=1)[:, :5], atol=1e-5)


@pytest.mark.parametrize(("factory", "least"), [("Flat", 1.0), ("HNSW32", 0.95), ("IVF8,SQ8", 0.2)])
def test_recall_is_measured_against_exact_search(unit_rows, factory, least):
    vectors = unit_rows(2000, 16)
    recall = measure_recall(build_ann(vectors, factory), vectors)
    assert least <= recall <= 1
    if factory.startswith("IVF"):
        assert recall < 0.9  # one probe of eight lists cannot find all


def test_a_factory_that_does_not_fit_is_a_usage_error(unit_rows):
    with pytest.raises(UsageError, match="--factory Nonsense"):
        build_ann(unit_rows(10, 8), "Nonsense")
    with pytest.raises(UsageError, match="--factory IVF64,Flat cannot index 10 vectors of 8"):
        build_ann(unit_rows(10, 8), "IVF64,Flat")


def test_a_file_round_trip(tmp_path, unit_rows):
    vectors = unit_rows(50, 8)
    write_ann(build_ann(vectors, "Flat"), tmp_path / "a.faiss")
    assert read_ann(tmp_path / "a.faiss").search(vectors[:3], 1)[1].ravel().tolist() == [0, 1, 2]
    (tmp_path / "b.faiss").write_bytes(b"nothing")
    with pytest.raises(RetrievalError, match=r"b\.faiss cannot be read"):
        read_ann(tmp_path / "b.faiss")

import faiss
import numpy as np
import pytest

from index.errors import RetrievalError, UsageError
from index.stores.faiss.vector_index import (
    EXACT,
    FEW,
    SearchParams,
    VectorIndex,
    build_ann,
    check_factory,
    read_ann,
    search_exact,
    set_nprobe,
    use_gpu,
    write_ann,
)


def exact(queries, vectors, k, keep=None):
    similarity = queries @ vectors.T
    if keep is not None:
        similarity[:, ~keep] = -np.inf
    return np.argsort(-similarity, axis=1, kind="stable")[:, :k]


def test_exact_search_is_numpys(unit_rows):
    vectors, queries = unit_rows(300, 16), unit_rows(7, 16, seed=1)
    scores, ids = search_exact(queries, vectors, 5)
    similarity = queries @ vectors.T
    np.testing.assert_array_equal(ids, exact(queries, vectors, 5))
    np.testing.assert_allclose(scores, -np.sort(-similarity, axis=1)[:, :5], atol=1e-5)


def test_exact_search_joins_its_chunks(unit_rows, monkeypatch):
    monkeypatch.setattr("index.stores.faiss.vector_index.CHUNK", 100)
    vectors, queries = unit_rows(350, 16), unit_rows(7, 16, seed=1)
    np.testing.assert_array_equal(search_exact(queries, vectors, 5)[1], exact(queries, vectors, 5))
    rows = np.arange(0, 350, 2)
    keep = np.isin(np.arange(350), rows)
    np.testing.assert_array_equal(
        search_exact(queries, vectors, 5, rows)[1], exact(queries, vectors, 5, keep)
    )


def test_where_there_is_less_than_asked_for_the_rest_is_none(unit_rows):
    scores, ids = search_exact(unit_rows(1, 8), unit_rows(9, 8), 4, np.array([3, 5]))
    assert sorted(ids[0, :2].tolist()) == [3, 5]
    assert ids[0, 2:].tolist() == [-1, -1]
    assert np.isneginf(scores[0, 2:]).all()
    none = search_exact(unit_rows(1, 8), unit_rows(9, 8), 2, np.array([], np.int64))
    assert none[1].tolist() == [[-1, -1]]


def test_refinement_brings_the_order_of_the_stored_vectors(unit_rows):
    vectors, queries = unit_rows(3000, 32), unit_rows(20, 32, seed=1)
    index = build_ann(vectors, "IVF4,PQ16x4fs")
    truth = exact(queries, vectors, 10)

    def recall(effort):
        scores, ids = VectorIndex(index, vectors, effort).search(queries, 10)
        assert (np.diff(scores) <= 0).all()
        return np.mean([len(set(a) & set(b)) / 10 for a, b in zip(ids, truth, strict=True)])

    assert recall(SearchParams(4, 0)) < 0.6
    assert recall(SearchParams(4, 32)) > 0.95
    scores, ids = VectorIndex(index, vectors, SearchParams(4, 32)).search(queries, 10)
    np.testing.assert_allclose(scores, np.take_along_axis(queries @ vectors.T, ids, 1), atol=1e-5)


@pytest.mark.parametrize("factory", ["Flat", "HNSW16", "IVF8,SQ8", "RR16,IVF8,PQ8x4fs", "RR16,IVF8,RaBitQfs"])
@pytest.mark.parametrize("few", [0, FEW])
def test_a_filter_lets_nothing_else_through_and_loses_nothing(unit_rows, monkeypatch, factory, few):
    monkeypatch.setattr(
        "index.stores.faiss.vector_index.FEW", few
    )  # 0: by FAISS's own filter, where the index has one
    vectors, queries = unit_rows(2000, 16), unit_rows(30, 16, seed=1)
    ann = VectorIndex(
        build_ann(vectors, factory), vectors, SearchParams(0, 0 if factory in {"Flat", "HNSW16"} else 100)
    )
    keep = np.random.default_rng(2).random(2000) < 0.1
    ids = ann.search(queries, 5, keep)[1]
    assert keep[ids].all()
    truth = exact(queries, vectors, 5, keep)
    assert np.mean([len(set(a) & set(b)) / 5 for a, b in zip(ids, truth, strict=True)]) > 0.95


def two_sides(unit_rows, count: int, dim: int):
    """Two crowds, far from each other: the even items and the odd ones."""
    vectors = unit_rows(count, dim) + np.where(np.arange(count) % 2, 3, -3)[:, None] / np.sqrt(dim)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(
    "factory", ["Flat", "HNSW16", "IVF64,SQ8", "IVF64,Flat", "RR16,IVF64,PQ8x4fs", "RR16,IVF64,RaBitQfs"]
)
def test_what_is_kept_is_found_wherever_it_lies(unit_rows, monkeypatch, factory):
    monkeypatch.setattr("index.stores.faiss.vector_index.FEW", 0)
    vectors = two_sides(unit_rows, 4000, 16)
    keep = np.arange(4000) % 2 == 1
    refine = 2 if "," in factory and not factory.endswith("Flat") else 0
    ann = VectorIndex(
        build_ann(vectors, factory), vectors, SearchParams(16 if "HNSW" in factory else 2, refine)
    )
    queries = vectors[:60:2]  # in whose neighbourhood nothing is kept
    scores, ids = ann.search(queries, 5, keep)
    assert keep[ids].all()
    truth = exact(queries, vectors, 5, keep)
    assert np.mean([len(set(a) & set(b)) / 5 for a, b in zip(ids, truth, strict=True)]) > 0.85
    np.testing.assert_allclose(scores, np.take_along_axis(queries @ vectors.T, ids, 1), atol=1e-5)


@pytest.mark.parametrize("factory", ["HNSW16", "IVF64,SQ8", "RR16,IVF64,PQ8x4fs", "IVF64,PQ8x4fs,RFlat"])
def test_more_than_the_nearest_lists_hold_is_found_in_the_others(unit_rows, factory):
    vectors, queries = unit_rows(1000, 16), unit_rows(3, 16, seed=1)
    ann = VectorIndex(build_ann(vectors, factory), vectors, SearchParams(1, 0 if "HNSW" in factory else 1))
    scores, ids = ann.search(queries, 900)
    assert (ids >= 0).all()
    assert all(len(set(row)) == 900 for row in ids.tolist())
    assert (np.diff(scores) <= 0).all()


def test_a_gpu_is_not_asked_for_more_than_it_finds(unit_rows, monkeypatch):
    monkeypatch.setattr(
        "index.stores.faiss.vector_index.to_device", lambda index, *_: build_ann(vectors, "PQ8x4fs")
    )
    monkeypatch.setattr("index.stores.faiss.vector_index.GPU_DEPTH", 30)
    vectors, queries = unit_rows(500, 16), unit_rows(3, 16, seed=1)
    ann = VectorIndex(None, vectors, SearchParams(0, 2), "cuda")
    truth = exact(queries, vectors, 16)
    assert (ann.search(queries, 15)[1] != truth[:, :15]).any()  # 30 candidates
    np.testing.assert_array_equal(ann.search(queries, 16)[1], truth)


@pytest.mark.parametrize("count", [1, 30])  # queries: FAISS multiplies matrices for many
def test_vectors_without_an_index_are_searched_as_faiss_searches_its_own(tmp_path, unit_rows, count):
    np.save(tmp_path / "v.npy", unit_rows(3000, 16))
    vectors = np.load(tmp_path / "v.npy", mmap_mode="r")
    flat = faiss.IndexFlatIP(16)
    flat.add(np.array(vectors))
    queries, ann = unit_rows(count, 16, seed=1), VectorIndex(build_ann(vectors, EXACT), vectors)
    for one, other in zip(ann.search(queries, 10), flat.search(queries, 10), strict=True):
        np.testing.assert_array_equal(one, other)
    scores, ids = ann.search(queries, 3001)
    assert (ids[:, -1] == -1).all()
    assert np.isneginf(scores[:, -1]).all()


def test_an_index_that_knows_no_filter_is_searched_exactly(unit_rows, monkeypatch):
    monkeypatch.setattr("index.stores.faiss.vector_index.FEW", 0)
    vectors, queries = unit_rows(2000, 16), unit_rows(9, 16, seed=1)
    keep = np.arange(2000) % 3 == 0
    ids = VectorIndex(build_ann(vectors, "PQ8x4fs"), vectors).search(queries, 5, keep)[1]
    np.testing.assert_array_equal(ids, exact(queries, vectors, 5, keep))


def test_training_sees_only_what_it_may(unit_rows):
    vectors = unit_rows(2000, 16)
    allowed = np.arange(1000)
    spoilt = vectors.copy()
    spoilt[1000:] = 0
    both = [build_ann(rows, "IVF8,PQ8x4fs", allowed) for rows in (vectors, spoilt)]
    centres = [np.asarray(index.quantizer.reconstruct_n(0, 8)) for index in both]
    np.testing.assert_array_equal(*centres)


def test_more_probes_find_more(unit_rows):
    vectors, queries = unit_rows(2000, 16), unit_rows(50, 16, seed=1)
    index, truth = build_ann(vectors, "RR16,IVF32,Flat"), exact(queries, vectors, 10)
    found = []
    for probes in (1, 32):
        set_nprobe(index, probes)
        found.append((VectorIndex(index, vectors).search(queries, 10)[1] == truth).mean())
    assert found[0] < 0.6
    assert found[1] > 0.99


def test_a_factory_that_does_not_fit_is_a_usage_error(unit_rows):
    with pytest.raises(
        UsageError, match=r"8: could not parse index string Nonsense\. Give another, or leave"
    ):
        check_factory("Nonsense", 8)
    with pytest.raises(UsageError, match="--factory Nonsense"):
        build_ann(unit_rows(10, 8), "Nonsense")
    with pytest.raises(UsageError, match="--factory IVF64,Flat cannot index 10 vectors of 8"):
        build_ann(unit_rows(10, 8), "IVF64,Flat")


@pytest.mark.parametrize("factory", ["HNSW8", "IVF4,SQ8", "RR16,IVF4,PQ8x4fs", "RR16,IVF4,RaBitQfs"])
@pytest.mark.parametrize("mapped_from", [0, 1 << 28])
def test_a_file_read_or_mapped_answers_as_what_was_written(
    tmp_path, unit_rows, monkeypatch, factory, mapped_from
):
    monkeypatch.setattr("index.stores.faiss.vector_index.MAPPED_FROM", mapped_from)
    vectors = unit_rows(500, 16)
    index = build_ann(vectors, factory)
    write_ann(index, tmp_path / "a.faiss")
    again = read_ann(tmp_path / "a.faiss")
    for one, other in zip(index.search(vectors[:9], 3), again.search(vectors[:9], 3), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "b.faiss").write_bytes(b"nothing")
    for name in ("b", "missing"):
        with pytest.raises(RetrievalError, match=rf"{name}\.faiss cannot be read"):
            read_ann(tmp_path / f"{name}.faiss")


def test_a_gpu_is_used_where_there_is_one_and_faiss_can():
    assert use_gpu("auto", 1, "IndexFlatIP NoneType")
    assert use_gpu("cuda", 2, "IndexIVFScalarQuantizer IndexIVFScalarQuantizer")
    assert not use_gpu("cpu", 1, "IndexFlatIP NoneType")
    assert not use_gpu("auto", 0, "IndexFlatIP NoneType")
    assert not use_gpu("auto", 1, "IndexHNSWFlat NoneType")
    assert not use_gpu("auto", 1, "IndexPreTransform IndexIVFPQFastScan")
    assert not use_gpu("auto", 1, "IndexPreTransform IndexIVFRaBitQ")


def test_queries_of_another_length_are_refused(unit_rows):
    index, ids = VectorIndex(None, unit_rows(5, 8)), np.zeros((1, 2), np.int64)
    for search in (lambda rows: index.search(rows, 2), lambda rows: index.order_again(rows, ids, 2)):
        with pytest.raises(UsageError, match=r"A query of 16 numbers does not search vectors of 8\."):
            search(unit_rows(1, 16))

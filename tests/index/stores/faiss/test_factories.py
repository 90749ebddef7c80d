"""Every kind of index that FAISS 1.15 makes of a factory string: it serves, or is refused in one line."""

import numpy as np
import pytest

from index.errors import UsageError
from index.stores.faiss import tuning, vector_index
from index.stores.faiss.tuning import build_tuned
from index.stores.faiss.vector_index import SearchParams, VectorIndex, check_factory, read_ann, write_ann
from index.stores.options import SearchTarget

COUNT, DIM, K = 500, 16, 5
SERVED = (
    "Flat SQ8 SQ6 SQ4 SQfp16 SQbf16 SQ8_direct PQ4x4 PQ4x4fs RQ2x4 LSQ2x4 PRQ2x2x4 PLSQ2x2x4 RaBitQ RaBitQfs "
    "HNSW8 HNSW8,SQ8 HNSW8,PQ4x4 HNSW8_PQ4x4 HNSW8_SQ8 NSG8 NSG8,SQ8 "
    "IVF4,Flat IVF4,FlatDedup IVF4_HNSW4,Flat IVF4(RCQ2x1),Flat IVF4,SQ8 IVF4,SQfp16 IVF4,PQ4x4 IVF4,PQ4x4np "
    "IVF4,PQ4x4fs IVF4,PQ4x4fsr IVF4,RQ2x4 IVF4,LSQ2x4 IVF4,PRQ2x2x4 IVF4,PLSQ2x2x4 IVF4,RQ4x4fs "
    "IVF4,PRQ2x2x4fs IVF4,RaBitQ IVF4,RaBitQfs IVF4,RaBitQ4 IVF4,FlatPanorama "
    "IVF4,ITQ8,SH2.0 HNSW8_4+PQ4 NSG8_PQ4x4 RQ4x4fs "
    "PCA8,Flat PCAR8,Flat PCAW8,Flat PCAWR8,Flat RR8,Flat RR16,Flat ITQ8,Flat OPQ4_8,PQ4x4 Pad32,Flat "
    "L2norm,Flat PCA8,HNSW8 PCA8,SQ8 PCA8,IVF4,Flat PCA8,IVF4,SQ8 RR16,IVF4,Flat OPQ4_8,IVF4,PQ4x4fs "
    "RR16,IVF4,RaBitQfs PCA8,PCA4,IVF4,Flat Flat,RFlat PQ4x4,RFlat PQ4x4,Refine(SQ8) IVF4,PQ4x4,RFlat "
    "PCA8,IVF4,PQ4x4,RFlat PCA8,HNSW8,RFlat HNSW8,RFlat "
    "IVF4,SQ4 IVF4,SQ6 IVF4,SQbf16 SQ8_direct_signed IVF4_HNSW4,PQ4x4fs IVF4,PQ4x4fs,RFlat IVF4,RaBitQ,RFlat "
    "RaBitQ2 RaBitQ4,RFlat RaBitQfs4 IVF4,RaBitQfs4 HNSW8_SQfp16"
).split()
REFUSED = (
    "LSH LSHrt ITQ8,LSH IVF4,ITQ8 IVF4,LSH IDMap,Flat IDMap2,Flat IDMap,IVF4,Flat IMI2x2,Flat IVF4,PQ4+4 "
    "IVF900,Flat PQ5 PCA99,Flat ZnLattice2x5_3 HNSW8_FlatPanorama Residual16,PQ4 NNDescent8 FlatPanorama "
    "IVF4_NSG4,Flat IVF4(PCA8),Flat IVF4(ITQ8),Flat "
    "IVF0,Flat PQ0 PQ4x0 PCA0,Flat RR0,Flat IVF-4,Flat"
).split()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Less is timed; filters are FAISS's own where it has one."""
    monkeypatch.setattr(tuning, "TIMED", 10)
    monkeypatch.setattr(vector_index, "FEW", 0)


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(10, DIM))[rng.integers(0, 10, COUNT)] + 0.6 * rng.normal(size=(COUNT, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def require_right(searched: VectorIndex, vectors, recall: float, keep=None) -> None:
    """Scores are of the stored vectors, they fall, the filter holds, and the recall is reached."""
    queries = vectors[:40]
    similarity = queries @ vectors.T
    scores, ids = searched.search(queries, K, keep)
    assert (ids >= 0).all()
    np.testing.assert_allclose(scores, np.take_along_axis(similarity, ids, 1), atol=1e-4)
    if keep is not None:
        assert keep[ids].all()
        similarity[:, ~keep] = -np.inf
    truth = np.argsort(-similarity, axis=1)[:, :K]
    found = np.mean([len(set(one) & set(other)) / K for one, other in zip(ids, truth, strict=True)])
    assert found >= recall - 0.15


@pytest.mark.parametrize("factory", SERVED)
def test_it_is_built_tuned_filtered_written_and_updated(tmp_path, vectors, factory):
    first = vectors[: COUNT - 100]
    for rows in (first, vectors):  # an update builds it of all
        index, served = build_tuned(rows, SearchTarget(0.8), factory)
        if index is not None:
            write_ann(index, tmp_path / "a.faiss")
            index = read_ann(tmp_path / "a.faiss")
        searched = VectorIndex(index, rows, SearchParams(served.probes, served.refine))
        reached = min(served.recall, 0.8)
        require_right(searched, rows, reached)
        require_right(searched, rows, reached, np.arange(len(rows)) % 3 == 0)


@pytest.mark.parametrize("factory", REFUSED)
def test_or_it_is_refused_in_one_line(vectors, factory):
    with pytest.raises(UsageError) as refusal:
        build_tuned(vectors, SearchTarget(0.8), factory)
    assert str(refusal.value).startswith(f"--factory {factory} cannot")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("factory", ["IDMap,Flat", "ZnLattice2x5_3"])
def test_what_cannot_be_kept_is_refused_before_any_work(factory):
    with pytest.raises(UsageError, match=f"--factory {factory} cannot index vectors of 16"):
        check_factory(factory, DIM)


def test_shortened_vectors_in_a_graph_are_searched_as_broadly_as_the_recall_needs(vectors):
    _, served = build_tuned(vectors, SearchTarget(0.9), "PCA8,HNSW4")
    assert served.recall >= 0.9
    assert served.probes
    assert served.refine

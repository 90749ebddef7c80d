"""Parts of a gallery find what one index of all of it finds."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from index.stores.faiss.codes import open_ann
from index.stores.faiss.joined import JoinedIndex
from index.stores.tables import Places
from index.vectors import pack, scale_to_unit


@settings(max_examples=60)
@given(
    sizes=st.tuples(st.integers(5, 40), st.integers(0, 20)),
    share=st.floats(0, 0.5),
    k=st.integers(1, 12),
    kind=st.sampled_from(["floats", "codes", "codes by floats"]),
    filtered=st.booleans(),
    seed=st.integers(0, 9),
)
def test_parts_find_what_one_index_finds(sizes, share, k, kind, filtered, seed):
    rng = np.random.default_rng(seed)
    floats = scale_to_unit(rng.normal(size=(sum(sizes), 16)).astype(np.float32))
    queries = scale_to_unit(rng.normal(size=(3, 16)).astype(np.float32))
    rows = floats if kind == "floats" else pack(floats)
    asked = pack(queries) if kind == "codes" else queries
    places = Places(np.flatnonzero(rng.random(sizes[0]) < share))
    there = np.delete(np.arange(len(rows)), places.gone)
    assert places.of(np.arange(len(there))).tolist() == there.tolist()
    assert places.ids(there).tolist() == list(range(len(there)))
    keep = rng.random(len(rows)) < 0.6 if filtered else None
    if filtered:
        keep[places.gone] = False
    whole = open_ann(None, rows[there], rescore=len(rows))
    parts = [open_ann(None, part, rescore=len(rows)) for part in (rows[: sizes[0]], rows[sizes[0] :])]
    joined = JoinedIndex(parts, places, lambda ids: rows[places.of(ids)], len(rows))
    k = min(k, len(there))  # all are ordered again by the floats: where codes are as far, any may come first
    scores, ids = joined.search(asked, k, keep)
    expected = whole.search(asked, k, None if keep is None else keep[there])[0]
    np.testing.assert_allclose(
        scores[ids >= 0], expected[:, : scores.shape[1]][ids >= 0], rtol=1e-5, atol=1e-6
    )
    again = joined.order_again(asked, ids, k)[0]
    np.testing.assert_allclose(again[ids >= 0], scores[ids >= 0], rtol=1e-4, atol=1e-6)
    assert all(len(set(line)) == len(line) for line in ([i for i in row if i >= 0] for row in ids.tolist()))

import json

import faiss
import numpy as np
import pytest

from index.errors import UsageError
from index.stores.records import Manifest, Space, as_facts
from index.vectors import CODES, UNIT_FLOATS, VectorType, pack, unpack


def test_the_default_is_rows_of_unit_length(unit_rows):
    rows = unit_rows(3, 8)
    rows[1] *= 2
    rows[2, 0] = np.nan
    assert UNIT_FLOATS.is_damaged(rows).tolist() == [False, True, True]
    assert UNIT_FLOATS.similarity(rows[:1], rows[:2]) == pytest.approx(rows[:1] @ rows[:2].T)
    assert np.frombuffer(UNIT_FLOATS.to_bytes(rows[:1]), "<f4").tolist() == rows[0].tolist()


def test_a_manifest_of_the_default_does_not_name_it():
    spaces = {"student": Space("key", "name", 8)}
    facts = as_facts(Manifest(2, 1, "", [], 0, 0, 0, None, {}, spaces))
    assert "dtype" not in json.dumps(facts)
    assert {name: Space(**made) for name, made in facts["spaces"].items()} == spaces


def test_what_a_later_version_wrote_is_one_line():
    with pytest.raises(UsageError, match="int8 compared by hamming need a later version"):
        VectorType("int8", "hamming")
    with pytest.raises(UsageError, match="need a later version"):
        Space("key", "name", 8, dtype="int8", metric="hamming")


def test_codes_have_the_bit_order_and_the_distances_of_faiss(unit_rows):
    floats = unit_rows(40, 24)
    codes = pack(floats)
    made = np.zeros_like(codes)
    faiss.real_to_binary(floats.size, faiss.swig_ptr(floats), faiss.swig_ptr(made))
    assert codes.tolist() == made.tolist()
    assert unpack(codes).tolist() == np.where(floats > 0, 1.0, -1.0).tolist()
    flat = faiss.IndexBinaryFlat(24)
    flat.add(codes)
    distances, ids = flat.search(codes[:5], 40)
    scores = np.take_along_axis(CODES.similarity(codes[:5], codes), ids, 1)
    assert scores == pytest.approx(1 - distances / 12)
    assert not CODES.is_damaged(codes).any()


def test_floats_of_a_query_are_compared_with_the_signs_of_codes(unit_rows):
    queries, floats = unit_rows(3, 16), unit_rows(9, 16, seed=1)
    sums = queries @ np.sign(floats).T / np.abs(queries).sum(axis=1, keepdims=True)
    assert CODES.similarity(queries, pack(floats)) == pytest.approx(sums, abs=1e-6)
    assert np.diag(CODES.similarity(queries, pack(queries))) == pytest.approx(1)  # equal codes
    assert np.diag(CODES.similarity(queries, pack(-queries))) == pytest.approx(-1)

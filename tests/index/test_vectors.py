import json

import numpy as np
import pytest

from index.errors import UsageError
from index.stores.records import Manifest, Space, as_facts
from index.vectors import UNIT_FLOATS, VectorType


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
    with pytest.raises(UsageError, match="uint8 compared by hamming need a later version"):
        VectorType("uint8", "hamming")
    with pytest.raises(UsageError, match="need a later version"):
        Space("key", "name", 8, dtype="uint8", metric="hamming")

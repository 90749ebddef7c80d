import numpy as np
import pyarrow as pa
import pytest
from conftest import known
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from index.errors import UsageError
from index.stores.filters import Filter, parse_where
from index.stores.metadata import Metadata


@pytest.fixture
def metadata() -> Metadata:
    names = ["a/1", "a/2", "b/1", "b/2"]
    table = pa.table({"path": names, "colour": ["red", "blue", "red", "white"], "size": ["s", "s", "l", "l"]})
    return known([[(name, name)] for name in names], table)


def test_all_conditions_hold_together(metadata):
    assert Filter().keep(metadata) is None
    assert Filter(cut=0.5).keep(metadata) is None
    assert Filter("a/").keep(metadata).tolist() == [True, True, False, False]
    assert Filter("a/", {"colour": "red"}).keep(metadata).tolist() == [True, False, False, False]
    assert Filter("", {"colour": "red", "size": "l"}).keep(metadata).tolist() == [False, False, True, False]
    with pytest.raises(UsageError, match="no column 'weight', only colour, size"):
        Filter("", {"weight": "1"}).keep(metadata)


def test_a_filter_that_matches_nothing_says_what_there_is(metadata):
    many = known(
        [[(str(i), f"{i}.png")] for i in range(13)],
        pa.table({"path": [str(i) for i in range(13)], "number": [f"{i:02}" for i in range(13)]}),
    )
    for there, narrow, said in (
        (metadata, Filter("c/"), "a path that starts with 'c/': paths start with a/, b/."),
        (many, Filter("c/"), "a path that starts with 'c/': paths have no folder, as 0.png."),
        (metadata, Filter("", {"colour": "green"}), "colour=green: colour is blue, red, white."),
        (
            metadata,
            Filter("b/", {"colour": "blue", "size": "l"}),
            "colour=blue and size=l and a path that starts with 'b/': "
            "colour is blue, red, white; size is l, s; paths start with a/, b/.",
        ),
        (
            many,
            Filter("", {"number": "13"}),
            "number=13: number is 00, 01, 02, 03, 04, 05, 06, 07, 08, 09 and 3 more.",
        ),
    ):
        with pytest.raises(UsageError) as told:
            narrow.keep(there)
        assert str(told.value) == f"No image has {said}"


@given(arrays.arrays(np.float32, (1, 8), elements=st.floats(-1, 1, width=32)), st.floats(0, 1))
def test_a_cut_keeps_the_best_and_what_is_near_it(scores, cut):
    scores = -np.sort(-scores)
    kept = Filter(cut=cut).clear(scores)[0]
    assert kept[0]
    assert (np.diff(kept.astype(int)) <= 0).all()
    if cut and scores[0, 0] > 0:
        assert kept.tolist() == (scores[0] >= np.float32(cut) * scores[0, 0]).tolist()
    if not cut:
        assert kept.all()


def test_a_narrowing_checks_itself():
    for cut in (-0.1, 1.1, float("nan")):
        with pytest.raises(UsageError, match="--cut"):
            Filter(cut=cut)
    columns = {"colour": "red"}
    narrow = Filter(columns=columns)
    columns["colour"] = "blue"
    assert narrow.columns == {"colour": "red"}


def test_conditions_are_read():
    assert parse_where(["a=1", "b=x=y", "c="]) == {"a": "1", "b": "x=y", "c": ""}
    for wrong in ("a", "=1"):
        with pytest.raises(UsageError, match="column=value"):
            parse_where([wrong])
    with pytest.raises(UsageError, match="twice"):
        parse_where(["a=1", "a=2"])

import numpy as np
import pyarrow as pa
import pytest
from conftest import known
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from index.errors import UsageError
from index.stores.filters import Filter, parse_where
from index.stores.metadata.columns import Metadata


@pytest.fixture
def metadata() -> Metadata:
    names = ["a/1", "a/2", "b/1", "b/2"]
    table = pa.table({"path": names, "colour": ["red", "blue", "red", "white"], "size": ["s", "s", "l", "l"]})
    return known([[(name, name)] for name in names], table)


def test_all_conditions_hold_together(metadata):
    assert Filter().keep(metadata) is None
    assert Filter(cut=0.5).keep(metadata) is None
    for wrong in (Filter, "\ud800"), (lambda value: Filter("", {"colour": value}), "caf\udce9"):
        with pytest.raises(UsageError, match="is no text in UTF-8"):
            wrong[0](wrong[1])
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
    assert parse_where(["colour = red", "price < 20", "b= x"]) == {"colour": "red", "price": "<20", "b": " x"}
    with pytest.raises(UsageError, match="lacks a value"):
        parse_where(["price<"])
    with pytest.raises(UsageError, match="twice"):
        parse_where(["a=1", "a=2"])
    with pytest.raises(UsageError, match="twice"):
        parse_where(["a=1", "a<2"])
    bounds = parse_where(["price>=5", "price<20", "taken<=2024-05-01", "colour=red,blue"])
    assert bounds == {"price": ">=5&<20", "taken": "<=2024-05-01", "colour": "red,blue"}


@pytest.fixture
def sold() -> Metadata:
    rows = {
        "price": ["7", "10.5", "007", "", "-3"],
        "taken": ["2024-05-01", "2023-12-31T23:00", "2024-04-30", "", "2025-01-01T00:00+01:00"],
        "size": ["s", "l", "s, l", "<5", "m"],
        "mixed": ["1", "2", "n/a", "3", "4"],
        "soiled": ["2024-01-01", "2024-02-02", "2024-13-45", "2024-03-03", ""],
        "day": ["20240501", "20231231", "20240430", "", "20250101"],
    }
    names = [str(i) for i in range(5)]
    return known([[(name, name)] for name in names], pa.table({"path": names, **rows}))


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ("price<8", [0, 2, 4]),
        ("price<=7", [0, 2, 4]),
        ("price<7", [4]),
        ("price> 7", [1]),
        ("price>=7", [0, 1, 2]),
        ("price=>-3&<10.5", [0, 2]),
        ("price=7", [0]),  # as it is written
        ("price=7,10.5", [0, 1]),
        ("price=", [3]),
        ("taken<2024-05-01", [1, 2]),
        ("taken<2024-05", [1, 2]),  # a month is its first day
        ("taken>=2024-05-01", [0, 4]),
        ("taken>=2024-12-31T23:00", [4]),
        ("day>=2024-05-01", [0, 4]),  # numbers, which are dates as well
        ("day<20240501", [1, 2]),
        ("size=s,l", [0, 1]),
        ("size=s, l", [2]),  # a value that has a comma in it is meant itself
        ("size=<5", [3]),
        ("size=m,nothing", [4]),
        ("mixed=n/a", [2]),
    ],
)
def test_values_bounds_and_lists(sold, condition, found):
    kept = Filter("", parse_where([condition])).keep(sold)
    assert np.flatnonzero(kept).tolist() == found


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("mixed<3", "--where mixed<3: the column has 'n/a', which is no number."),
        ("soiled<2024-05-01", "--where soiled<2024-05-01: the column has '2024-13-45', which is no date."),
        ("price<2024-05-01", "--where price<2024-05-01: the column has '-3', which is no date."),
        ("taken<5", "--where taken<5: the column has '2023-12-31T23:00', which is no number."),
        ("price<cheap", "--where price<cheap: 'cheap' is neither a number nor a date as 2024-05-01."),
        ("taken<2024-13-45", "--where taken<2024-13-45: '2024-13-45' is neither a number nor a date "),
        ("price=<5&cheap", "--where price: 'cheap' is no bound, as those of >=5&<20."),
        ("price>10.5", "No image has price>10.5: price is "),
        ("price>9&<8", "No image has price>9&<8: price is "),
    ],
)
def test_bounds_that_do_not_fit_are_said_in_a_line(sold, condition, said):
    with pytest.raises(UsageError) as told:
        Filter("", parse_where([condition])).keep(sold)
    assert str(told.value).startswith(said)


def test_many_different_values_are_bisected():
    names = [str(i) for i in range(1 << 15)]
    many = known(
        [[(name, name)] for name in names],
        pa.table({"path": names, "n": names, "t": [f"t{n}" for n in names]}),
    )
    assert np.flatnonzero(many.matches("n", ">=100&<103")).tolist() == [100, 101, 102]
    assert np.flatnonzero(many.matches("t", "t20000,t7")).tolist() == [7, 20000]
    assert (many.of(20_000), len(many.columns["t"])) == ({"n": "20000", "t": "t20000"}, 200)

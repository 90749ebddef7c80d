import csv
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.page.blind_vote.logic import Tally, Vote, Votes, count_votes

PAIR = ("student", "teacher")


def vote(key: str, choice: str, left: str = "student", right: str = "teacher", name: str = "a.jpg") -> Vote:
    return Vote("2026-01-02T03:04:05+00:00", key, "7", name, left, right, choice)


def test_votes_are_lines_that_survive_and_count_once(tmp_path: Path):
    path = tmp_path / "new" / "votes.csv"
    Votes(path).add(vote("r1", "left", name='odd, "name".jpg'))
    Votes(path).add(vote("r2", "none"))
    Votes(path).add(vote("r1", "right"))  # the same round again
    kept = Votes(path).read()
    assert [(v.round, v.choice) for v in kept] == [("r1", "left"), ("r2", "none")]
    assert kept[0].name == 'odd, "name".jpg'
    head, *rows = csv.reader(io.StringIO(path.read_text()))
    assert head == ["time", "round", "query", "name", "left", "right", "choice"]
    assert len(rows) == 2
    assert Votes(path).as_csv() == path.read_text()
    Votes(path).add(vote("r3", "left", name="=1+1.jpg"))
    assert Votes(path).read()[-1].name == "=1+1.jpg"
    assert ",'=1+1.jpg," in Votes(path).as_csv()


def test_no_votes_yet(tmp_path: Path):
    votes = Votes(tmp_path / "votes.csv")
    assert votes.read() == []
    assert votes.as_csv().splitlines() == ["time,round,query,name,left,right,choice"]


@pytest.mark.parametrize("name", ["a.j", '"odd, name', '"odd, ""na', '"odd\n', "o\u0308"])
def test_a_line_that_a_crash_cut_short_costs_only_itself(tmp_path: Path, name: str):
    votes = Votes(tmp_path / "votes.csv")
    votes.add(vote("r1", "left", name='odd, "name".jpg'))
    with votes.path.open("ab") as file:
        file.write(f"2026-01-02T03:04:05+00:00,r2,7,{name}".encode().removesuffix(b"\x88"))
    votes.add(vote("r3", "right"))
    assert [v.round for v in votes.read()] == ["r1", "r3"]


def test_votes_of_several_people_at_once_are_all_kept(tmp_path: Path):
    votes = Votes(tmp_path / "votes.csv")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: votes.add(vote(f"r{i}", "left")), range(40)))
    assert sorted(v.round for v in votes.read()) == sorted(f"r{i}" for i in range(40))


def test_a_vote_is_one_of_three():
    with pytest.raises(ValueError, match="not 'middle'"):
        vote("r", "middle")


def test_the_tally_follows_the_models_and_not_the_sides():
    cast = [
        vote("1", "left"),
        vote("2", "right", left="teacher", right="student"),
        vote("3", "right"),
        vote("4", "none"),
        vote("5", "left", right="asymmetric"),  # another pair
    ]
    tally = count_votes(cast, PAIR)
    assert (tally.wins, tally.undecided, tally.decided) == ((2, 1), 1, 3)
    assert tally.share == pytest.approx(2 / 3)
    assert count_votes(cast, PAIR[::-1]).wins == (1, 2)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_is_that_of_scipy(wins_of):
    stats = pytest.importorskip("scipy.stats")
    wins, votes = wins_of
    expected = stats.binomtest(wins, votes).proportion_ci(0.95, method="wilson")
    assert Tally(PAIR, (wins, votes - wins), 0).interval == pytest.approx(
        (expected.low, expected.high), abs=1e-6
    )

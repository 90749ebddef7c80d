import random
import re
from collections import Counter
from pathlib import Path

import gradio as gr
import pytest

from app.page.blind_vote.logic import BlindTest, Tally, Votes, count_votes, deal_round, default_votes
from app.page.blind_vote.tab import HTML, build_blind_tab
from index.build.pipeline import build_index
from index.embedders.onnx import OnnxEmbedder
from index.search import Searcher

PAIR = ("student", "teacher")


@pytest.fixture
def searcher(folder: Path, tmp_path: Path, student_file: Path, teacher_file: Path) -> Searcher:
    student, teacher = OnnxEmbedder(student_file), OnnxEmbedder(teacher_file)
    return Searcher(build_index([folder], student, tmp_path / "idx", teacher), student, teacher)


@pytest.fixture
def blind_test(searcher: Searcher, tmp_path: Path) -> BlindTest:
    return BlindTest(searcher, Votes(tmp_path / "votes.csv"), random.Random(1))


def test_a_round_shows_what_its_modes_find_for_a_photo_on_which_they_differ(searcher: Searcher):
    for seed in range(20):
        dealt = deal_round(searcher, PAIR, 3, random.Random(seed))
        for mode, shown in zip(dealt.modes, dealt.lists, strict=True):
            assert searcher.search_items([dealt.query], mode, 3).ids[0].tolist() == shown
        assert set(dealt.lists[0]) != set(dealt.lists[1])
        assert dealt.query not in dealt.lists[0] + dealt.lists[1]


def test_the_order_is_chance(searcher: Searcher):
    rng = random.Random(3)
    orders = Counter(deal_round(searcher, PAIR, 3, rng).modes for _ in range(60))
    assert set(orders) == {PAIR, PAIR[::-1]}
    assert min(orders.values()) > 15


def test_two_ways_that_find_the_same_are_worth_no_vote(searcher: Searcher):
    assert deal_round(searcher, PAIR, 11, random.Random(0)) is None  # each finds all the others


def test_photos_that_were_voted_on_come_last(searcher: Searcher):
    differ = {deal_round(searcher, PAIR, 3, random.Random(seed)).query for seed in range(60)}
    one = min(differ)
    voted = {item.name for i, item in enumerate(searcher.index.items) if i != one}
    assert {deal_round(searcher, PAIR, 3, random.Random(seed), voted).query for seed in range(9)} == {one}
    every = {item.name for item in searcher.index.items}
    assert deal_round(searcher, PAIR, 3, random.Random(0), every) is not None


def test_each_round_is_its_own_and_counts_once(blind_test: BlindTest, monkeypatch):
    monkeypatch.setattr("app.page.blind_vote.logic.LIST_LENGTH", 3)
    first, second = blind_test.deal(PAIR), blind_test.deal(PAIR)
    assert blind_test.open.get(first.key) is first
    blind_test.vote(second, "right")
    blind_test.vote(first, "left")
    blind_test.vote(first, "right")
    assert blind_test.open.get(first.key) is None
    tally = count_votes(blind_test.votes.read(), PAIR)
    chosen = Counter([first.modes[0], second.modes[1]])
    assert tally.wins == (chosen["student"], chosen["teacher"])
    kept = blind_test.votes.read()
    assert [(vote.left, vote.right) for vote in kept] == [second.modes, first.modes]
    assert count_votes(Votes(blind_test.votes.path).read(), PAIR) == tally


def test_a_vote_that_cannot_be_written_leaves_the_round_open(
    blind_test: BlindTest, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr("app.page.blind_vote.logic.LIST_LENGTH", 3)
    dealt = blind_test.deal(PAIR)
    blind_test.votes.path.mkdir()
    with pytest.raises(OSError, match="directory"):
        blind_test.vote(dealt, "left")
    assert blind_test.open.get(dealt.key) is dealt


def test_a_vote_that_could_not_be_kept_can_be_cast_again(searcher: Searcher, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr("app.page.blind_vote.logic.LIST_LENGTH", 3)
    with gr.Blocks() as page:
        build_blind_tab(searcher)
    tab = next(block for block in page.blocks.values() if isinstance(block, gr.HTML))
    dealt = tab.deal({})
    asked = {"round": dealt["round"], "choice": "left"}
    default_votes(searcher.index).path.mkdir(parents=True)
    told = tab.vote(asked)
    assert told["round"] == dealt["round"]
    assert "The vote could not be kept: Is a directory." in told["stage"]
    assert told["stage"].endswith(dealt["stage"])
    default_votes(searcher.index).path.rmdir()
    assert "You chose" in tab.vote(asked)["stage"]


def test_rounds_that_nobody_votes_on_are_forgotten_in_the_end(blind_test: BlindTest, monkeypatch):
    monkeypatch.setattr("app.page.blind_vote.logic.LIST_LENGTH", 3)
    monkeypatch.setattr("app.page.blind_vote.logic.MAX_OPEN", 2)
    keys = [blind_test.deal(PAIR).key for _ in range(3)]
    assert [blind_test.open.get(key) is not None for key in keys] == [False, True, True]


def test_a_round_does_not_tell_which_model_made_which_list(searcher: Searcher):
    """With the two models exchanged, the page of a round is the same to the last letter."""
    dealt, items = deal_round(searcher, PAIR, 3, random.Random(0)), searcher.index.items
    exchanged = type(dealt)(dealt.key, dealt.query, dealt.modes[::-1], dealt.lists)
    assert HTML.round(dealt, items) == HTML.round(exchanged, items)
    assert not re.search("student|teacher|asymmetric", HTML.round(dealt, items), re.IGNORECASE)
    assert dealt.key not in HTML.round(dealt, items)


def test_the_reveal_names_the_lists_and_the_vote(blind_test: BlindTest, searcher: Searcher, monkeypatch):
    monkeypatch.setattr("app.page.blind_vote.logic.LIST_LENGTH", 3)
    dealt = blind_test.deal(PAIR)
    html = HTML.reveal(dealt, blind_test.vote(dealt, "right"), searcher.index.items)
    heads = re.findall(r'<section class="(\w*)"><h2 class="\w+">(\w+)</h2>', html)
    assert heads == [("", dealt.modes[0].capitalize()), ("won", dealt.modes[1].capitalize())]
    assert f"You chose {dealt.modes[1]}." in html
    assert f'href="?id={searcher.index.items[dealt.query].digest}"' in html
    assert html.count('class="both"') == 2 * len(set(dealt.lists[0]) & set(dealt.lists[1]))


def test_the_tally_says_how_sure_it_is():
    assert "interval" not in HTML.tally(Tally(PAIR, (0, 0), 3))
    early = HTML.tally(Tally(PAIR, (3, 1), 0))
    assert "75%" in early
    assert "Neither is shown to be better yet" in early
    late = HTML.tally(Tally(PAIR, (90, 10), 0))
    assert "90%" in late
    assert "A significant difference (95 %)" in late

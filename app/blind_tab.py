"""The blind tab: two unnamed lists, a vote, what they were, and the tally."""

import random
from html import escape
from itertools import combinations
from typing import Any

from app.blind import (
    CHOICES,
    Round,
    Tally,
    Vote,
    Votes,
    cast_vote,
    count_votes,
    deal_round,
    default_votes,
)
from app.views import render_error, render_note, thumbnail_url
from index.errors import needs
from index.search import Searcher
from index.store import Index

with needs("demo"):
    import gradio as gr

SHOWN = 8
KEYS = {"left": "1", "none": "0", "right": "2"}
WORDS = {"left": "Left is better", "none": "No difference", "right": "Right is better"}
STAGE_JS = """
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-do]');
  if (button) trigger('click', {wish: button.dataset.do});
});
document.addEventListener('keydown', event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (!element.isConnected || !element.offsetParent) return;
  if (event.target.closest('input, textarea, select, [contenteditable]')) return;
  const button = element.querySelector(`button[data-key="${event.key}"]`);
  if (button) button.click();
});
"""
TALLY_JS = """
element.addEventListener('click', async event => {
  if (!event.target.closest('button[data-do=export]')) return;
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([await server.export_votes()], {type: 'text/csv'}));
  link.download = 'votes.csv';
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
});
"""


def blind_tab(searcher: Searcher, votes: Votes | None = None) -> None:
    """Add the tab to the page that is being laid out.

    Args:
        searcher: The index. Its models are not asked: photos of the gallery are voted on.
        votes: Where votes go; by default into the user's data folder.
    """
    index, modes = searcher.index, searcher.stored_modes
    kept = votes or default_votes(index)
    pairs = {f"{first} and {second}": (first, second) for first, second in combinations(modes, 2)}
    rng = random.SystemRandom()

    def deal(pair_name: str) -> list[Any]:
        pair = pairs[pair_name]
        earlier = kept.read()
        dealt = deal_round(searcher, pair, SHOWN, rng, {vote.name for vote in earlier})
        shown = (
            render_round(dealt) if dealt else render_note("These two find the same for every photo tried.")
        )
        return [dealt, shown, render_tally(count_votes(earlier, pair))]

    def act(pair_name: str, dealt: Round | None, event: gr.EventData) -> list[Any]:
        wish = event._data["wish"]
        if wish not in CHOICES or dealt is None:
            return deal(pair_name)
        try:
            vote = cast_vote(kept, index, dealt, wish)
        except OSError as error:
            return [dealt, render_error(f"The vote could not be written: {error.strerror}."), gr.skip()]
        return [
            None,
            render_reveal(dealt, vote, index),
            render_tally(count_votes(kept.read(), pairs[pair_name])),
        ]

    def export_votes() -> str:
        return kept.as_csv()

    with gr.Tab("Blind vote", id="blind") as tab:
        if not pairs:
            gr.HTML(render_note("This index was made without a teacher: there is nothing to compare."))
            return
        gr.HTML(
            "<p>Which list would you rather have found? You learn which model made it after each vote.</p>",
            apply_default_css=False,
        )
        pair = gr.Dropdown(list(pairs), label="Compare", visible=len(pairs) > 1, elem_id="blind-pair")
        dealt = gr.State()
        stage = gr.HTML(elem_id="blind", js_on_load=STAGE_JS, apply_default_css=False)
        tally = gr.HTML(
            elem_id="tally", js_on_load=TALLY_JS, server_functions=[export_votes], apply_default_css=False
        )
    shown = [dealt, stage, tally]
    quiet: dict[str, Any] = {"show_progress": "minimal", "api_visibility": "private"}
    # A round that is open stays: whoever looks at another tab and comes back finds it again.
    tab.select(
        lambda name, open_round: [gr.skip()] * 3 if open_round else deal(name), [pair, dealt], shown, **quiet
    )
    pair.input(deal, pair, shown, **quiet)
    stage.click(act, [pair, dealt], shown, trigger_mode="once", **quiet)


def render_round(dealt: Round) -> str:
    """A photo, two lists without names, and the three votes. Nothing in it tells the lists apart."""
    buttons = "".join(
        f'<button type="button" data-do="{choice}" data-key="{KEYS[choice]}" aria-keyshortcuts="{KEYS[choice]}">'
        f"{WORDS[choice]} <kbd>{KEYS[choice]}</kbd></button>"
        for choice in ("left", "none", "right")
    )
    lists = "".join(
        f"<section><h3>{side}</h3>{_list(items, side)}</section>"
        for side, items in zip(("Left", "Right"), dealt.lists, strict=True)
    )
    return f'{_query(dealt.query)}<div class="duel">{lists}</div><div class="votes">{buttons}</div>'


def render_reveal(dealt: Round, vote: Vote, index: Index) -> str:
    """The same lists with their names, and what was voted."""
    shared = set(dealt.lists[0]) & set(dealt.lists[1])
    lists = "".join(
        f'<section class="{"won" if vote.choice == side.lower() else "open"}"><h3>{escape(mode.capitalize())}</h3>'
        f"{_list(items, mode, shared)}</section>"
        for side, mode, items in zip(("Left", "Right"), dealt.modes, dealt.lists, strict=True)
    )
    said = f"You preferred the {escape(vote.winner)}." if vote.winner else "You saw no difference."
    name = escape(index.items[dealt.query].name)
    return (
        f'{_query(dealt.query)}<div class="duel">{lists}</div>'
        f'<div class="votes"><button type="button" data-do="next" data-key="n" aria-keyshortcuts="n">'
        f"Next <kbd>N</kbd></button></div>"
        f'<p class="said" role="status"><b>{said}</b> Framed in green: found by both. '
        f'<a href="?id={dealt.query}" title="{name}">Compare with all figures</a></p>'
    )


def render_tally(tally: Tally) -> str:
    """The votes so far, with the confidence interval of the first one's share."""
    first, second = (escape(mode) for mode in tally.pair)
    export = '<button type="button" data-do="export">Export all votes as CSV</button>'
    if not tally.decided:
        counted = f"{tally.undecided} without a difference." if tally.undecided else ""
        return f'<div class="tally"><p>No vote for one side yet. {counted}</p>{export}</div>'
    low, high = tally.interval
    return (
        f'<div class="tally"><p><b>{first} {tally.wins[0]}</b> · {second} {tally.wins[1]} · '
        f"no difference {tally.undecided}</p>"
        f'<div class="interval" role="img" aria-label="{first}: {tally.share:.0%} of the decided votes, '
        f'95 % interval from {low:.0%} to {high:.0%}">'
        f'<i style="left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"></i>'
        f'<b style="left:{100 * tally.share:.1f}%"></b></div>'
        f"<p>The {first} won {tally.share:.0%} of the decided votes (95 % interval {low:.0%} to {high:.0%}). "
        f"{_verdict(tally)} Only photos for which the lists differ are shown.</p>{export}</div>"
    )


def _verdict(tally: Tally) -> str:
    low, high = tally.interval
    if low <= 0.5 <= high:
        return "So far neither is shown to be better."
    return f"The {escape(tally.pair[0] if low > 0.5 else tally.pair[1])} is preferred."


def _query(item: int) -> str:
    return f'<figure class="asked"><img src="{thumbnail_url(item)}" alt="The photo searched with"></figure>'


def _list(items: list[int], name: str, shared: set[int] | None = None) -> str:
    cells = "".join(
        f'<li class="{"both" if shared and item in shared else "one"}">'
        f'<img src="{thumbnail_url(item)}" alt="{escape(name)}, result {rank}"></li>'
        for rank, item in enumerate(items, 1)
    )
    return f"<ol>{cells}</ol>"

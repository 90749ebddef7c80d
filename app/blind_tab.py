"""The blind vote: two lists without names, a vote, what they were, and the tally."""

import random
from html import escape
from itertools import combinations
from typing import Any

from app.blind import (
    CHOICES,
    Round,
    Tally,
    Vote,
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
BUTTONS = {"left": ("1", "Left is better"), "none": ("0", "No difference"), "right": ("2", "Right is better")}
LEAD = "Which list would you rather have found? You learn which model made it after each vote."
STAGE_JS = """
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-wish]');
  if (button) trigger('click', {wish: button.dataset.wish});
});
document.addEventListener('keydown', event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || !element.offsetParent) return;
  if (event.target.closest('input, textarea, select, [contenteditable]')) return;
  element.querySelector(`button[data-key="${CSS.escape(event.key)}"]`)?.click();
});
"""
TALLY_JS = """
element.addEventListener('click', async event => {
  if (!event.target.closest('button')) return;
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([await server.export_votes()], {type: 'text/csv'}));
  link.download = 'votes.csv';
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
});
"""


def build_blind_tab(searcher: Searcher) -> None:
    """Add the tab to the page that is being laid out. The queries are photos of the gallery."""
    index, kept, rng = searcher.index, default_votes(searcher.index), random.SystemRandom()
    pairs = {f"{one} and {other}": (one, other) for one, other in combinations(searcher.stored_modes, 2)}

    def deal(pair_name: str) -> list[Any]:
        pair, votes = pairs[pair_name], kept.read()
        dealt = deal_round(searcher, pair, SHOWN, rng, {vote.name for vote in votes})
        shown = (
            render_round(dealt) if dealt else render_note("For all photos tried, these two find the same.")
        )
        return [dealt, shown, render_tally(count_votes(votes, pair))]

    def open_tab(pair_name: str, dealt: Round | None) -> list[Any]:
        return [gr.skip()] * 3 if dealt else deal(pair_name)  # an open round is still there

    def act(pair_name: str, dealt: Round | None, event: gr.EventData) -> list[Any]:
        wish = event._data["wish"]
        if dealt is None or wish not in CHOICES:
            return deal(pair_name)
        try:
            vote = cast_vote(kept, index, dealt, wish)
        except OSError as error:
            return [dealt, render_error(f"The vote could not be written: {error.strerror}."), gr.skip()]
        tally = render_tally(count_votes(kept.read(), pairs[pair_name]))
        return [None, render_reveal(dealt, vote, index), tally]

    def export_votes() -> str:
        return kept.as_csv()

    with gr.Tab("Blind vote", id="blind") as tab:
        if not pairs:
            gr.HTML(render_note("This index was made without a teacher: there is nothing to compare."))
            return
        gr.HTML(f'<p class="tab-lead">{LEAD}</p>', apply_default_css=False)
        pair = gr.Dropdown(list(pairs), label="Compare", visible=len(pairs) > 1, elem_id="pair")
        dealt = gr.State()  # on the server: neither the order nor the names are sent before the vote
        stage = gr.HTML(elem_id="blind", js_on_load=STAGE_JS, apply_default_css=False)
        tally = gr.HTML(
            elem_id="tally", js_on_load=TALLY_JS, server_functions=[export_votes], apply_default_css=False
        )
    shown = [dealt, stage, tally]
    options: dict[str, Any] = {
        "trigger_mode": "once",
        "show_progress": "minimal",
        "api_visibility": "private",
    }
    tab.select(open_tab, [pair, dealt], shown, **options)
    pair.input(deal, pair, shown, **options)
    stage.click(act, [pair, dealt], shown, **options)


def render_round(dealt: Round) -> str:
    """A photo, two lists and the three votes. Nothing in it tells which list is whose."""
    lists = "".join(
        f"<section><h3>{side}</h3>{_render_list(items, side)}</section>"
        for side, items in zip(("Left", "Right"), dealt.lists, strict=True)
    )
    buttons = "".join(_render_button(choice, *BUTTONS[choice]) for choice in BUTTONS)
    return f'{_render_query(dealt.query)}<div class="duel">{lists}</div><div class="votes">{buttons}</div>'


def render_reveal(dealt: Round, vote: Vote, index: Index) -> str:
    """The same lists with their names, and what was voted."""
    shared = set(dealt.lists[0]) & set(dealt.lists[1])
    lists = "".join(
        f'<section class="{"won" if vote.choice == side else ""}"><h3>{escape(mode.capitalize())}</h3>'
        f"{_render_list(items, mode, shared)}</section>"
        for side, mode, items in zip(("left", "right"), dealt.modes, dealt.lists, strict=True)
    )
    said = f"You preferred {escape(vote.winner)}." if vote.winner else "You saw no difference."
    return (
        f'{_render_query(dealt.query, index.items[dealt.query].name)}<div class="duel">{lists}</div>'
        f'<div class="votes">{_render_button("next", "n", "Next photo", "next")}</div>'
        f'<p class="said" role="status"><b>{said}</b> Framed in green: found by both. '
        f'<a href="?id={dealt.query}">Compare with all figures</a></p>'
    )


def render_tally(tally: Tally) -> str:
    """The votes so far, with the confidence interval of the share that the first mode won."""
    first, second = (escape(mode) for mode in tally.pair)
    counts = "".join(
        f"<span>{name} <b>{count}</b></span>"
        for name, count in (
            (first, tally.wins[0]),
            (second, tally.wins[1]),
            ("no difference", tally.undecided),
        )
    )
    return (
        f'<div class="tally"><p class="count">{counts}</p>{_render_interval(tally)}'
        "<p>Only photos for which the lists differ are shown, so this says nothing of the others.</p>"
        '<button type="button">Export all votes as CSV</button></div>'
    )


def _render_interval(tally: Tally) -> str:
    if not tally.decided:
        return ""
    low, high = tally.interval
    said = (
        f"{escape(tally.pair[0])} won {tally.share:.0%} of the votes for one side, "
        f"95 % confidence interval {low:.0%} to {high:.0%}"
    )
    verdict = "Neither is shown to be better yet." if low <= 0.5 <= high else "The difference is significant."
    return (
        f'<div class="interval" role="img" aria-label="{said}">'
        f'<i style="left:{low:.1%};width:{high - low:.1%}"></i><b style="left:{tally.share:.1%}"></b></div>'
        f"<p>{said[0].upper()}{said[1:]}. {verdict}</p>"
    )


def _render_button(wish: str, key: str, text: str, kind: str = "") -> str:
    return (
        f'<button type="button" class="{kind}" data-wish="{wish}" data-key="{key}" aria-keyshortcuts="{key}">'
        f"{text}<kbd>{key.upper()}</kbd></button>"
    )


def _render_query(item: int, name: str = "") -> str:
    caption = f"<figcaption>{escape(name)}</figcaption>" if name else ""
    picture = f'<img src="{thumbnail_url(item)}" alt="The photo searched with">'
    return f'<figure class="asked">{picture}{caption}</figure>'


def _render_list(items: list[int], name: str, shared: set[int] | None = None) -> str:
    cells = "".join(
        f'<li class="{"both" if shared and item in shared else ""}">'
        f'<img src="{thumbnail_url(item)}" alt="{escape(name)}, result {rank}"></li>'
        for rank, item in enumerate(items, 1)
    )
    return f"<ol>{cells}</ol>"

"""The blind vote as HTML: the round, what it was, and the tally."""

from collections.abc import Iterable
from html import escape

from app.page.blind_vote.logic import Round
from app.page.blind_vote.votes import Tally, Vote
from app.page.views import thumbnail_url
from index.stores.base import Store

BUTTONS = {"left": ("1", "Left is better"), "none": ("0", "No difference"), "right": ("2", "Right is better")}


def render_blind_test(pairs: Iterable[str]) -> str:
    """The tab before the first round.

    Args:
        pairs: Names of the pairs of modes that can be compared.
    """
    options = "".join(f"<option>{escape(pair)}</option>" for pair in pairs)
    return (
        '<div class="tab"><div class="controls"><p>Which list would you rather have found? You learn which '
        f'model made it after each vote.</p><label>Compare<select class="pair">{options}</select></label>'
        '</div><div class="stage"></div><div class="standing"></div></div>'
    )


def render_round(dealt: Round) -> str:
    """A photo, two lists and the three votes. Nothing in it tells which list is whose."""
    lists = "".join(
        f"<section><h3>{side}</h3>{_render_list(items, side)}</section>"
        for side, items in zip(("Left", "Right"), dealt.lists, strict=True)
    )
    buttons = "".join(_render_button(choice, *BUTTONS[choice]) for choice in BUTTONS)
    return f'<div class="duel">{_render_query(dealt.query)}{lists}</div><div class="votes">{buttons}</div>'


def render_reveal(dealt: Round, vote: Vote, index: Store) -> str:
    """The same lists with their names, and what was voted."""
    shared = set(dealt.lists[0]) & set(dealt.lists[1])
    lists = "".join(
        f'<section class="{"won" if vote.choice == side else ""}">'
        f'<h3 class="{mode}">{escape(mode.capitalize())}</h3>{_render_list(items, mode, shared)}</section>'
        for side, mode, items in zip(("left", "right"), dealt.modes, dealt.lists, strict=True)
    )
    said = f"You chose {escape(vote.winner)}." if vote.winner else "You saw no difference."
    return (
        f'<div class="duel">{_render_query(dealt.query, index.items[dealt.query].name)}{lists}</div>'
        f'<div class="votes">{_render_button("next", "n", "Next photo", "primary")}</div>'
        f'<p class="said" role="status"><b>{said}</b> Framed in green: found by both. '
        f'<a href="?id={dealt.query}">Compare with all figures</a></p>'
    )


def render_tally(tally: Tally) -> str:
    """The votes so far, with the confidence interval of the share that the first mode won."""
    names = (*tally.pair, "no difference")
    counts = "".join(
        f"<span>{escape(name)} <b>{count:,}</b></span>"
        for name, count in zip(names, (*tally.wins, tally.undecided), strict=True)
    )
    return (
        f'<div class="tally"><p class="count">{counts}</p>{_render_interval(tally)}'
        "<p>Only photos for which the lists differ are shown: this says nothing of the others.</p>"
        '<button type="button" data-wish="export">Export all votes as CSV</button></div>'
    )


def _render_interval(tally: Tally) -> str:
    if not tally.decided:
        return ""
    low, high = tally.interval
    said = (
        f"{escape(tally.pair[0])} won {tally.share:.0%} of the votes for one side, "
        f"95% confidence interval {low:.0%} to {high:.0%}"
    )
    verdict = "Neither is shown to be better yet." if low <= 0.5 <= high else "That is more than chance."
    return (
        f'<div class="interval" role="img" aria-label="{said}">'
        f'<i style="left:{low:.1%};width:{high - low:.1%}"></i><b style="left:{tally.share:.1%}"></b></div>'
        f"<p>{said[0].upper()}{said[1:]}. {verdict}</p>"
    )


def _render_button(wish: str, key: str, text: str, kind: str = "plain") -> str:
    return (
        f'<button type="button" class="{kind}" data-wish="{wish}" data-key="{key}" aria-keyshortcuts="{key}">'
        f"{text}<kbd>{key.upper()}</kbd></button>"
    )


def _render_query(item: int, name: str = "") -> str:
    # The name may tell what is to be found, so it comes with the reveal; its place is kept.
    picture = f'<img src="{thumbnail_url(item)}" alt="The photo searched with">'
    return f'<figure class="asked">{picture}<figcaption>{escape(name)}</figcaption></figure>'


def _render_list(items: list[int], name: str, shared: set[int] | None = None) -> str:
    cells = "".join(
        f'<li class="{"both" if shared and item in shared else "one"}">'
        f'<img src="{thumbnail_url(item)}" alt="{escape(name)}, result {rank}"></li>'
        for rank, item in enumerate(items, 1)
    )
    return f"<ol>{cells}</ol>"

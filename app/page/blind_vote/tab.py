"""The tab of the blind vote: what its script asks for."""

import random
from itertools import combinations
from pathlib import Path
from typing import Any

from app.page.blind_vote.logic import BlindTest
from app.page.blind_vote.votes import Pair, default_votes
from app.page.views import SAVE, SEEN, add_empty_tab, add_html, render_error, render_note
from index.errors import RetrievalError, needs
from index.html import load
from index.search import Searcher

with needs("demo"):
    import gradio as gr

HTML = load("app/page/blind_vote/blind.html")
NO_DIFFERENCE = "For all photos that were tried, these two find the same."
ROUND_GONE = "This round is gone: the server was started again, or too long has passed."


def _why(what: str, error: Exception) -> str:
    return f"{what}: {error.strerror}." if isinstance(error, OSError) else str(error)


def build_blind_tab(searcher: Searcher) -> None:
    """Add the tab to the page that is being laid out. The queries are photos of the gallery."""
    pairs = {f"{one} and {other}": (one, other) for one, other in combinations(searcher.stored_modes, 2)}
    items = searcher.index.items
    blind_test = BlindTest(searcher, default_votes(searcher.index), random.SystemRandom())

    def pair_of(asked: dict[str, Any]) -> Pair:
        return pairs.get(str(asked.get("pair")), next(iter(pairs.values())))

    def deal(asked: dict[str, Any]) -> dict[str, str]:
        pair = pair_of(asked)
        try:
            dealt, standing = blind_test.deal(pair), HTML.tally(blind_test.count(pair))
        except (OSError, RetrievalError) as error:
            return {"stage": render_error(_why("The votes cannot be read", error))}
        if dealt is None:
            return {"stage": render_note(NO_DIFFERENCE), "standing": standing}
        return {"round": dealt.key, "stage": HTML.round(dealt, items), "standing": standing}

    def vote(asked: dict[str, Any]) -> dict[str, str]:
        dealt = blind_test.find(str(asked.get("round")))
        if dealt is None:
            fresh = deal(asked)
            return fresh | {"stage": render_note(ROUND_GONE) + fresh["stage"]}
        try:
            cast = blind_test.vote(dealt, str(asked.get("choice")))
        except (OSError, ValueError) as error:
            told = render_error(_why("The vote could not be kept", error))
            return {"round": dealt.key, "stage": told + HTML.round(dealt, items)}
        standing = HTML.tally(blind_test.count(pair_of(asked)))
        return {"stage": HTML.reveal(dealt, cast, items), "standing": standing}

    def export_votes(_: dict[str, Any]) -> str:
        return blind_test.votes.as_csv()

    with gr.Tab("Blind vote", id="blind"):
        if not pairs:
            add_empty_tab("blind")
        else:
            script = Path(__file__).with_name("blind.js")
            add_html(HTML.page(pairs), "blind", [SEEN, SAVE, script], [deal, vote, export_votes])

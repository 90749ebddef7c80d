"""The tab of the blind vote: what its script asks for."""

import random
from itertools import combinations
from typing import Any

from app.page.blind_vote.logic import BlindTest, Pair, count_votes, default_votes
from app.page.views import NO_TEACHER, add_tab, render_error, render_note
from index.errors import RetrievalError
from index.html import load
from index.search import Searcher

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
            dealt = blind_test.deal(pair)
            standing = HTML.tally(count_votes(blind_test.votes.read(), pair))
        except (OSError, RetrievalError) as error:
            return {"stage": render_error(_why("The votes cannot be read", error))}
        if dealt is None:
            return {"stage": render_note(NO_DIFFERENCE), "standing": standing}
        return {"round": dealt.key, "stage": HTML.round(dealt, items), "standing": standing}

    def vote(asked: dict[str, Any]) -> dict[str, str]:
        dealt = blind_test.open.get(str(asked.get("round")))
        if dealt is None:
            fresh = deal(asked)
            return fresh | {"stage": render_note(ROUND_GONE) + fresh["stage"]}
        try:
            cast = blind_test.vote(dealt, str(asked.get("choice")))
        except (OSError, ValueError) as error:
            told = render_error(_why("The vote could not be kept", error))
            return {"round": dealt.key, "stage": told + HTML.round(dealt, items)}
        standing = HTML.tally(count_votes(blind_test.votes.read(), pair_of(asked)))
        return {"stage": HTML.reveal(dealt, cast, items), "standing": standing}

    def export_votes(_: dict[str, Any]) -> str:
        return blind_test.votes.as_csv()

    if not pairs:
        add_tab("Blind vote", NO_TEACHER, "blind")
    else:
        scripts = "seen.js", "save.js", "blind_vote/blind.js"
        add_tab("Blind vote", HTML.page(pairs), "blind", scripts, [deal, vote, export_votes])

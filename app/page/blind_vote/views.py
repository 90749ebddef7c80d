"""Show the blind vote: the round, what it was, and the tally."""

from app.page.blind_vote.logic import Round
from app.page.blind_vote.votes import Tally, Vote
from app.page.views import thumbnail_url
from index.html import load
from index.stores.base import Store

HTML = load("app/page/blind_vote/blind.html", thumbnail=thumbnail_url)


# A photo, two lists and the three votes. Nothing tells which list belongs to which model.
render_round = HTML.round


def render_reveal(dealt: Round, vote: Vote, index: Store) -> str:
    """Show the same lists with their names, and what was voted."""
    shared = set(dealt.lists[0]) & set(dealt.lists[1])
    return HTML.reveal(dealt, vote, index.items[dealt.query], shared)


def render_tally(tally: Tally) -> str:
    """Show the votes so far, with the confidence interval of the share that the first mode won."""
    counts = zip((*tally.pair, "no difference"), (*tally.wins, tally.undecided), strict=True)
    return HTML.tally(counts, _interval(tally))


def _interval(tally: Tally) -> dict[str, str]:
    if not tally.decided:
        return {}
    low, high = tally.interval
    return {
        "said": f"{tally.pair[0]} won {tally.share:.0%} of the votes for one side, "
        f"95% confidence interval {low:.0%} to {high:.0%}",
        "low": f"{low:.1%}",
        "width": f"{high - low:.1%}",
        "share": f"{tally.share:.1%}",
        "verdict": "Neither is shown to be better yet."
        if low <= 0.5 <= high
        else "A significant difference (95 %).",
    }

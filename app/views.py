"""Results as HTML. Pure functions: what comes in is escaped, and nothing here knows Gradio."""

from html import escape

from app.compare import Comparison
from index.search import Found
from index.store import Index


def thumbnail_url(item: int) -> str:
    """Where the page finds the small picture of an item."""
    return f"thumbs/{item}"


def render_column(found: Found, index: Index, other: Found | None) -> str:
    """One model's results as cards that can be clicked.

    Args:
        found: Results of one query.
        index: Where the items are.
        other: The other model's results, to mark what both found; None marks nothing.
    """
    shared = set(other.results.ids[0].tolist()) if other else set()
    pairs = zip(found.results.ids[0].tolist(), found.results.scores[0].tolist(), strict=True)
    cards = [
        _card(rank, item, score, index.items[item].name, item in shared)
        for rank, (item, score) in enumerate(pairs, start=1)
        if item >= 0
    ]
    return f'<ol class="cards">{"".join(cards)}</ol>' if cards else '<p class="note">Nothing found.</p>'


def render_summary(comparison: Comparison, k: int) -> str:
    """The numbers above the results."""
    facts = []
    if comparison.overlap is not None:
        facts.append(_fact(f"{comparison.overlap:.0%}", f"overlap@{k}", "the same among the first results"))
        facts.append(_fact(f"{comparison.rbo:.2f}", "RBO", "agreement in order, 1 is the same list"))
    facts.append(_time("student", comparison.student))
    if comparison.teacher:
        facts.append(_time("teacher", comparison.teacher))
    return f'<dl class="facts">{"".join(facts)}</dl>'


def render_heading(index: Index) -> str:
    """What is searched, and by which models."""
    spaces = index.manifest.spaces
    models = [
        f"{name} {escape(spaces[name].name)}, {spaces[name].dim}-d"
        for name in ("student", "teacher")
        if name in spaces
    ]
    return f"<h1>retrieval</h1><p>{len(index):,} images · {' · '.join(models)}</p>"


def render_query(picture: str, name: str) -> str:
    """The photo that was searched with, by its address on the page."""
    caption = f"<figcaption>{escape(name)}</figcaption>"
    return f'<figure class="query"><img src="{escape(picture)}" alt="Query">{caption}</figure>'


def render_note(text: str) -> str:
    """A line in place of results."""
    return f'<p class="note">{escape(text)}</p>'


def render_error(text: str) -> str:
    """A line that says what went wrong and what to do."""
    return f'<p class="note error" role="alert">{escape(text)}</p>'


def _card(rank: int, item: int, score: float, name: str, shared: bool) -> str:
    mark = '<span class="both" title="Both models found this">both</span>' if shared else ""
    label = escape(
        f"{rank}. {name}, similarity {score:.3f}{', found by both' if shared else ''}. Search with it."
    )
    return (
        f'<li><button type="button" class="card{" shared" if shared else ""}" data-id="{item}" '
        f'aria-label="{label}">'
        f'<img src="{thumbnail_url(item)}" alt="" loading="lazy">{mark}'
        f'<span class="line"><b>{rank}</b><span class="score">{score:.3f}</span></span>'
        f'<span class="name" title="{escape(name)}">{escape(name)}</span></button></li>'
    )


def _fact(value: str, name: str, meaning: str) -> str:
    return f'<div title="{meaning}"><dt>{name}</dt><dd>{value}</dd></div>'


def _time(name: str, found: Found) -> str:
    embed, search = 1000 * found.embed_seconds, 1000 * found.search_seconds
    return _fact(f"{embed:.0f} + {search:.1f} ms", name, "embedding + search")

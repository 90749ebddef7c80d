"""HTML that all tabs share. Pure functions: what comes in is escaped."""

from html import escape
from pathlib import Path

from index.stores.base import Store

ICON = Path(__file__).with_name("icon.svg").read_text().replace("<svg ", '<svg aria-hidden="true" ')
ALONE = "This index was made without a teacher: there is nothing to compare. Index again with --teacher."


def thumbnail_url(item: int) -> str:
    """Where the page finds the small picture of an item."""
    return f"thumbs/{item}"


def render_heading(index: Store) -> str:
    """What is searched, and by which models."""
    spaces = index.manifest.spaces
    models = [
        f'<span class="model {name}">{escape(spaces[name].name)}, {spaces[name].dim} numbers an image</span>'
        for name in ("student", "teacher")
        if name in spaces
    ]
    count = f"{len(index):,} image{'' if len(index) == 1 else 's'}"
    return f"<h1>{ICON}retrieval</h1><p><span>{count}</span>{''.join(models)}</p>"


def render_note(text: str) -> str:
    """A line in place of results."""
    return f'<p class="note">{escape(text)}</p>'


def render_lone_note(text: str) -> str:
    """A line in place of a whole tab."""
    return f'<div class="tab">{render_note(text)}</div>'


def render_error(text: str) -> str:
    """A line that says what went wrong and what to do."""
    return f'<p class="note error">{escape(text)}</p>'

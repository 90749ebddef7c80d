"""HTML that all tabs share."""

from pathlib import Path

from markupsafe import Markup

from index.html import load
from index.stores.base import Store

ICON = Markup(Path(__file__).with_name("icon.svg").read_text().replace("<svg ", '<svg aria-hidden="true" '))  # noqa: S704
NO_TEACHER = "This index was made without a teacher: there is nothing to compare. Index again with --teacher."


def thumbnail_url(item: int) -> str:
    """Address the small picture of an item."""
    return f"thumbs/{item}"


PARTS = load("app/page/parts.html", thumbnail=thumbnail_url)


def render_heading(index: Store) -> str:
    """Show what is searched, and by which models."""
    spaces = index.manifest.spaces
    models = [(name, spaces[name]) for name in ("student", "teacher") if name in spaces]
    return PARTS.heading(ICON, len(index), models)


def render_note(text: str) -> str:
    """Show a line in place of results."""
    return PARTS.note(text)


def render_lone_note(text: str) -> str:
    """Show a line in place of a whole tab."""
    return PARTS.lone_note(text)


def render_error(text: str) -> str:
    """Show a line that says what went wrong and what to do."""
    return PARTS.note(text, "note error")

"""HTML that all tabs share."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from index.errors import needs
from index.html import load
from index.stores.base import Store
from index.stores.records import Space

with needs("demo"):
    import gradio as gr
    from markupsafe import Markup

HERE = Path(__file__).parent
ICON = Markup((HERE / "icon.svg").read_text().replace("<svg ", '<svg aria-hidden="true" '))  # noqa: S704
GALLERY = "photos of the gallery, which training may have seen"  # a population; others are in `Estimate`
OTHER_VERSION = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)  # reading a run of one
Functions = Sequence[Callable[..., Any]]
NO_LINKS: Mapping[str, str] = {}


def format_bytes(count: int | None) -> str:
    """Format a size, as in `3.1 MB`; a dash where there is none, or it is not known."""
    if count is None:
        return "-"
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def format_length(space: Space) -> str:
    """Say how long the vectors of a space are, as in `256-d`, or its codes, as in `128 bits`."""
    return f"{space.bits} bits" if space.bits else f"{space.dim:,}-d"


PARTS = load("app/page/parts.html", format_bytes=format_bytes, format_length=format_length)
render_note = PARTS.note  # a line in place of results
render_error = partial(PARTS.note, kind="note error")  # a line that says what went wrong and what to do
NO_TEACHER = PARTS.lone_note(  # in place of a tab that compares
    "This index was made without a teacher: there is nothing to compare. Index again with --teacher."
)


def render_heading(
    index: Store,
    run: Mapping[str, Any] | None = None,
    links: Mapping[str, str] = NO_LINKS,
    named: bool = True,
) -> str:
    """Show what is searched, and by which models if they are `named`.

    `run` is what is known of the student's training, `links` are addresses of other pages and their names.
    """
    made = ""
    with suppress(*OTHER_VERSION):
        if run:
            size = format_bytes(round(1e6 * run["export"]["megabytes"]))
            made = f"{run['options']['student']}, {size}, distilled from {run['queried']:,} answers"
    return PARTS.heading(ICON, len(index), index.manifest.spaces if named else {}, made, links)


def read_scripts(*names: str) -> str:
    """Read scripts that run one after the other, by their paths in this folder, without what people read."""
    lines = (line.strip() for name in names for line in (HERE / name).read_text().splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("//"))  # a tenth less to load


def add_html(html: str, name: str, scripts: Sequence[str] = (), functions: Functions = ()) -> None:
    """Add HTML, whose id is `name`, to the page that is being laid out.

    `scripts` as in `read_scripts` run once it is there; `element` is the HTML, and `server` has the functions
    that they can call by their names.
    """
    script, asked = read_scripts(*scripts), list(functions)
    gr.HTML(html, js_on_load=script, server_functions=asked, apply_default_css=False, elem_id=name)


def add_tab(title: str, html: str, name: str, scripts: Sequence[str] = (), functions: Functions = ()) -> None:
    """Add a tab to the page that is being laid out; the rest is as for `add_html`."""
    with gr.Tab(title, id=name):
        add_html(html, name, scripts, functions)

"""Load HTML templates: Jinja2, which escapes what is put in."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from index.errors import needs

with needs("demo"):
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

ROOT = Path(__file__).parents[1]
LAYOUT = re.compile(r"(?<=[>}])\s*\n\s*|\s*\n\s*(?=<|\{[{%#])")


class _Loader(FileSystemLoader):
    """Leaves out the line breaks beside a tag: they lay out the template, and the page must not show them."""

    def get_source(self, environment: Environment, template: str) -> tuple[str, str, Callable[[], bool]]:
        source, name, unchanged = super().get_source(environment, template)
        return LAYOUT.sub("", source) if template.endswith(".html") else source, name, unchanged


ENVIRONMENT = Environment(loader=_Loader(ROOT), autoescape=select_autoescape(), undefined=StrictUndefined)


def load(name: str, **known: Any) -> Any:
    """Load a template's macros, which can use what is known; each becomes a function that returns HTML.

    It is named by its path from the root, as `app/page/parts.html`; a `.md` is Markdown, and escapes nothing.
    """
    return ENVIRONMENT.get_template(name).make_module(known)

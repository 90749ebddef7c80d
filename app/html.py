"""Load HTML templates: Jinja2, which escapes what is put in."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from index.errors import needs

with needs("demo"):
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

APP = Path(__file__).parent
LAYOUT = re.compile(r"(?<=[>}])\s*\n\s*|\s*\n\s*(?=<|\{[{%#])")


class _Loader(FileSystemLoader):
    """Leaves out the line breaks beside a tag: they lay out the template, and the page must not show them."""

    def get_source(self, environment: Environment, template: str) -> tuple[str, str, Callable[[], bool]]:
        source, name, unchanged = super().get_source(environment, template)
        return LAYOUT.sub("", source), name, unchanged


ENVIRONMENT = Environment(loader=_Loader(APP), autoescape=True, undefined=StrictUndefined)


def load(name: str, **known: Any) -> Any:
    """Load a template's macros, each of which becomes a function that returns HTML.

    Args:
        name: Its path below `app/`.
        known: What it can use, such as functions.
    """
    return ENVIRONMENT.get_template(name).make_module(known)

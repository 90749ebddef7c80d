"""What the metadata says on a card: title, caption and link of an image."""

import re
from collections.abc import Collection
from dataclasses import dataclass

from app.server.api import only_of
from index.errors import UsageError
from index.stores.base import Store

FOLLOWED = re.compile(r"https?://\S+", re.IGNORECASE)  # what may be a link: metadata may hold scripts


@dataclass(frozen=True)
class Labels:
    """Columns of the metadata that label images; empty for none."""

    title: str = ""  # what names them, in place of their file names
    caption: str = ""  # what stands below, as their prices
    link: str = ""  # the http(s) addresses that they lead to

    def require_columns(self, known: Collection[str]) -> None:
        """Raise UsageError, with those there are, for a column that the metadata does not have."""
        for option, column in vars(self).items():
            if column and column not in known:
                raise UsageError(f"--{option}: no column {column!r} here{only_of(known)}.")

    def of(self, index: Store, item: int) -> dict[str, str]:
        """Read `title`, `caption` and `link` of an item, without those that it does not have."""
        if self == NONE:
            return {}
        known = index.metadata_of(item)
        said = {name: known[column] for name, column in vars(self).items() if known.get(column)}
        if not FOLLOWED.fullmatch(said.get("link", "")):
            said.pop("link", None)
        return said


NONE = Labels()

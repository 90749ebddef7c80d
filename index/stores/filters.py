"""Narrow a search: by name, by what is known of the items, and by a share of the best score."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from index.errors import NoMatchError, UsageError
from index.stores.metadata.columns import BOUND, Metadata
from index.vectors import Scores

NAMED = 10  # values that a message names


@dataclass(frozen=True)
class Filter:
    """Which results are wanted; the default wants all."""

    prefix: str = ""  # of an item's name, the path below the indexed folder
    columns: Mapping[str, str] = field(default_factory=dict)  # in an item's metadata, as `Column.matches`
    cut: float = 0.0  # least share of the best score; 0 cuts nothing

    def __post_init__(self) -> None:
        if not 0 <= self.cut <= 1:
            raise UsageError(f"--cut must lie between 0 and 1, not {self.cut}.")
        for text in (self.prefix, *self.columns, *self.columns.values()):
            if any("\ud800" <= letter <= "\udfff" for letter in text):
                raise UsageError(f"{text!a} is no text in UTF-8. Write names as they are shown.")
        object.__setattr__(self, "columns", MappingProxyType(dict(self.columns)))

    def __hash__(self) -> int:
        return hash((self.prefix, frozenset(self.columns.items()), self.cut))

    @property
    def selects(self) -> bool:
        """Whether it wants some of the items only, whatever their score."""
        return bool(self.prefix or self.columns)

    def keep(self, metadata: Metadata) -> NDArray[np.bool_] | None:
        """Which items are wanted, whatever their score: `(items,)`, None is all; NoMatchError if none is."""
        self.require_columns(metadata.names)
        masks = [metadata.matches(column, value) for column, value in self.columns.items()]
        if self.prefix:
            masks.append(metadata.starts_with(self.prefix))
        if not masks:
            return None
        kept = np.logical_and.reduce(masks)
        if not kept.any():
            raise self.matches_nothing(metadata.columns, metadata.top_names)
        return kept

    def require_columns(self, names: Collection[str]) -> None:
        """Raise UsageError, which names those that are there, if a column is not."""
        for column in self.columns:
            if column not in names:
                there = f"only {', '.join(names)}" if names else "nor any other: see index --metadata"
                raise UsageError(f"This index has no column {column!r}, {there}.")

    def matches_nothing(
        self, columns: Mapping[str, Sequence[str]], top_names: Sequence[str] = ()
    ) -> NoMatchError:
        """Say that no item is wanted, and what values and names at the top there are, as far as is known."""
        wanted = [c + (v if BOUND.match(v) else f"={v}") for c, v in self.columns.items()]
        there = [_list(f"{column} is", columns[column]) for column in self.columns if columns[column]]
        if self.prefix:
            wanted.append(f"a path that starts with {self.prefix!r}")
            folders = [name for name in top_names if name.endswith("/")]
            example = f"paths have no folder, as {top_names[0]}" if top_names else "paths start with a folder"
            there.append(_list("paths start with", folders) if folders else example)
        return NoMatchError(f"No image has {' and '.join(wanted)}: {'; '.join(there) or 'leave it out'}.")

    def clear(self, scores: Scores) -> NDArray[np.bool_]:
        """Which of `(queries, k)` falling scores pass the cut."""
        if not self.cut:
            return np.ones(scores.shape, bool)
        best = scores[:, :1]
        return scores >= np.minimum(best, self.cut * best)  # a share of a negative best lies above it


def _list(what: str, values: Sequence[str]) -> str:
    more = f" and {len(values) - NAMED} more" if len(values) > NAMED else ""
    return f"{what} {', '.join(values[:NAMED])}{more}"


def parse_where(conditions: Sequence[str]) -> dict[str, str]:
    """Read conditions like `colour=red`, `colour=red,blue` or `price<20`; UsageError for one that is none."""
    columns: dict[str, str] = {}
    for condition in conditions:
        if not (found := re.fullmatch(r"([^=<>]+)(=|<=|>=|<|>)(.*)", condition, re.DOTALL)):
            raise UsageError(f"--where takes column=value or column<value, not {condition!r}.")
        column, sign, value = found.groups()
        if sign != "=" or column.endswith(" "):  # as in `colour = red`; the blanks of `colour= red` may count
            value = value.strip()
        column = column.strip()
        if not column or (sign != "=" and not value):
            raise UsageError(f"--where {condition!r} lacks {'a value' if column else 'a column'}.")
        wanted = value if sign == "=" else sign + value
        if column in columns and not (BOUND.match(wanted) and BOUND.match(columns[column])):
            raise UsageError(f"--where names {column} twice. Give {column}=one,other, or bounds.")
        columns[column] = f"{columns[column]}&{wanted}" if column in columns else wanted
    return columns

"""Narrow a search: to some of the items, and to what is nearly as like the query as the best."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from index.errors import UsageError
from index.stores.metadata import Metadata
from index.vectors import Scores


@dataclass(frozen=True)
class Filter:
    """Which results are wanted; the default wants all.

    Attributes:
        prefix: Items with a name, the path below the indexed folder, that starts so.
        columns: Items with these values in their metadata.
        cut: Items with at least this share of the best score; 0 cuts nothing.
    """

    prefix: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    cut: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.cut <= 1:
            raise UsageError(f"--cut must lie between 0 and 1, not {self.cut}.")
        object.__setattr__(self, "columns", MappingProxyType(dict(self.columns)))

    def keep(self, metadata: Metadata) -> NDArray[np.bool_] | None:
        """Which items are wanted, whatever their score: `(items,)`; None wants all.

        Raises:
            UsageError: The metadata have no such column.
        """
        masks = [metadata.equals(column, value) for column, value in self.columns.items()]
        if self.prefix:
            masks.append(metadata.starts_with(self.prefix))
        return np.logical_and.reduce(masks) if masks else None

    def clear(self, scores: Scores) -> NDArray[np.bool_]:
        """Which of `(queries, k)` falling scores pass the cut."""
        if not self.cut:
            return np.ones(scores.shape, bool)
        best = scores[:, :1]
        return scores >= np.minimum(best, self.cut * best)  # a share of a negative best lies above it


def parse_where(conditions: Sequence[str]) -> dict[str, str]:
    """Read conditions like `colour=red`.

    Raises:
        UsageError: One is something else, or two name one column.
    """
    columns: dict[str, str] = {}
    for condition in conditions:
        column, equals, value = condition.partition("=")
        if not column or not equals:
            raise UsageError(f"--where takes column=value, not {condition!r}.")
        if column in columns:
            raise UsageError(f"--where names {column} twice: one item has one value.")
        columns[column] = value
    return columns

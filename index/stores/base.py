"""What a gallery must offer to be searched: an index folder does, and so does a Milvus collection."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from index.stores.filters import Filter
from index.stores.records import Failure, Item, Manifest
from index.vectors import Scored, Vectors


class Searchable(Protocol):
    """One space of a gallery, to be searched."""

    def search(self, queries: Vectors, k: int, keep: Any = None) -> Scored:
        """Find the k nearest of each of `(n, dim)` queries; `keep` is what `Store.keep` made of a filter."""

    def order_again(self, queries: Vectors, ids: NDArray[np.int64], k: int) -> Scored:
        """Order `(n, candidates)` ids by their stored vectors and keep the best k."""


class Store(Protocol):
    """A gallery: its items, their vectors in one or more spaces, and what is known of them.

    Attributes:
        path: A folder of this machine for what is kept beside the gallery.
        data: The same, of this state of the gallery.
        manifest: What it is.
        remote: Whether others may have written it: then nothing that it names is opened.
        allowed: Addresses below which its images may be read; others at addresses are not.
    """

    path: Path
    data: Path
    manifest: Manifest
    remote: bool
    allowed: Sequence[str]

    def __len__(self) -> int: ...
    @property
    def label(self) -> str:
        """Its name on the page."""

    @property
    def engine(self) -> dict[str, str]:
        """What searches it, under `Searched by`, and what else is to be known of that."""

    @property
    def items(self) -> Sequence[Item]:
        """The gallery, by id."""

    @property
    def ids_by_digest(self) -> Mapping[str, list[int]]:
        """Ids of the items with a given content."""

    @property
    def failures(self) -> list[Failure]:
        """The images that were refused."""

    @property
    def columns(self) -> dict[str, list[str]]:
        """The columns of the metadata with their values, of each the 200 most frequent at most."""

    @property
    def model_file(self) -> Path:
        """The student that made it."""

    def companion(self, name: str) -> Path:
        """Where a file of `folder.COMPANIONS` is, if it was kept."""

    def metadata_of(self, item: int) -> dict[str, str]:
        """The metadata of one item."""

    def keep(self, narrow: Filter) -> Any:
        """What `Searchable.search` shall keep to; None keeps all.

        Raises:
            UsageError: The metadata have no such column.
        """

    def rows(self, space: str, ids: NDArray[np.int64] | None = None) -> Vectors:
        """The `(len(ids), dim)` vectors of some items; None takes all."""

    def open_space(self, space: str, device: str) -> Searchable:
        """Make a space ready to be searched."""

    def require_model(self, space: str, key: str, name: str) -> None:
        """Raise UsageError if a model is not the one that made a space."""

    def pin(self) -> None:
        """Make ready for many users: open now what can be."""

"""What a store is: a read side that is searched, and a write side that `index.build.pipeline.build` fills."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from index.errors import UsageError
from index.images.file import ImageFile
from index.stores.filters import Filter
from index.stores.metadata.columns import Metadata
from index.stores.models import Models
from index.stores.options import IndexOptions
from index.stores.records import CHUNK, RUN, UNFINISHED, Failure, Item, Manifest, Space
from index.stores.tables import as_batch
from index.vectors import Ids, Scored, Vectors

# Reads vectors of a space by ids, which are places in what `Store.iter_batches` yields.
RowReader = Callable[[str, Ids], Vectors]
MASKS = 16  # filters whose `(items,)` masks are kept


class Searchable(Protocol):
    """One space of a gallery, to be searched."""

    def search(self, queries: Vectors, k: int, keep: Any = None) -> Scored:
        """Find the k nearest of each of `(n, dim)` queries; `keep` is what `Store.keep` made of a filter."""

    def order_again(self, queries: Vectors, ids: Ids, k: int) -> Scored:
        """Order `(n, candidates)` ids by their stored vectors and keep the best k."""


class Store(ABC):
    """A gallery, opened to be searched: its items, their vectors in one space or more, their metadata."""

    path: Path  # a folder of this machine for what is kept beside the gallery
    data: Path  # the same, of this state of the gallery
    manifest: Manifest
    items: Sequence[Item]  # by id; a loop over all reads them in bounded memory
    ids_by_digest: Mapping[str, list[int]]  # of the items with a given content
    failures: list[Failure]  # the images that were refused
    model_file: Path  # the student that made it
    parts_known: Sequence[pa.RecordBatch] = ()  # what `columns.encode` made, if anything is known
    remote = False  # whether others may have written it: then nothing that it names is opened
    allowed: Sequence[str] = ()  # addresses below which its images may be read; others at addresses are not
    engine: Mapping[str, str]  # what searches it, under `Searched by`, and what else is to be known of that

    def __len__(self) -> int:
        return self.manifest.count

    def __str__(self) -> str:
        return str(self.path)

    @cached_property
    def label(self) -> str:
        """Its name on the page. Of a folder the last part: where it lies is nobody's business."""
        return self.path.absolute().name

    @cached_property
    def unfinished(self) -> Path:
        """Where a run of this machine that writes it lies until it is complete."""
        return self.path / UNFINISHED

    @abstractmethod
    def rows(self, space: str, ids: Ids | None = None) -> Vectors:
        """The `(len(ids), dim)` vectors of some items; None takes all."""

    @abstractmethod
    def open_space(self, space: str, device: str) -> Searchable:
        """Make a space ready to be searched."""

    def iter_batches(self) -> Iterator[pa.RecordBatch]:
        """Read the gallery in bounded memory, by rising id, as tables of items."""
        items = iter(self.items)
        while some := list(islice(items, CHUNK)):
            yield as_batch(some)

    def iter_rows(self, space: str) -> Iterator[Vectors]:
        """Read the `(n, dim)` vectors of all items, after these, in bounded memory and by rising id."""
        for start in range(0, len(self), CHUNK):
            yield self.rows(space, np.arange(start, min(start + CHUNK, len(self))))

    def sample_rows(self, space: str, most: int) -> Vectors:
        """The vectors of so many items at most: of all, or of some from all parts of the gallery."""
        return self.rows(space, np.arange(0, len(self), -(-len(self) // most)))

    def faults(self) -> Iterator[str]:
        """Find what is not as it was written, and say of each thing in a line what is wrong."""
        yield from ()

    def check_space(self, space: str) -> Iterator[str]:
        """Find what keeps a space from being read or searched at all, likewise."""
        yield from ()

    def companion(self, name: str) -> Path:
        """Where a file of `COMPANIONS` is, if it was kept."""
        return self.model_file.with_name(name)

    def read_run(self) -> dict[str, Any] | None:
        """Read what the student's `run.json` noted; None if there is none, or one of another student."""
        try:
            run = json.loads(self.companion(RUN).read_text(encoding="utf-8"))
            made = run["export"]["key"]
        except (UsageError, OSError, ValueError, KeyError, TypeError):
            return None
        space = self.manifest.spaces["student"]
        key = (space.queries or space.key).removesuffix(f":{space.bits}")  # that of the file, codes or not
        return run if made == key else None

    def pin(self) -> None:  # noqa: B027
        """Make ready for many users: open now what can be."""

    def is_replaced(self) -> bool:
        """Whether it was replaced since it was opened, as far as that can be told at once."""
        return False

    @cached_property
    def _known(self) -> Metadata:
        return Metadata(self.iter_batches, [len(self)], self.parts_known)

    @cached_property
    def _masks(self) -> Callable[[Filter], Any]:
        return lru_cache(MASKS)(lambda filter: filter.keep(self._known))

    @cached_property
    def columns(self) -> dict[str, list[str]]:
        """The columns of the metadata with their values, of each the 200 most frequent at most."""
        return self._known.columns

    def metadata_of(self, item: int) -> dict[str, str]:
        """The metadata of one item."""
        return self._known.of(item)

    def keep(self, filter: Filter) -> Any:
        """What `Searchable.search` shall keep to: booleans, one for each item, or `Places`; None keeps all.

        Raises:
            UsageError: There is no such column, or no such item.
        """
        return self._masks(replace(filter, cut=0.0)) if filter.selects else None

    def matches_nothing(self, filter: Filter) -> UsageError:
        """Say why a search with a filter found nothing, where that shows in the search alone."""
        return filter.matches_nothing(self.columns)

    def require_model(self, space: str, key: str, name: str) -> None:
        """Raise UsageError for a model that neither made the vectors of a space nor embeds its queries."""
        made_by = self.manifest.spaces[space]
        if key not in (made_by.key, made_by.queries):
            raise UsageError(
                f"{self} was made with another {space}: {made_by.name} ({made_by.key[-8:]}), "
                f"not {name} ({key[-8:]}). Index the images again, or give that model."
            )


@dataclass(frozen=True)
class Batch:
    """Some items in their order, and the vectors of those that this run embedded, by space and digest."""

    items: list[Item]
    vectors: Mapping[str, Mapping[str, Vectors]]


class Content(Protocol):
    """What a run found and embedded, in the order of the sources. Each method reads it from the start."""

    @property
    def spaces(self) -> Mapping[str, Space]:
        """The vectors that there are, by name."""

    @property
    def count(self) -> int:
        """How many items there are."""

    def items(self) -> Iterator[Item]:
        """Yield all items: no two have the same content."""

    def failures(self) -> Iterator[Failure]:
        """Yield the images that were refused."""

    def vectors(self, space: str, known: RowReader | None = None) -> Iterator[Vectors]:
        """Yield `(n, dim)` vectors of all items, after these were read, some at a time.

        `known` reads those that `StoreWriter.known` has; a store that knows none needs none.
        """

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield so many items at a time, for a store that keeps the vectors it has."""


@dataclass(frozen=True)
class BuildReport:
    """What a run wrote."""

    store: Store  # the gallery, opened
    summary: str  # a line for people
    failures: list[Failure]  # the images that were refused
    notes: tuple[str, ...] = ()  # what was not done, by kind and number, and what to do about it


class StoreWriter(ABC):
    """The write side: `build` calls `begin`, `known`, `is_current`, if not `wanted` and `put`, `commit`.

    A store that has no use for what it holds overrides `put` and `commit` alone.
    """

    work: Path  # a folder of this machine for the unfinished run: made if need be, removed when it is done
    index_folder: Path | None = None  # that is written, if it is one
    identity: Mapping[str, str] = {}  # what an unfinished run is to remember, beside models and sources
    models: Models
    options: IndexOptions
    sources: list[str]

    def begin(self, models: Models, options: IndexOptions, sources: list[str]) -> None:
        """Take what is wanted; UsageError, before any work, if it or what is there does not fit."""
        self.models, self.options, self.sources = models, options, sources

    def known(self, left: bool, adopted: bool) -> Store | None:
        """Find what has vectors already, and is not to be embedded again.

        `left` says whether an unfinished run goes on, `adopted` whether it had taken up what is known.

        Raises:
            UsageError: Others made it.
        """
        return None

    def is_current(self, files: Sequence[ImageFile]) -> bool:
        """Whether nothing is left to be embedded; if something is, UsageError if what is known is damaged."""
        return False

    def wanted(self, files: Sequence[ImageFile]) -> Sequence[ImageFile]:
        """Choose which files are to be looked into, if something is left: `put` gets what became of these."""
        return files

    @abstractmethod
    def put(self, content: Content) -> None:
        """Write what a run brought. What was there is searched as before until `commit`."""

    @abstractmethod
    def commit(self) -> BuildReport:
        """Make what was written the gallery."""

"""What a run brought, as a store reads it: `index.stores.base.Content` of a journal."""

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice

from index.build.journal import Journal
from index.stores.base import Batch, RowReader, Store
from index.stores.models import PROJECTED, Models
from index.stores.records import Failure, Item, Space
from index.vectors import Vectors


@dataclass
class JournalContent:
    """All that a journal holds, once everything is embedded, and what it has adopted as known."""

    journal: Journal
    models: Models
    known: Store | None
    _rows: "array[int]" = field(default_factory=lambda: array("q"), repr=False)

    @cached_property
    def spaces(self) -> Mapping[str, Space]:
        """The vectors that there are. A teacher of which nothing was asked this time may not say how long."""
        there = self.known.manifest.spaces if self.known else {}
        return {
            name: space if space.dim else replace(space, dim=there[name].dim)
            for name, space in self.models.spaces.items()
        }

    @cached_property
    def count(self) -> int:
        """How many items there are."""
        return self.journal.count_items()

    def items(self) -> Iterator[Item]:
        """Yield all items."""
        del self._rows[:]
        for item, row in self.journal.items():
            self._rows.append(row)
            yield item

    def failures(self) -> Iterator[Failure]:
        """Yield the images that were refused."""
        return self.journal.failures()

    def vectors(self, space: str, known: RowReader | None = None) -> Iterator[Vectors]:
        """As `Content.vectors`."""
        return self._project_if_asked(space, self._rows, known)

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield so many items at a time, with the vectors that this run embedded."""
        found = self.journal.items()
        while part := list(islice(found, size)):
            own = [(item.digest, row) for item, row in part if row >= 0]
            digests, rows = [digest for digest, _ in own], [row for _, row in own]
            vectors = {}
            for space in self.spaces if own else ():
                made = (row for some in self._project_if_asked(space, rows) for row in some)
                vectors[space] = dict(zip(digests, made, strict=True))
            yield Batch([item for item, _ in part], vectors)

    def _project_if_asked(
        self, name: str, rows: "array[int] | list[int]", known: RowReader | None = None
    ) -> Iterator[Vectors]:
        source = "teacher" if name == PROJECTED else name
        gathered = self.journal.vectors(source, self.spaces[source], rows, known)
        if name != PROJECTED:
            return gathered
        projection = self.models.projection
        assert projection is not None
        # By parts of the final order: a sum may depend on what is multiplied together.
        return map(projection.project, gathered)

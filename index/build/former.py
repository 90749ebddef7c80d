"""Index folders of the format before, with tables in Parquet: read once more, to be converted."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from index.stores.folder import FORMER, MANIFEST, Index, read_manifest
from index.stores.records import Failure, Item
from index.stores.tables import as_item


def is_former(path: Path) -> bool:
    """Whether a folder is an index of the format before; UsageError if it is a damaged one."""
    return (path / MANIFEST).is_file() and read_manifest(path).format == FORMER


class FormerIndex(Index):
    """An index folder of the format before."""

    formats = (FORMER,)

    def iter_items(self) -> Iterator[Item]:
        """Read the gallery in bounded memory, by rising id."""
        with pq.ParquetFile(self._file("items.parquet")) as table:
            for batch in table.iter_batches():
                yield from map(as_item, batch.to_pylist())

    @cached_property
    def failures(self) -> list[Failure]:  # type: ignore[override]
        """The images that were refused."""
        return [Failure(**row) for row in pq.read_table(self._file("errors.parquet")).to_pylist()]

    @property
    def tables(self) -> list[pa.Table]:
        """What was known of the files, as `index.stores.metadata.join.Joined.table`."""
        name = "metadata.parquet"
        return [pq.read_table(self._file(name))] if name in self.manifest.files else []

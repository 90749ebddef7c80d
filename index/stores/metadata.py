"""What is known of the items beyond their pixels: the columns of a CSV file, joined by path."""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from index.errors import ImageError, UsageError
from index.images.file import ImageFile

PATH = "path"
MOST_VALUES = 200  # of a column that are listed: more can be searched for, but not chosen from


@dataclass(frozen=True)
class Joined:
    """Rows of a CSV file that belong to items.

    Attributes:
        table: One row for each item that has one: its absolute `path`, and the other columns as text.
        rows_left: Rows without an item.
        items_left: Items without a row.
    """

    table: pa.Table
    rows_left: int
    items_left: int

    @property
    def counts(self) -> str:
        """What found no partner, for people."""
        return f"{self.rows_left} rows without an image, {self.items_left} images without a row"


def join_metadata(file: Path, items: Sequence[Sequence[tuple[str, str]]]) -> Joined:
    """Read a CSV file and find the item of each row.

    Args:
        file: A CSV file with a header. Its column `path` is relative to the file's folder or to the folder
            that was indexed, or absolute.
        items: Of each item its files, the first one first: absolute path, and path below the indexed folder.

    Raises:
        UsageError: It cannot be read, has no column `path`, names a file twice, or several by one name, or no
            item at all.
    """
    header, rows = read_rows(file)
    folder = file.absolute().parent
    known = {path: files[0][0] for files in items for path, _ in files}
    by_name, twins = _find_names(items)
    found: dict[str, list[str]] = {}
    seen: set[str] = set()
    for row in rows:
        name = row[header.index(PATH)]
        if name in seen:
            raise UsageError(f"{file} has two rows for {name}. Leave one.")
        seen.add(name)
        path = known.get(str(folder / name))
        if path is None and name in twins:
            raise UsageError(
                f"{name} in {file} may be {by_name[name]} or {twins[name]}. Give absolute paths."
            )
        path = path or by_name.get(name)
        if path is not None:
            found.setdefault(path, row)  # of copies the first row counts
    left = len(rows) - len(found)
    if not found:
        raise UsageError(
            f"None of the {left} rows of {file} is an indexed image. Its paths must be relative to "
            f"{folder} or to the folder of images."
        )
    columns = {PATH: pa.array(found, pa.string())}
    for place, name in enumerate(header):
        if name != PATH:
            columns[name] = pa.array([row[place] for row in found.values()], pa.string())
    return Joined(pa.table(columns), left, len(items) - len(found))


def _find_names(items: Sequence[Sequence[tuple[str, str]]]) -> tuple[dict[str, str], dict[str, str]]:
    """The path of the item that has each name, and of another where two folders share it."""
    by_name: dict[str, str] = {}
    twins: dict[str, str] = {}
    for files in items:
        path, _ = files[0]
        for _, name in files:
            if by_name.setdefault(name, path) != path:
                twins[name] = path
    return by_name, twins


def carry_over(table: pa.Table, before: pa.Table, after: pa.Table) -> pa.Table:
    """Bring the metadata of an index over to a later one, in which files have moved.

    Args:
        table: `Joined.table`.
        before: `path` and `digest` of the items that it was joined with.
        after: Those of the items now.

    Returns:
        The table; a row with a path that no item has now gets that of the item of its content.
    """
    paths = table[PATH].combine_chunks()
    stays = pc.is_in(paths, after[PATH].combine_chunks())
    digests = before["digest"].combine_chunks().take(pc.index_in(paths, before[PATH].combine_chunks()))
    found = after[PATH].combine_chunks().take(pc.index_in(digests, after["digest"].combine_chunks()))
    free = pc.and_(pc.is_valid(found), pc.invert(pc.is_in(found, paths.filter(stays))))
    moves = pc.and_(pc.invert(stays), free)
    return table.set_column(table.column_names.index(PATH), PATH, pc.if_else(moves, found, paths))


def read_rows(file: Path) -> tuple[list[str], list[list[str]]]:
    """Read the header and the rows of a CSV file.

    Raises:
        UsageError: It cannot be read, or has no column `path`.
    """
    try:
        ImageFile(file, str(file)).status()  # a pipe might never be written to
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.reader(lines)
            header = next(reader, [])
            rows = [row for row in reader if row]
    except (ImageError, OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{file} cannot be read as a CSV file: {error}.") from error
    if PATH not in header or not all(header) or len(set(header)) < len(header):
        raise UsageError(f"{file} needs a header with a column `path` and other names, each once.")
    for line, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise UsageError(f"{file}, row {line}, has {len(row)} fields, not {len(header)}.")
    return header, rows


class Metadata:
    """The columns of an index, by item."""

    def __init__(
        self, paths: Sequence[str], names: Sequence[Sequence[str]], table: pa.Table | None = None
    ) -> None:
        """Bring a table into the order of the items.

        Args:
            paths: Absolute path of the first file of each item.
            names: Names of all its files, which are their paths below the indexed folder.
            table: `Joined.table`; None knows nothing but the names.
        """
        self._count = len(paths)
        self._names = pa.array([name for some in names for name in some], pa.string())
        self._owners = np.repeat(np.arange(len(names)), [len(some) for some in names])
        self._columns: dict[str, pa.Array] = {}
        if table is not None:
            places = pc.index_in(pa.array(paths, pa.string()), value_set=table[PATH].combine_chunks())
            for name in table.column_names:
                if name != PATH:
                    self._columns[name] = table[name].combine_chunks().take(places)

    @property
    def columns(self) -> dict[str, list[str]]:
        """The columns with their values, sorted: of a column with many the most frequent 200."""
        return {
            name: sorted(dict(Counter(values.drop_null().to_pylist()).most_common(MOST_VALUES)))
            for name, values in self._columns.items()
        }

    def starts_with(self, prefix: str) -> NDArray[np.bool_]:
        """Which items have a file with a name that starts so: `(items,)`."""
        mask = np.zeros(self._count, bool)
        mask[self._owners[pc.starts_with(self._names, prefix).to_numpy(zero_copy_only=False)]] = True
        return mask

    def equals(self, column: str, value: str) -> NDArray[np.bool_]:
        """Which items have that value in a column: `(items,)`.

        Raises:
            UsageError: There is no such column.
        """
        if column not in self._columns:
            known = f"only {', '.join(self._columns)}" if self._columns else "none: see index --metadata"
            raise UsageError(f"This index has no column {column!r}, {known}.")
        return pc.fill_null(pc.equal(self._columns[column], value), False).to_numpy(zero_copy_only=False)

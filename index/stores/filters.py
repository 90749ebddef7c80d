"""Narrow a search: by name, by what a CSV file says of the items, and by a share of the best score."""

import codecs
import csv
import io
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from index.errors import ImageError, UsageError
from index.images.file import ImageFile, plain_path
from index.progress import count
from index.vectors import Scores

PATH = "path"
SEPARATOR = "; "  # of the values of files that are copies of one image
SEPARATORS = ",;\t|"  # of the fields of a row: the one by which the header has a column `path`
MOST_VALUES = 200  # of a column that are listed: more can be searched for, but not chosen from


@dataclass(frozen=True)
class Joined:
    """Rows of a CSV file that belong to items."""

    table: pa.Table  # a row for each file that has one: absolute `path`, others as text
    rows_left: int  # without a file
    items_left: int  # without a row

    @property
    def counts(self) -> str:
        """What found no partner, for people."""
        rows, images = count(self.rows_left, "row"), count(self.items_left, "image")
        return f"{rows} without an image, {images} without a row"


def join_metadata(file: Path, items: Sequence[Sequence[tuple[str, str]]]) -> Joined:
    """Read a CSV file with a header, and find the file of each row.

    Its column `path` is relative to the file's folder or to the folder that was indexed, or absolute; however
    it is written, as in `plain_path`. An item is a list of its files, the first one first: absolute path, and
    path below the indexed folder.

    Raises:
        UsageError: It cannot be read, has no column `path`, names a file twice, or several by one name, or no
            file at all.
    """
    header, rows = read_rows(file)
    files = _Files(items)
    found: dict[str, list[str]] = {}
    for row in rows:
        name = row[header.index(PATH)]
        path = files.find(file.absolute().parent, name, file)
        if path in found or (path is None and name in found):
            raise UsageError(f"{file} has two rows for {name}. Leave one.")
        found[name if path is None else path] = row
    found = {path: row for path, row in found.items() if path in files.items}
    left = len(rows) - len(found)
    if not found:
        raise UsageError(
            f"None of {count(left, 'row')} of {file} is an indexed image. Its paths must be relative to "
            f"{file.absolute().parent} or to the folder of images."
        )
    columns = {PATH: pa.array(found, pa.string())}
    for place, name in enumerate(header):
        if name != PATH:
            columns[name] = pa.array([row[place] for row in found.values()], pa.string())
    return Joined(pa.table(columns), left, len(items) - len({files.items[path] for path in found}))


def merge_rows(rows: Sequence[Mapping[str, str]]) -> dict[str, str | list[str]]:
    """One row of those of an item's files: each column with its value, or its values where they differ."""
    found = {name: list(dict.fromkeys(row[name] for row in rows)) for name in rows[0]}
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


class _Files:
    """The files of items, to be found by what a table calls them."""

    def __init__(self, items: Sequence[Sequence[tuple[str, str]]]) -> None:
        self._listed = items
        self.items = {path: i for i, files in enumerate(items) for path, _ in files}

    def find(self, folder: Path, name: str, table: Path) -> str | None:
        """The absolute path of the file that a table in a folder names; the first of copies of one image."""
        path = str(folder / name)
        if path in self.items:
            return path
        for plain, text in ((False, name), (True, plain_path(path)), (True, plain_path(name))):
            known, twins = self._plainly if plain else self._by_name
            if text in twins:
                raise UsageError(
                    f"{name} in {table} may be {known[text]} or {twins[text]}. Give absolute paths."
                )
            if text in known:
                return known[text]
        return None

    @cached_property
    def _by_name(self) -> tuple[dict[str, str], dict[str, str]]:
        return self._find_twins((name, path) for files in self._listed for path, name in files)

    @cached_property
    def _plainly(self) -> tuple[dict[str, str], dict[str, str]]:
        """By absolute paths and by names, both as `plain_path` writes them."""
        files = [file for files in self._listed for file in files]
        return self._find_twins((plain_path(text), file[0]) for file in files for text in file)

    def _find_twins(self, named: Iterable[tuple[str, str]]) -> tuple[dict[str, str], dict[str, str]]:
        """The file that has each name, and that of another image where two folders share it."""
        known: dict[str, str] = {}
        twins: dict[str, str] = {}
        for name, path in named:
            if self.items[known.setdefault(name, path)] != self.items[path]:
                twins[name] = path
        return known, twins


def list_files(items: pa.Table) -> pa.Table:
    """The `path` and `digest` of all files of items, copies included, from these columns and `copies`."""
    copies = items["copies"].combine_chunks()
    paths, digests = items[PATH].combine_chunks(), items["digest"].combine_chunks()
    return pa.table(
        {
            PATH: pa.concat_arrays([paths, pc.struct_field(pc.list_flatten(copies), PATH)]),
            "digest": pa.concat_arrays([digests, digests.take(pc.list_parent_indices(copies))]),
        }
    )


def carry_over(table: pa.Table, before: pa.Table, after: pa.Table) -> pa.Table:
    """Bring `Joined.table` of an index over to a later one, in which files have moved.

    `before` is `list_files` of the items that it was joined with, `after` that of the items now. A row with a
    path that no file has now gets that of a file with its content, if there is one without a row.
    """
    paths = table[PATH].combine_chunks()
    moved = pc.invert(pc.is_in(paths, after[PATH].combine_chunks()))
    places = pc.index_in(paths, before[PATH].combine_chunks())
    digests = pc.if_else(moved, before["digest"].combine_chunks().take(places), None)
    wanted = pc.is_in(after["digest"], digests.drop_null())
    free = after.filter(pc.and_(wanted, pc.invert(pc.is_in(after[PATH], paths))))
    left: dict[str, list[str]] = {}
    for path, digest in zip(*(free[name].to_pylist() for name in (PATH, "digest")), strict=True):
        left.setdefault(digest, []).append(path)
    found = [
        left[digest].pop(0) if left.get(digest) else path
        for path, digest in zip(paths.to_pylist(), digests.to_pylist(), strict=True)
    ]
    return table.set_column(table.column_names.index(PATH), PATH, pa.array(found, pa.string()))


def read_rows(file: Path) -> tuple[list[str], list[list[str]]]:
    """Read the header and the rows of a CSV file.

    Raises:
        UsageError: It cannot be read, or has no column `path`.
    """
    try:
        data, _ = ImageFile(file, str(file)).read()  # a pipe might never be written to
        marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = io.StringIO(data.decode("utf-16" if marked else "utf-8-sig"), newline="")
        first = text.readline()
        text.seek(0)
        separator = next((mark for mark in SEPARATORS if PATH in _split(first, mark)), ",")
        reader = csv.reader(text, delimiter=separator, skipinitialspace=True)
        header = next(reader, [])
        rows = [row for row in reader if row]
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{file} cannot be read as a CSV file: it is no text in UTF-8. Save it so."
        ) from error
    except (ImageError, OSError, csv.Error) as error:
        raise UsageError(f"{file} cannot be read as a CSV file: {error}.") from error
    if header[:1] == [""] and len(header) > 1:  # of row numbers, as data frames write them
        header, rows = header[1:], [row[1:] for row in rows]
    if PATH not in header or not all(header) or len(set(header)) < len(header):
        found = ", ".join(header)[:200] or "none"
        raise UsageError(
            f"{file} needs a header with a column `path` and other names, each once. Its header: {found}."
        )
    for line, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise UsageError(f"{file}, row {line}, has {len(row)} fields, not {len(header)}.")
    paths = Counter(row[header.index(PATH)] for row in rows)
    if twice := next((path for path, times in paths.items() if times > 1), None):
        raise UsageError(f"{file} has two rows for {twice}. Leave one.")
    return header, rows


def _split(line: str, separator: str) -> list[str]:
    return next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])


class Metadata:
    """The columns of an index, by item: a file's row is its item's, and an item may have several."""

    def __init__(self, files: Sequence[Sequence[tuple[str, str]]], table: pa.Table | None = None) -> None:
        """Bring `Joined.table` into the order of the items, each a list of its files; None has no columns."""
        self._count = len(files)
        self._names = pa.array([name for some in files for _, name in some], pa.string())
        self._owners = np.repeat(np.arange(len(files)), [len(some) for some in files])
        self._columns: dict[str, pa.Array] = {}
        if table is not None:
            paths = pa.array([path for some in files for path, _ in some], pa.string())
            places = pc.index_in(paths, value_set=table[PATH].combine_chunks())
            for name in table.column_names:
                if name != PATH:
                    self._columns[name] = table[name].combine_chunks().take(places)

    @property
    def names(self) -> list[str]:
        """The columns."""
        return list(self._columns)

    @property
    def top_names(self) -> list[str]:
        """What is at the top of the indexed folder: folders, which end with `/`, and then files."""
        firsts = {name[: name.find("/") + 1] or name for name in self._names.to_pylist()}
        return sorted(firsts, key=lambda name: (not name.endswith("/"), name))

    @cached_property
    def columns(self) -> dict[str, list[str]]:
        """The columns with their values, sorted: of a column with many the most frequent 200."""
        return {
            name: sorted(dict(Counter(values.drop_null().to_pylist()).most_common(MOST_VALUES)))
            for name, values in self._columns.items()
        }

    def of(self, item: int) -> dict[str, str]:
        """What is known of an item; where rows of its files differ, each value once, in their order."""
        first, end = np.searchsorted(self._owners, (item, item + 1))
        known = {name: values[first:end].drop_null() for name, values in self._columns.items()}
        return {
            name: SEPARATOR.join(values.unique().to_pylist()) for name, values in known.items() if len(values)
        }

    def starts_with(self, prefix: str) -> NDArray[np.bool_]:
        """Which items have a file with a name that starts so: `(items,)`."""
        return self._any_file(pc.starts_with(self._names, prefix))

    def equals(self, column: str, value: str) -> NDArray[np.bool_]:
        """Which items have a file with that value in a column: `(items,)`."""
        return self._any_file(pc.fill_null(pc.equal(self._columns[column], value), False))

    def _any_file(self, wanted: pa.BooleanArray) -> NDArray[np.bool_]:
        mask = np.zeros(self._count, bool)
        mask[self._owners[wanted.to_numpy(zero_copy_only=False)]] = True
        return mask


NAMED = 10  # values that a message names


@dataclass(frozen=True)
class Filter:
    """Which results are wanted; the default wants all."""

    prefix: str = ""  # of an item's name, the path below the indexed folder
    columns: Mapping[str, str] = field(default_factory=dict)  # values in an item's metadata
    cut: float = 0.0  # least share of the best score; 0 cuts nothing

    def __post_init__(self) -> None:
        if not 0 <= self.cut <= 1:
            raise UsageError(f"--cut must lie between 0 and 1, not {self.cut}.")
        object.__setattr__(self, "columns", MappingProxyType(dict(self.columns)))

    @property
    def selects(self) -> bool:
        """Whether it wants some of the items only, whatever their score."""
        return bool(self.prefix or self.columns)

    def keep(self, metadata: Metadata) -> NDArray[np.bool_] | None:
        """Which items are wanted, whatever their score: `(items,)`, None is all; UsageError if none is."""
        self.require_columns(metadata.names)
        masks = [metadata.equals(column, value) for column, value in self.columns.items()]
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
    ) -> UsageError:
        """Say that no item is wanted, and what values and names at the top there are, as far as is known."""
        wanted = [f"{column}={value}" for column, value in self.columns.items()]
        there = [_list(f"{column} is", columns[column]) for column in self.columns if columns[column]]
        if self.prefix:
            wanted.append(f"a path that starts with {self.prefix!r}")
            folders = [name for name in top_names if name.endswith("/")]
            example = f"paths have no folder, as {top_names[0]}" if top_names else "paths start with a folder"
            there.append(_list("paths start with", folders) if folders else example)
        return UsageError(f"No image has {' and '.join(wanted)}: {'; '.join(there) or 'leave it out'}.")

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

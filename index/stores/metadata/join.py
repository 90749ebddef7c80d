"""Metadata as they come: rows of a CSV file, which are joined to files by path, and go where these go."""

import codecs
import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from index.errors import ImageError, UsageError
from index.images.file import ImageFile, plain_path
from index.progress import count, say
from index.stores.records import Item
from index.stores.tables import ITEM_SCHEMA, LONG, Items, iter_files

PATH = "path"
SEPARATORS = ",;\t|"  # of the fields of a row: the one by which the header has a column `path`


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
        if path in found:
            raise UsageError(f"{file} has two rows for {name}. Leave one.")
        if path is not None:
            found[path] = row
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


def join_items(file: Path, items: Iterable[Item]) -> Joined:
    """`join_metadata` with items, and say what found no partner."""
    joined = join_metadata(file, [[(one.path, one.name) for one in item.files] for item in items])
    say(f"{file}: {joined.counts}.")
    return joined


def join_rows(file: Path, items: Sequence[Item]) -> dict[str, dict[str, str | list[str]]]:
    """As `join_items`, one row for each item that has some, by its digest.

    It has the value of each column, or its values where those of the item's files differ.
    """
    by_path = {row.pop(PATH): row for row in join_items(file, items).table.to_pylist()}
    known = {}
    for item in items:
        if rows := [by_path[one.path] for one in item.files if one.path in by_path]:
            found = {name: list(dict.fromkeys(row[name] for row in rows)) for name in rows[0]}
            known[item.digest] = {n: values[0] if len(values) == 1 else values for n, values in found.items()}
    return known


class _Files:
    """The files of items, to be found by what a table calls them."""

    def __init__(self, items: Sequence[Sequence[tuple[str, str]]]) -> None:
        self._files = [file for files in items for file in files]
        self.items = {path: i for i, files in enumerate(items) for path, _ in files}
        self._named: dict[bool, tuple[dict[str, str], dict[str, str]]] = {}

    def find(self, folder: Path, name: str, table: Path) -> str | None:
        """The absolute path of the file that a table in a folder names; the first of copies of one image."""
        path = str(folder / name)
        if path in self.items:
            return path
        for plain, text in ((False, name), (True, plain_path(path)), (True, plain_path(name))):
            if plain not in self._named:
                self._named[plain] = self._name_files(plain)
            known, twins = self._named[plain]
            if text in twins:
                raise UsageError(
                    f"{name} in {table} may be {known[text]} or {twins[text]}. Give absolute paths."
                )
            if text in known:
                return known[text]
        return None

    def _name_files(self, plain: bool) -> tuple[dict[str, str], dict[str, str]]:
        """The file of each name, and that of another image where two folders share it.

        Files bear their names or, `plain`, absolute paths too, both as `plain_path` writes them.
        """
        known: dict[str, str] = {}
        twins: dict[str, str] = {}
        for path, name in self._files:
            for text in (plain_path(path), plain_path(name)) if plain else (name,):
                if self.items[known.setdefault(text, path)] != self.items[path]:
                    twins[text] = path
        return known, twins


def list_files(items: Items, names: Sequence[str] = (PATH, "digest")) -> pa.Table:
    """Attributes of all files of items, and their `item`, an id; of each item the first file comes first."""
    fields = [*map(ITEM_SCHEMA.field, names), pa.field("item", pa.int64())]
    files = pa.Table.from_batches(iter_files(items.batches(), names), pa.schema(fields))
    return files.cast(pa.schema([(f.name, LONG if f.type == pa.string() else f.type) for f in fields]))


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
    """Read header and rows of a CSV file; UsageError if that cannot be, or it has no column `path`."""
    try:
        data, _ = ImageFile(file, str(file)).read()  # a pipe might never be written to
        marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        whole = data.decode("utf-16" if marked else "utf-8-sig")
        if "\0" in whole:
            raise UnicodeError
        text = io.StringIO(whole, newline="")
        first = text.readline()
        text.seek(0)
        heads = {mark: csv.reader([first], delimiter=mark, skipinitialspace=True) for mark in SEPARATORS}
        separator = next((mark for mark, head in heads.items() if PATH in next(head, [])), ",")
        reader = csv.reader(text, delimiter=separator, skipinitialspace=True)
        header = next(reader, [])
        rows = [row for row in reader if row]
    except UnicodeError as error:
        raise UsageError(
            f"{file} cannot be read as a CSV file: it is no text in UTF-8. Save it so."
        ) from error
    except (ImageError, OSError, csv.Error) as error:
        raise UsageError(f"{file} cannot be read as a CSV file: {error}.") from error
    for line, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise UsageError(
                f"{file}, row {line}, has {len(row)} fields, not {len(header)}. "
                "Quote values that hold a comma."
            )
    # Data frames write row numbers first, without a name, and spreadsheets empty columns.
    named = [i for i, name in enumerate(header) if name or (i and any(row[i] for row in rows))]
    if len(named) < len(header):
        header, rows = [header[i] for i in named], [[row[i] for i in named] for row in rows]
    if PATH not in header or not all(header) or len(set(header)) < len(header):
        found = ", ".join(header)[:200] or "none"
        raise UsageError(
            f"{file} needs a header with a column `path` and other names, each once. Its header: {found}."
        )
    paths = Counter(row[header.index(PATH)] for row in rows)
    if twice := next((path for path, times in paths.items() if times > 1), None):
        raise UsageError(f"{file} has two rows for {twice}. Leave one.")
    return header, rows

"""A gallery in a server, whichever it is: the ids that items have here, their rows, the student kept here.

A row is what a server has of an item: its attributes as fields, and `more` with its `copies` and `metadata`.
"""

import re
from abc import abstractmethod
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

from platformdirs import user_cache_path, user_data_path

from index.embedders.onnx import OnnxEmbedder
from index.errors import RetrievalError, UsageError
from index.io import atomic_write, content_digest
from index.stores import tables
from index.stores.base import Store
from index.stores.filters import Filter
from index.stores.folder import COMPANIONS, ERRORS, STUDENT
from index.stores.metadata.columns import BOUND, MOST_VALUES, SEPARATOR, read_bound, require_kind, sort_values
from index.stores.records import Failure, Item, Manifest, columns_of

NAMES = [name for name, _ in columns_of(Item)]
FIELDS = [*(name for name in NAMES if name != "digest"), "more"]  # of a row, beside its digest
PAGE = 4096  # rows that are read at a time
SAMPLE = 1000  # rows that tell the values of a column, for a message
REMEMBERED = 100_000  # items that keep their fields after they were found

Row = dict[str, Any]


class ServerStore(Store):
    """A gallery in a server. Ids are given to items as they are first seen; `pin` gives them to all."""

    remote = True
    ids_by_digest: "_Ids"

    def __init__(self, written: Manifest, columns: Sequence[str], folder: Path, model: Path | None) -> None:
        """Take what was written beside the vectors, the columns of the metadata and a folder in the cache.

        `model` is the student's file, None what an index run on this machine kept of it.
        """
        self.written, self._model = written, model
        self.path = self.data = folder
        refused = folder / ERRORS  # of the last run, if it was here
        self.failures = tables.read_failures(refused) if refused.is_file() else []
        self.columns = {name: [] for name in columns}
        self.items, self.ids_by_digest = _Items(self), _Ids(self)
        self._rows: dict[str, Row] = {}

    @abstractmethod
    def count(self, space: str = "student") -> int:
        """How many items there are now."""

    @abstractmethod
    def fetch(self, space: str, digests: Sequence[str], fields: Sequence[str]) -> dict[str, Row]:
        """Read fields of the rows that there are, by digest."""

    @abstractmethod
    def scan(self, fields: Sequence[str], space: str = "student") -> Iterator[Row]:
        """Read all rows of a space in bounded memory."""

    @abstractmethod
    def sample(self, most: int, field: str, space: str = "student") -> list[Row]:
        """Read a field of some rows, whichever the server takes."""

    def __len__(self) -> int:
        return max(self.manifest.count, len(self.ids_by_digest))

    @cached_property
    def manifest(self) -> Manifest:  # type: ignore[override]
        """What it is, with the items that there were when that was first asked for."""
        return replace(self.written, count=self.count())

    @property
    def model_file(self) -> Path:  # type: ignore[override]
        """The student that made it; UsageError if it is not on this machine."""
        return self._model or find_student(self.written.spaces["student"].key, self)

    def pin(self) -> None:
        """Give every item an id, and count the values of the metadata."""
        self.columns = self._list_values(self.see(["more"] if self.columns else []))
        self.manifest = replace(self.manifest, count=len(self.ids_by_digest))  # ids are of what is there
        self.data.mkdir(parents=True, exist_ok=True)

    def see(self, fields: Sequence[str]) -> Iterator[Row]:
        """Read fields of all rows, and give every item an id."""
        for row in self.scan(fields):
            self.ids_by_digest.of(row["digest"])
            yield row

    def _list_values(self, rows: Iterable[Row]) -> dict[str, list[str]]:
        """The columns of the metadata with their values in some rows, in order, the most frequent 200."""
        columns: dict[str, Counter[str]] = {name: Counter() for name in self.columns}
        for row in rows:
            known = row["more"]["metadata"] if columns else {}  # a run that is not complete may add others
            for name in columns.keys() & known.keys():
                columns[name].update(several(known[name]))
        most = {name: dict(counts.most_common(MOST_VALUES)) for name, counts in columns.items()}
        return {name: sort_values(some)[1] for name, some in most.items()}

    def read(self, space: str, ids: Sequence[int], fields: Sequence[str]) -> list[Row]:
        """Read fields of items, in the order of ids; RetrievalError if some are gone."""
        digests = self._digests_of(ids)
        found = self.fetch(space, digests, fields)
        if missing := [digest for digest in digests if digest not in found]:
            raise RetrievalError(f"{len(missing)} images have been removed from {self}. Open the page again.")
        return [found[digest] for digest in digests]

    def _digests_of(self, ids: Sequence[int]) -> list[str]:
        digests, last = self.ids_by_digest.digests, max(ids, default=-1)
        if last >= len(digests):  # not all items were seen yet
            deque(self.see([]), maxlen=0)
        if last >= len(digests):
            raise RetrievalError(f"Of {last + 1} images {self} has {len(digests)} left. Open it again.")
        return [digests[i] for i in ids]

    def row(self, item: int) -> Row:
        """The fields of an item; RetrievalError if it is gone, or the server is."""
        (digest,) = self._digests_of([item])
        # Another thread may forget it at any moment.
        if found := self._rows.get(digest) or self.look_up(digest):
            return found
        raise RetrievalError("This image has been removed from the collection. Open the page again.")

    def look_up(self, digest: str) -> Row | None:
        """The fields of a content, read from the server; None if it is not there."""
        rows = self.fetch("student", [digest], FIELDS)
        self.remember(rows)
        return rows.get(digest)

    def remember(self, rows: Mapping[str, Row]) -> None:
        """Keep fields that came with results, as long as they are few."""
        if len(self._rows) > REMEMBERED:
            self._rows = {}
        self._rows.update(rows)

    def metadata_of(self, item: int) -> dict[str, str]:
        """The metadata of one item."""
        known = self.row(item)["more"]["metadata"]
        return {name: SEPARATOR.join(several(value)) for name, value in known.items()}

    def matches_nothing(self, filter: Filter) -> UsageError:
        """As of `Store`; it goes by the values of some items, unless the values of all were counted."""
        known = self.columns
        if filter.columns and not any(known.values()):
            known = self._list_values(self.sample(SAMPLE, "more"))
        for column, wanted in filter.columns.items():
            if BOUND.match(wanted) and wanted not in known[column]:
                for bound in wanted.split("&"):
                    require_kind(column, bound, read_bound(column, bound)[1], known[column])
        return filter.matches_nothing(known)

    def keep_failures(self, failures: list[Failure]) -> Path:
        """Keep the images that a run of this machine refused, and return their file."""
        self.data.mkdir(parents=True, exist_ok=True)
        with atomic_write(file := self.data / ERRORS) as beside:
            tables.write_failures(beside, failures)
        self.failures = failures
        return file


class _Ids(Mapping[str, list[int]]):
    """Ids by digest. One that was not seen yet is looked for on the server."""

    def __init__(self, index: ServerStore) -> None:
        self.digests: list[str] = []
        self._index, self._ids, self._lock = index, dict[str, int](), Lock()

    def of(self, digest: str) -> int:
        with self._lock:
            if digest not in self._ids:
                self._ids[digest] = len(self.digests)
                self.digests.append(digest)
            return self._ids[digest]

    def __getitem__(self, digest: str) -> list[int]:
        # Of what is shown all have ids; another photo is looked for once, by a gallery that is not pinned.
        seen_all = len(self._ids) >= self._index.manifest.count
        if digest not in self._ids and (seen_all or self._index.look_up(digest) is None):
            raise KeyError(digest)
        return [self.of(digest)]

    def __iter__(self) -> Iterator[str]:
        return iter(self.digests)

    def __len__(self) -> int:
        return len(self.digests)


class _Items(Sequence[Item]):
    """Items by id. To read all gives each an id."""

    def __init__(self, index: ServerStore) -> None:
        self._index = index

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, item: Any) -> Any:
        return as_item(self._index.row(item))

    def __iter__(self) -> Iterator[Item]:
        index, known = self._index, self._index.ids_by_digest.digests
        if not known:
            yield from map(as_item, index.see(FIELDS))
            return
        if len(known) < len(index):
            deque(index.see([]), maxlen=0)
        every = range(len(known))
        for start in range(0, len(every), PAGE):
            yield from map(as_item, index.read("student", every[start : start + PAGE], FIELDS))


def as_item(row: Row) -> Item:
    """An item from its row."""
    return tables.as_item({name: row[name] for name in NAMES} | {"copies": row["more"]["copies"]})


def several(value: str | list[str]) -> list[str]:
    """What a column says of an item: one value, or those of its files."""
    return [value] if isinstance(value, str) else value


def cache_folder(server: str, what: str) -> Path:
    """Where this machine keeps what comes of a gallery, or of a run, in a kind of server."""
    return user_cache_path("retrieval") / server / content_digest(what.encode())


def keep_student(student: OnnxEmbedder) -> Path:
    """Keep a student's file, and what lies beside it, in the user's data folder."""
    folder = _folder(student.key)
    assert folder is not None
    folder.mkdir(parents=True, exist_ok=True)
    beside = {name: Path(student.spec).with_name(name) for name in COMPANIONS}
    files = {name: file.read_bytes() for name, file in beside.items() if file.is_file()}
    for name, data in {**files, STUDENT: student.data}.items():
        with atomic_write(folder / name) as written:  # the file may be where the data are from
            written.write_bytes(data)
    return folder / STUDENT


def find_student(key: str, where: object) -> Path:
    """Find the file of a student that was kept, by its key; `where` is what it made, for people."""
    folder = _folder(key)
    if folder is None or not (folder / STUDENT).is_file():
        raise UsageError(f"The student that made {where} is not on this machine. Give its file with --model.")
    return folder / STUDENT


def _folder(key: str) -> Path | None:
    """Where it is kept; the key may come from elsewhere, and must not name another place."""
    digest = re.fullmatch(r"onnx:([0-9a-f]{32})(?::\d+)?", key)  # of one that answers with codes, their bits
    return user_data_path("retrieval") / "students" / digest[1] if digest else None

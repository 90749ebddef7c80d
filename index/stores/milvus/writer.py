"""Send items and vectors to the collections of a gallery: each once, at the server's pace."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from index.build.journal import Journal
from index.build.pipeline import PROJECTED
from index.embedders.teacher_space import TeacherSpace
from index.errors import RetrievalError, UsageError
from index.parallel import bounded_map
from index.progress import progress, say
from index.stores.milvus.client import FIELDS, any_of, as_item, as_row, explain
from index.stores.milvus.collection import PAGE, Collection
from index.stores.records import Item
from index.vectors import Vectors

T = TypeVar("T")
BYTES = 4 << 20  # of vectors in one request
MOST_ROWS = 1000  # in one request
LANES = 2  # requests at a time: one is made ready while the server takes another
PATIENCE = 300.0  # seconds that a server may take nothing before the run ends
PAUSE = 2.0  # seconds between two attempts


@dataclass
class Sender:
    """Sends rows to the collections of a gallery, each once, however often the server fails meanwhile.

    Attributes:
        collection: The gallery.
        patience: Seconds that the server may take nothing before the run ends.
    """

    collection: Collection
    patience: float = PATIENCE
    _complained: bool = field(default=False, repr=False)
    _waited: bool = field(default=False, repr=False)
    _failed: bool = field(default=False, repr=False)

    def send(self, space: str, rows: list[dict[str, Any]], new: bool = True) -> None:
        """Send rows with their vectors, and wait until the server has taken them: it sets the pace.

        Args:
            space: Of which space.
            rows: `as_row`, each with its `vector`.
            new: Whether none of them is there. What is inserted twice is there twice, so that after a
                failure, which may have come too late, rows replace those of the same digest.

        Raises:
            RetrievalError: The server took nothing for too long.
        """
        name = self.collection.name(space)
        client = self.collection.client

        def upsert() -> object:
            return client.upsert(name, rows, retry_times=0)

        self._insist((lambda: client.insert(name, rows, retry_times=0)) if new else upsert, upsert)

    def known(self, digests: list[str]) -> dict[str, dict[str, Any]]:
        """The fields of those items that were there before this run.

        Raises:
            RetrievalError: The server did not answer for too long.
        """
        rows = self.insist(lambda: self.collection.fetch("student", digests, FIELDS, self._level))
        self._waited = True
        return rows

    @property
    def _level(self) -> str:
        """A server that waits once for all that was written has it from then on, until it starts again."""
        return "Eventually" if self._waited and not self._failed else "Strong"

    def insist(self, work: Callable[[], T]) -> T:
        """Do what may be done twice until it succeeds.

        Raises:
            RetrievalError: It failed for too long.
        """
        return self._insist(work, work)

    def _insist(self, first: Callable[[], T], again: Callable[[], T]) -> T:
        end = time.monotonic() + self.patience
        work = first
        while True:
            try:
                with explain(self.collection.address):
                    done = work()
                self._complained = False
                return done
            except UsageError:
                raise
            except RetrievalError as error:
                if time.monotonic() > end:
                    raise
                self._failed = True
                if not self._complained:
                    self._complained = True
                    say(f"{error} Trying again for {self.patience:.0f} seconds.")
                work = again
                time.sleep(PAUSE)


@dataclass(frozen=True)
class Written:
    """What a run changed, in items."""

    new: int = 0
    changed: int = 0
    removed: int = 0

    @property
    def any(self) -> bool:
        """Whether it changed anything."""
        return bool(self.new or self.changed or self.removed)


@dataclass(frozen=True)
class Stretch:
    """Some items with what the server shall know of them, and the `(n, dim)` vectors of those embedded here.

    Attributes:
        items: The items.
        metadata: Of each, by digest; None keeps what is there.
        vectors: Of each that was embedded, by space and digest.
    """

    items: list[Item]
    metadata: Mapping[str, dict[str, str]] | None
    vectors: Mapping[str, Mapping[str, Vectors]]


def write_stretch(sender: Sender, stretch: Stretch, replace_files: bool) -> Written:
    """Send what the server lacks or has otherwise.

    Args:
        sender: Of the gallery.
        stretch: The items.
        replace_files: Whether an item has the files given, or those that were known as well.

    Raises:
        RetrievalError: The server fails for too long, or lost vectors.
    """
    collection = sender.collection
    digests = [item.digest for item in stretch.items]
    known = sender.known(digests)
    rows = {}
    for item in stretch.items:
        old = known.get(item.digest)
        facts = old["more"]["metadata"] if old else {}
        if stretch.metadata is not None:
            facts = stretch.metadata.get(item.digest, facts)
        whole = item if replace_files or old is None else _merge(as_item(old), item)
        rows[item.digest] = as_row(whole, facts)
    different = [digest for digest, old in known.items() if rows[digest] != old]
    missing = [digest for digest in digests if digest not in known]
    if gone := len(set(missing) - set(stretch.vectors.get("student", {}))):
        raise RetrievalError(
            f"{gone} images that were in {collection.address} are gone from it. Begin anew, without --resume."
        )
    for space in _student_last(collection.manifest.spaces):  # what it has, the others have
        if different:
            old_rows = sender.insist(lambda space=space: collection.fetch(space, different, ["vector"]))  # type: ignore[misc]
            sender.send(space, [rows[d] | {"vector": old_rows[d]["vector"]} for d in old_rows], new=False)
        if missing:
            lacking = [rows[d] | {"vector": stretch.vectors[space][d]} for d in missing]
            # A run that was killed may have sent the other spaces' already.
            sender.send(space, lacking, new=space == "student")
    return Written(len(missing), len(different))


def drop_others(sender: Sender, kept: set[str]) -> int:
    """Remove the items that are not among `kept`, and return how many the student's collection had."""
    collection = sender.collection
    gone: list[str] = []
    # The student's first: what it has, the others have. They may have more, of a run that was killed.
    for space in reversed(_student_last(collection.manifest.spaces)):
        pages = sender.insist(lambda space=space: list(collection.scan([], space)))  # type: ignore[misc]
        others = [row["digest"] for page in pages for row in page if row["digest"] not in kept]
        for start in range(0, len(others), PAGE):
            chosen, name = any_of(others[start : start + PAGE]), collection.name(space)
            sender.insist(lambda name=name, chosen=chosen: collection.client.delete(name, filter=chosen))  # type: ignore[misc]
        gone = others if space == "student" else gone
    return len(gone)


def read_stretches(
    journal: Journal,
    spaces: Sequence[str],
    dims: Mapping[str, int],
    projection: TeacherSpace | None,
    metadata: Mapping[str, dict[str, str]] | None,
) -> Iterator[Stretch]:
    """Read what a journal holds, as much at a time as goes into one request.

    Args:
        journal: A run that has embedded all.
        spaces: The spaces to fill.
        dims: Lengths of the vectors that were embedded, by space.
        projection: Makes the space `projected` of `teacher`; None where there is none.
        metadata: As in `Stretch`.
    """
    size = max(min(BYTES // (4 * max(dims.values())), MOST_ROWS), 1)
    found = journal.items()
    while part := list(islice(found, size)):
        own = [(item.digest, row) for item, row in part if row >= 0]
        vectors: dict[str, Mapping[str, Vectors]] = {}
        for space in spaces if own else ():
            source = "teacher" if space == PROJECTED else space
            made = np.concatenate(list(journal.vectors(source, dims[source], [row for _, row in own], None)))
            if space == PROJECTED:
                assert projection is not None
                made = projection.project(made)
            vectors[space] = dict(zip([digest for digest, _ in own], made, strict=True))
        yield Stretch([item for item, _ in part], metadata, vectors)


def write_all(sender: Sender, stretches: Iterable[Stretch], total: int, replace_files: bool) -> Written:
    """Send stretches, some at a time. With `replace_files`, drop what none of them has."""
    new = changed = 0
    kept: set[str] = set()

    def seen() -> Iterator[Stretch]:
        for stretch in stretches:
            if replace_files:
                kept.update(item.digest for item in stretch.items)
            yield stretch

    with ThreadPoolExecutor(LANES) as pool, progress(total, "send") as bar:

        def work(stretch: Stretch) -> tuple[Written, int]:
            return write_stretch(sender, stretch, replace_files), len(stretch.items)

        for done, count in bounded_map(pool, work, seen(), LANES + 1):
            new, changed = new + done.new, changed + done.changed
            bar.update(count)
    return Written(new, changed, drop_others(sender, kept) if replace_files else 0)


def _student_last(spaces: Iterable[str]) -> list[str]:
    return [*(space for space in spaces if space != "student"), "student"]


def _merge(old: Item, new: Item) -> Item:
    """An item with the files of both; what is known of a file now counts."""
    files = {file.path: file for file in (*old.files, *new.files)}
    first, *copies = files.values()
    return replace(old, path=first.path, name=first.name, mtime=first.mtime, copies=tuple(copies))

"""Embed what has no vectors yet, each content once."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from threading import Lock
from typing import TYPE_CHECKING

from tqdm import tqdm

from index.build.ask_along import ask_along
from index.build.embed import Embedded, embed_files
from index.build.journal import Journal
from index.embedders.base import Embedder
from index.images.file import ImageFile
from index.io import content_digest
from index.progress import count, progress, say
from index.teachers.client import BudgetedTeacher

if TYPE_CHECKING:
    from index.build.ray import RayCluster


def embed_missing(
    files: Sequence[ImageFile],
    models: Mapping[str, Embedder],
    journal: Journal,
    cluster: "RayCluster | None" = None,
) -> None:
    """Embed the files that were listed in a journal and have no vectors there, and add them to it.

    A paid teacher is asked along the way, once the budget is known to be enough for all of them. On a cluster
    copies of an image are embedded too: to look for them would mean to read every file here.
    """
    teacher = models.get("teacher")
    if teacher:
        teacher.find_missing(files)  # what may be missing is listed as refused
    missing = journal.count_missing()
    if missing < len(files):
        say(f"{missing} of {count(len(files), 'image')} new or changed, or not reached.")
    paid = teacher if isinstance(teacher, BudgetedTeacher) else None
    free = {name: model for name, model in models.items() if model is not paid}
    with progress(missing, "index") as bar:
        # A second round is for copies of an image that could not be embedded, or that changed meanwhile.
        done = -1
        while done:
            underway = _Underway(journal, bar)
            if cluster:
                unread = (files[place] for place, _, _ in journal.missing())
                parts = cluster(unread, journal.count_missing(), models, journal.folder, journal.lists)
            else:
                parts = embed_files(underway.begin(files), free, paid=paid, copy_of=underway.copy_of)
            with closing(parts):
                if paid and not cluster:
                    ask_along(parts, paid, journal.count_missing(), underway.end)
                else:
                    for part in parts:
                        underway.end(part)
            done = underway.done


class _Underway:
    """Files on their way into the journal: of those that may be copies, one of each content is embedded."""

    def __init__(self, journal: Journal, bar: "tqdm[None]") -> None:
        self.done = 0  # files that have arrived, embedded or refused
        self._journal, self._bar, self._lock = journal, bar, Lock()
        self._doubtful: set[str] = set()  # locations
        self._digests: set[str] = set()

    def begin(self, files: Sequence[ImageFile]) -> Iterator[ImageFile]:
        """Yield the files without vectors, but not those that are known to be copies."""
        for place, digest, doubtful in self._journal.missing():
            file = files[place]
            if doubtful:
                self._doubtful.add(file.location)
            elif digest is not None and self._is_known(digest):
                self._bar.update()
                continue
            yield file

    def copy_of(self, file: ImageFile, data: bytes) -> str:
        """The digest of a file's bytes if others hold them; empty if they are to be embedded."""
        if file.location not in self._doubtful:
            return ""
        self._doubtful.discard(file.location)
        digest = content_digest(data)
        return digest if self._is_known(digest) else ""

    def end(self, part: Embedded) -> None:
        """Add what was embedded to the journal."""
        self._journal.add(part.items, part.vectors, part.failures, part.copies)
        with self._lock:
            self._digests.difference_update(item.digest for item in part.items)
        self.done += len(part.items) + len(part.failures)
        if part.waiting is not None:
            self._bar.set_postfix_str(f"{part.waiting:.0%} waiting for data", refresh=False)
        self._bar.update(len(part.items) + len(part.failures) + len(part.copies))

    def _is_known(self, digest: str) -> bool:
        """Whether a content has vectors or is underway; if not, it comes to be."""
        with self._lock:
            known = digest in self._digests or self._journal.holds(digest)
            self._digests.add(digest)
        return known

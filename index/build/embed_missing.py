"""Embed what has no vectors yet, each content once; a paid teacher is asked along the way."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from threading import Lock

from tqdm import tqdm

from index.build.embed import Embedded, Ready, embed_files, embed_ready
from index.build.journal import Journal
from index.build.ray import RayCluster
from index.embedders.base import Embedder
from index.embedders.vectors_file import VectorsEmbedder
from index.errors import BudgetError, RetrievalError
from index.images.file import ImageFile
from index.progress import count, progress, say
from index.stores.records import Failure
from index.teachers.ask import ask_prepared
from index.teachers.client import BudgetedTeacher
from index.teachers.cost import require_budget
from index.teachers.questions import Question


def embed_missing(
    files: Sequence[ImageFile],
    models: Mapping[str, Embedder],
    journal: Journal,
    cluster: RayCluster | None = None,
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
        say(f"{missing} of {count(len(files), 'image')} new or changed, or not reached by the run before.")
    paid = teacher if isinstance(teacher, BudgetedTeacher) else None
    free = {name: model for name, model in models.items() if model is not paid}
    by_name = any(isinstance(model, VectorsEmbedder) for model in models.values())
    with progress(missing, "index") as bar:
        # A second round is for copies of an image that could not be embedded, or that changed meanwhile.
        done, broken = -1, dict[str, str]()
        while done:
            # What lacks a vector by its name may be a copy of what has one.
            underway = _Underway(journal, bar, {} if by_name else broken)
            unread = underway.begin(files)
            if cluster:
                parts = cluster(unread, journal.count_missing(), models, journal.folder, journal.lists)
            else:
                parts = embed_files(unread, free, paid=paid, is_copy=underway.is_copy)
            with closing(parts):
                if paid:
                    ask_along(parts, paid, journal.count_missing(), underway.end)
                else:
                    for part in parts:
                        underway.end(part)
            done = underway.done


class _Underway:
    """Files on their way into the journal: one of each content is embedded, the others are its copies."""

    def __init__(self, journal: Journal, bar: "tqdm[None]", broken: dict[str, str]) -> None:
        self.done = 0  # files that have arrived, embedded or refused
        self._broken = broken  # why contents cannot be embedded, by digest, as of earlier rounds, too
        self._journal, self._bar, self._lock = journal, bar, Lock()
        self._digest_of: dict[str, str] = {}  # by location, of what is being embedded
        self._digests: set[str] = set()  # of those, and of what failed in this round

    def begin(self, files: Sequence[ImageFile]) -> Iterator[ImageFile]:
        """Yield the files without vectors, and refuse those of a content that cannot be embedded."""
        begun: set[str] = set()
        for place, digest in self._journal.missing():
            if digest in begun:  # what becomes of the first of a content is not known yet
                continue
            if digest in self._broken:
                self._journal.add([], {}, [Failure(files[place].location, self._broken[digest])])
                continue
            if digest is not None:
                begun.add(digest)
            yield files[place]

    def is_copy(self, file: ImageFile, digest: str) -> bool:
        """Whether a content has vectors or is underway; if neither, this file stands for it from now on."""
        with self._lock:
            if digest in self._digests or self._journal.holds(digest):
                return True
            self._digests.add(digest)
            self._digest_of[file.location] = digest
        return False

    def end(self, part: Embedded) -> None:
        self._journal.add(part.items, part.vectors, part.failures, part.copies)
        with self._lock:
            for item in part.items:
                self._digests.discard(self._digest_of.pop(item.path, ""))
            for failure in part.failures:
                if digest := self._digest_of.pop(failure.path, ""):
                    self._broken[digest] = failure.reason
        self.done += len(part.items) + len(part.failures)
        if part.waiting is not None:
            self._bar.set_postfix_str(f"{part.waiting:.0%} waiting for data", refresh=False)
        self._bar.update(len(part.items) + len(part.failures) + len(part.copies))


HELD = 1 << 28  # bytes of questions that are kept until the budget is certain to be enough
UNTOLD = 1 << 20  # bytes of a question that does not say how large it is, about
Open = tuple[Ready, Question]  # an image, and what is to be asked about it


def ask_along(
    parts: Iterator[Embedded], paid: BudgetedTeacher, count: int, keep: Callable[[Embedded], None]
) -> None:
    """Give embedded images, which have questions, the teacher's vectors too; `keep` takes what is complete.

    Nothing is asked before the budget is certain to be enough for all images, `count` at most. Until then
    questions are held back, as many as `HELD` has room for; images of which it has none are not kept, to be
    embedded again.
    """
    asking = _Asking(paid, count, keep)
    for part in parts:
        asking.hold(asking.take(part))
        if asking.is_sure():
            break
    else:
        asking.left = 0
    if asking.unknown:
        require_budget(len(asking.unknown) + asking.left, paid.ledger.spent, paid.budget)
    asking.probe()
    denied, reasons = 0, list[Failure]()
    for asked in ask_prepared(asking.questions(parts), paid, count):
        keep(asking.complete([one for one, _ in asked.answered], asked.failures))
        denied += asked.denied
        reasons += asked.failures[: 1 - len(reasons)]
    if denied:
        raise BudgetError(
            f"{paid.ledger.spent} of the budget of {paid.budget} are spent, and some images have no answer "
            f"yet. What was answered is kept in {paid.ledger.path}. Give a larger --budget."
        )
    if reasons and not paid.dim:
        raise RetrievalError(f"No image has an answer. The first: {reasons[0].path}: {reasons[0].reason}.")


class _Asking:
    def __init__(self, paid: BudgetedTeacher, count: int, keep: Callable[[Embedded], None]) -> None:
        self.left = count  # files that are not looked at yet, at most
        self._paid, self._keep = paid, keep
        self._answered_before = len(paid.ledger) > 0
        self.unknown: set[str] = set()  # digests of questions
        self._held: list[Open] = []
        self._bytes = 0
        self._known: Question | None = None  # the first that has an answer
        self._probed = False

    def take(self, part: Embedded) -> list[Open]:
        """Keep what the ledger has answers for; return what it has none for."""
        self.left -= len(part.items) + len(part.failures) + len(part.copies)
        known = self._paid.ledger.known([name for one in part.questions for name in (one.digest, one.source)])
        there, unknown = list[Ready](), list[Open]()
        for i, (item, question) in enumerate(zip(part.items, part.questions, strict=True)):
            vectors = {name: rows[i] for name, rows in part.vectors.items()}
            one = Ready(item, {"teacher": question}, vectors)
            if known.isdisjoint((question.digest, question.source)):
                unknown.append((one, question))
            else:
                there.append(one)
                self._known = self._known or question
        whole = self.complete(there, part.failures)
        self._keep(replace(whole, waiting=part.waiting, copies=part.copies))
        return unknown

    def hold(self, some: list[Open]) -> None:
        """Keep questions until it is certain that they may be asked."""
        self.unknown.update(question.digest for _, question in some)
        if self._bytes < HELD:
            self._held += some
            self._bytes += sum(question.size or UNTOLD for _, question in some)

    def is_sure(self) -> bool:
        """Whether to ask: the budget is enough, and a question to probe with was met, if there may be one."""
        if not self._known and self._answered_before and self._bytes < HELD:
            return False
        return len(self.unknown) + self.left <= self._paid.budget - self._paid.ledger.spent

    def probe(self) -> None:
        """Ask again about an image that has an answer, if others are asked about and the budget has room."""
        wanted = len(self.unknown) + self.left
        if self._known and wanted and not self._probed:
            self._probed = True
            if self._paid.ledger.spent + wanted < self._paid.budget:
                self._paid.probe(self._known)

    def questions(self, parts: Iterator[Embedded]) -> Iterator[Open]:
        yield from self._held
        self._held = []
        for part in parts:
            found = self.take(part)
            self.probe()
            yield from found

    def complete(self, some: list[Ready], failures: list[Failure]) -> Embedded:
        """Put together what is answered; what has no direction is refused."""
        return embed_ready(some, {"teacher": self._paid}, failures, {"teacher": nullcontext()})

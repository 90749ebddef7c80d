"""A teacher with a price for each answer, as an embedder: what the ledger knows is never asked again.

Each call goes this way: reserve its price; send it; store the answers and with them the reservation's end.
Whatever goes wrong after sending leaves the reservation behind, which counts as spent.
"""

import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from threading import Event, Lock

import numpy as np
from numpy.typing import NDArray

from index.embedders.base import Calls, Embedder, find_fault, unit_rows
from index.errors import BudgetError, CallError, ImageError, RefusedError, RetrievalError, UnansweredError
from index.images.decode import Photo
from index.parallel import RateLimit
from index.progress import count, say
from index.teachers.ledger import Ledger, Reserved
from index.teachers.questions import Answer, Divided, Group, Question, Work, cut_groups
from index.teachers.retry import BAD_ANSWERS, BadAnswerError, Refuse, Retry, Split, State, decide

FIRST = 8  # images of the first call about several
SMALLER = 4  # times smaller are calls after one that was charged for and brought nothing
TOO_MANY = 2  # larger calls that failed so, with none answered between, before no more are made in this run
STEADY = 4  # calls that must succeed before they are made larger by one image again
POLL = 0.2  # seconds between looks for an answer that another process is waiting for
REPLACED = 0.99  # similarity of two answers about one image below which they are of two models
SILENT = 10.0  # seconds of such waiting before it is said


class BudgetedTeacher(Embedder):
    """A teacher, its ledger and its budget, as one embedder. Safe in several threads.

    Until two answers agree on the length of the vectors, which all later ones must have, images are asked
    about one at a time, and the first answer is held back. A call larger than any that was answered in full
    is made by one thread at a time: what is wrong with a teacher shows at the price of a few answers.
    """

    def __init__(self, teacher: Embedder, ledger: Ledger, budget: int) -> None:
        """Join them. The budget is of images that may ever be asked about; the ledger counts."""
        self.ledger, self.budget = ledger, budget
        self.key, self.name, self.spec = teacher.key, teacher.name, teacher.spec
        self.options, self.decode_side = teacher.options, teacher.decode_side
        self.unit = ledger.unit = teacher.unit
        self.asked = 0  # answers paid for through this object
        self.lost = 0  # images that it asked about without an answer, and that may have been charged for
        self.complaint = ""  # what was wrong with the last answer or call that was of no use
        self.before_asking: Callable[[], None] | None = None  # is called once, before anything is asked
        self._teacher = teacher
        self._lessons: Mapping[str, int] = ledger.lessons
        teacher.lessons = self._lessons
        self._pace = RateLimit(teacher.calls.rate)
        self._refused: dict[str, str] = {}  # why, by digest: not to pay for again in this run
        self._answered = False
        self._held: Answer | None = None
        self._given_up = self._useless = 0
        self._most: float = teacher.calls.batch  # images a call: few, after calls that brought nothing
        self._proven = 0  # images of the largest call that was answered in full
        self._larger_failed = 0  # larger calls since then that were charged for, without an answer
        self._turn = Lock()  # taken to make a call larger than that
        self._lock = Lock()  # guards the counters

    @property
    def calls(self) -> Calls:  # type: ignore[override]
        """How the teacher is best called."""
        return self._teacher.calls

    @property
    def dim(self) -> int:  # type: ignore[override]
        """Length of the vectors; 0 before the first answer of a teacher that does not say."""
        return self.ledger.dim or self._teacher.dim

    @property
    def _limit(self) -> int:
        """Images that a call may be about, by what calls have brought so far."""
        return min(int(self._most), self.calls.batch)

    def prepare(self, photo: Photo) -> Question:
        """Make the question for one image; ImageError if it has nothing, or was refused before."""
        made = self._teacher.prepare(photo)
        digest, size = self._teacher.describe_input(photo, made)
        if reason := self._refused.get(digest):
            raise ImageError(reason)
        return Question(photo.name, photo.location, photo.digest, digest, size, made)

    def embed(self, batch: Sequence[Question]) -> NDArray[np.float32]:
        """Map n questions to `(n, dim)` float32 unit rows, asking only what the ledger does not know.

        Raises:
            UnansweredError: The teacher refused some of them.
            BudgetError: The budget has no room for some of them.
            RetrievalError: The teacher or the ledger cannot be used.
        """
        asked = self.ask(batch)
        reasons = {i: asked.refused[q.digest] for i, q in enumerate(batch) if q.digest in asked.refused}
        if reasons:
            first = min(reasons)
            raise UnansweredError(f"No answer for {batch[first].name}: {reasons[first]}.", reasons)
        if asked.denied:
            raise BudgetError(
                f"{self.name} was not asked {len(asked.denied)} of {len(batch)} questions: "
                f"{self.ledger.spent} of the budget of {self.budget} are spent ({self.ledger.path}). "
                "Give a larger --budget."
            )
        answers = self.ledger.answers([q.digest for q in batch] + [q.source for q in batch])
        rows = [answers[q.digest if q.digest in answers else q.source] for q in batch]
        return unit_rows(np.stack(rows), self.name)

    def ask(self, questions: Sequence[Question], stop: Event | None = None) -> Work:
        """Bring the answers to all questions into the ledger, as far as that can be.

        Threads that ask together share `stop`, which is set as soon as one of them fails: no further call is
        made then, and what is open is denied.

        Raises:
            RetrievalError: The teacher or the ledger cannot be used. What was answered is kept.
        """
        known = self.ledger.known([q.digest for q in questions] + [q.source for q in questions])
        unknown = {q.digest: q for q in questions if q.digest not in known and q.source not in known}
        refused = {digest: self._refused[digest] for digest in unknown if digest in self._refused}
        new = [q for digest, q in unknown.items() if digest not in refused]
        work = Work(stop or Event(), refused)
        if new and self.before_asking is not None:
            with self._turn:  # for which other threads wait
                if self.before_asking is not None:
                    self.before_asking()
                self.before_asking = None
        try:
            for group in cut_groups(new, self.calls.batch):
                work.groups.append(Group(group))
                while work.groups:
                    self._advance(work)
        except BaseException:
            work.stop.set()
            raise
        self._refused |= {d: why for d, why in work.refused.items() if d not in work.unpaid}
        return work

    def probe(self, question: Question) -> bool:
        """Ask again about an image that has an answer, and compare: what comes is not kept, but is spent.

        Nothing is asked of a model that cannot be replaced under its name, nor where the budget has no room.
        A call that brings no answer says nothing of the model. Return whether the image has an answer.

        Raises:
            RetrievalError: The teacher answers otherwise than before.
        """
        before = self.ledger.answers([question.digest]).get(question.digest)
        if before is None or not self.calls.replaceable:
            return before is not None
        reserved = self.ledger.reserve([question.digest], self.budget, self.calls.seconds, again=True)
        if not reserved.calls:
            return True
        try:
            row = self._send([question], reserved)[0]
        except (CallError, UnansweredError):
            return True
        self.ledger.lose(reserved.calls.values())
        if find_fault(row) or len(row) != len(before):  # a faulty answer; if all are, the next calls say so
            return True
        alike = float(np.prod(unit_rows(np.stack([row, before]), self.name), axis=0).sum())
        if alike < REPLACED:
            raise RetrievalError(
                f"{self.name} answers otherwise about {question.name} than before (similarity {alike:.3f}). "
                "If it is another model now, give another --ledger; --teacher-probe false mixes both."
            )
        return True

    def _advance(self, work: Work) -> None:
        """Make one call about the group at hand, and see to what comes of it."""
        if not (group := work.groups[-1]).open:
            work.groups.pop()
            return
        with self._call_size(group) as size:
            group.calls += 1
            questions, group.open = group.open[:size], group.open[size:]
            self._pace.wait(len(questions), work.stop)
            if work.stop.is_set():
                work.denied.update(q.digest for q in questions)
                return
            reserved = self.ledger.reserve([q.digest for q in questions], self.budget, self.calls.seconds)
            work.denied.update(reserved.denied)
            busy = [q for q in questions if q.digest in reserved.busy]
            group.open += busy
            if mine := [q for q in questions if q.digest in reserved.calls]:
                self._attempt(mine, reserved, group, work)
            elif busy and not self._settle(busy[0]):
                work.stop.wait(POLL)
                group.waited += POLL
                if group.waited - POLL < SILENT <= group.waited:
                    say(
                        f"{count(len(busy), self.unit)} asked about by another process, or when it was "
                        f"killed on another machine. Waiting for up to {self.calls.seconds:.0f} s."
                    )

    @contextmanager
    def _call_size(self, group: Group) -> Iterator[int]:
        """Give the number of images that the next call may be about; let one thread alone try more."""
        first = min(FIRST, len(group.open))
        if not self.dim or self._proven < min(first, self._limit):
            with self._turn:  # while this waited, what it waited for may have become known
                if not self.dim or self._proven < min(first, self._limit):
                    yield min(first, self._limit) if self.dim else 1
                    return
        wanted = min(len(group.open), self._limit)
        if wanted > self._proven and not group.calls and self._turn.acquire(blocking=False):
            try:
                yield wanted
            finally:
                self._turn.release()
        else:
            yield min(self._limit, self._proven)

    def _attempt(self, questions: list[Question], reserved: Reserved, group: Group, work: Work) -> None:
        """Make one call; put back into the group what is to be asked again."""
        try:
            faults = self._call(questions, reserved)
        except UnansweredError as answer:
            named = [questions[i] for i in sorted(answer.reasons)]
            group.open += [q for i, q in enumerate(questions) if i not in answer.reasons]
            self._follow(answer, named, group, work, whole=len(named) == len(questions))
            work.refused.update({questions[i].digest: why for i, why in answer.reasons.items()})
            return
        except CallError as failure:
            self._follow(failure, questions, group, work, work.count(failure, questions, group))
            return
        group.attempts = 0
        if group.of and not faults:
            group.of.left -= len(questions)
            group.of.largest = max(group.of.largest, len(questions))
            if not group.of.left:  # no question was at fault, but their number
                self._teacher.take_fewer(max(group.of.largest, self._proven))
        for question in questions:
            if fault := faults.get(question.digest):
                work.bad[question.digest] += 1
                wrong = BadAnswerError(f"{self.name} {fault}", charged=True)
                whole = len(faults) == len(questions)
                self._follow(wrong, [question], group, work, work.bad[question.digest], whole)
            elif question.digest in faults:
                group.open.append(question)

    def _follow(
        self,
        failure: RetrievalError,
        questions: list[Question],
        group: Group,
        work: Work,
        attempts: int = 1,
        whole: bool = True,
    ) -> None:
        state = State(
            questions[0].name, len(questions), attempts, whole, group.part,
            self._answered, self._given_up, self._useless,
        )  # fmt: skip
        decision = decide(state, failure)
        if isinstance(decision, Retry):
            group.open += questions
            if decision.exact:
                self._pace.hold(decision.after)  # for all threads
            # Full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter
            work.stop.wait(decision.after if decision.exact else random.uniform(0, decision.after))
        elif isinstance(decision, Split):
            group.attempts = 0
            middle = len(questions) // 2
            of = group.of or (Divided(len(questions)) if isinstance(failure, RefusedError) else None)
            work.groups += [Group(part, True, of) for part in (questions[middle:], questions[:middle])]
            if of and len(questions) > self._proven:  # others try no more either
                self._most = min(self._most, middle)
        elif isinstance(decision, Refuse):
            times = f", {BAD_ANSWERS} times" if work.bad[questions[0].digest] >= BAD_ANSWERS else ""
            group.attempts = 0
            if group.of:  # not their number was at fault
                self._most = self.calls.batch
            work.refuse(questions, f"{failure}{times}", failure)
        elif decision.reason:
            kept = f"{count(len(self.ledger), 'answer')} kept in {self.ledger.path}; run again to go on."
            kept = kept if len(self.ledger) else "No answer came of it."
            raise RetrievalError(f"{decision.reason}. {kept}") from failure
        else:
            raise failure
        if not isinstance(decision, Retry) and decision.counts:
            with self._lock:
                self._given_up += 1

    def _call(self, questions: Sequence[Question], reserved: Reserved) -> dict[str, str]:
        """Make one call; store what it brings, and note as lost what is of no use.

        Return what has no answer in the ledger yet, by digest, and what was wrong: nothing, if held back.
        """
        start = time.monotonic()
        rows = self._send(questions, reserved)
        answer = Answer(questions, rows, reserved, time.monotonic() - start)
        faults = {q.digest: find_fault(row) for q, row in zip(questions, rows, strict=True)}
        if dim := self.dim:
            if rows.shape[1] != dim:
                faults = dict.fromkeys(faults, f"answered with {rows.shape[1]} numbers, not {dim}")
        elif not faults[questions[0].digest]:
            return self._hold(answer)
        good = [i for i, q in enumerate(questions) if not faults[q.digest]]
        if good:
            self._keep(replace(answer, questions=[questions[i] for i in good], rows=rows[good]))
        bad = {digest: fault for digest, fault in faults.items() if fault}
        if bad:
            self._lose([reserved.calls[digest] for digest in bad], f"{self.name} {next(iter(bad.values()))}")
        return bad

    def _send(self, questions: Sequence[Question], reserved: Reserved) -> NDArray[np.float32]:
        calls = [reserved.calls[q.digest] for q in questions]
        try:
            rows = self._teacher.embed([q.input for q in questions])
            if len(rows) != len(questions):
                raise CallError(
                    f"{self.name} gave {len(rows)} answers to {len(questions)} images.", charged=True
                )
        except UnansweredError:
            self.ledger.release(calls)
            raise
        except CallError as failure:
            self.complaint = str(failure)
            if failure.charged:
                self._lose(calls, self.complaint)
                with self._lock:  # by what failed, not by what is: all threads may fail together
                    self._most = max(1, min(self._most, len(questions) // SMALLER))
                    self._larger_failed += 0 < self._proven < len(questions)
            else:
                self.ledger.release(calls)
            raise
        except BaseException:
            self._lose(calls, "")
            raise
        with self._lock:  # or a thread that was overtaken would write what is older
            if (lessons := self._teacher.lessons) != self._lessons:
                self.ledger.learn(dict(lessons.items() - self._lessons.items()))  # others learn, too
                self._lessons = lessons
        return rows

    def _hold(self, answer: Answer) -> dict[str, str]:
        """Keep an answer back until the next agrees with it on the length of the vectors."""
        held, self._held = self._held, answer
        with self._lock:
            self._given_up, self._answered = 0, True
        digest, length = answer.questions[0].digest, answer.rows.shape[1]
        if held is None:
            return {digest: ""}
        if held.rows.shape[1] != length:
            fault = f"answered with {held.rows.shape[1]} numbers, then {length}"
            self._lose(held.reserved.calls.values(), f"{self.name} {fault}")
            return {digest: fault}
        self._held = None
        for one in (held, answer):
            self._keep(one)
        return {}

    def _settle(self, question: Question) -> bool:
        """Store the answer that is held back for this question, if one is, where no other is to come."""
        with self._lock:  # or two threads settle the same one
            held = self._held
            if held is None or held.questions[0].digest != question.digest:
                return False
            self._held = None
        if self.dim in (0, held.rows.shape[1]):
            self._keep(held)
        else:
            self._lose(held.reserved.calls.values(), self.complaint)
        return True

    def _keep(self, answer: Answer) -> None:
        questions, sources = answer.questions, {q.digest: q.source for q in answer.questions}
        self.ledger.add(list(sources), answer.rows, answer.reserved.calls, sources, answer.seconds)
        with self._lock:
            self.asked += len(questions)
            self._given_up, self._answered = 0, True
            if len(questions) > self._proven:
                self._proven, self._larger_failed = len(questions), 0
            if len(questions) >= int(self._most):
                most = self.calls.batch if self._larger_failed < TOO_MANY else self._proven
                self._most = min(most, self._most + 1 / STEADY)

    def _lose(self, calls: Collection[int], complaint: str) -> None:
        self.ledger.lose(calls)
        useful = self._answered and self.dim
        with self._lock:
            self.lost += len(calls)
            self.complaint = complaint
            self._useless += not useful

"""Report progress: bars on stderr, lines through the logger `retrieval`, and all of it to who watches."""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from tqdm import tqdm

from index.errors import RetrievalError

Watch = Callable[..., None]  # is told facts by their names

log = logging.getLogger("retrieval")
BARS = ContextVar("bars", default=True)  # whether bars are shown
NOTES: ContextVar[dict[str, None] | None] = ContextVar("notes", default=None)
WATCH: ContextVar[Watch | None] = ContextVar("watch", default=None)


class StoppedError(RetrievalError):
    """Work that who watches has ended, between two of its parts."""


@dataclass(frozen=True)
class Stage:
    """How far a piece of work has come."""

    label: str  # what is done, as beside its bar
    done: float  # how many of its parts
    total: int  # of so many


class Bar(tqdm):
    """A bar that tells who watches, too, whether or not it is shown."""

    stage = Stage("", 0, 0)
    watch: Watch | None = None

    def update(self, n: float | None = 1) -> bool | None:
        """Count parts as done."""
        stage = self.stage
        self.stage = Stage(stage.label, stage.done + (n or 0), stage.total)
        if self.watch:
            self.watch(stage=self.stage)
        return super().update(n)


class Console(logging.Handler):
    """Writes lines to stderr, beside whatever bar is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        tqdm.write(self.format(record), file=sys.stderr)


def show_lines() -> None:
    """Show the logger's lines on stderr, as the command does; a program that imports us decides itself."""
    log.setLevel(logging.INFO)
    if not any(isinstance(handler, Console) for handler in log.handlers):
        log.addHandler(Console())


@contextmanager
def bars(shown: bool) -> Iterator[None]:
    """Show bars in this block, or none."""
    token = BARS.set(shown)
    try:
        yield
    finally:
        BARS.reset(token)


@contextmanager
def watched(by: Watch) -> Iterator[None]:
    """Tell of the work in this block: the `stage` of each bar, and what is handed to `tell`.

    `by` is called in the threads that work: StoppedError, raised in it, ends the work.
    """
    token = WATCH.set(by)
    try:
        yield
    finally:
        WATCH.reset(token)


def tell(**facts: object) -> None:
    """Tell who watches, if anyone does."""
    if watch := WATCH.get():
        watch(**facts)


def progress(total: int, label: str, unit: str = "img") -> Bar:
    """Make a bar that shows a rate and the time left."""
    watched = sys.stderr.isatty()
    first = os.environ.get("RANK", "0") == "0"  # of the processes of torchrun only the first one speaks
    bar = Bar(
        total=total,
        desc=label,
        unit=unit,
        mininterval=0.2 if watched else 15,
        dynamic_ncols=watched,
        disable=not (first and BARS.get()),
    )
    bar.stage, bar.watch = Stage(label, 0, total), WATCH.get()
    return bar


def say(line: str) -> None:
    """Log one line."""
    log.info("%s", printable(line))


def note(line: str) -> None:
    """Say a line at the end of `notes_at_end`, and once; at once outside of it."""
    notes = NOTES.get()
    if notes is None:
        say(line)
    else:
        notes[line] = None


@contextmanager
def notes_at_end() -> Iterator[None]:
    """Say after this block, whatever becomes of it, what was noted in it."""
    notes: dict[str, None] = {}
    token = NOTES.set(notes)
    try:
        yield
    finally:
        NOTES.reset(token)
        for line in notes:
            say(line)


def count(number: int, thing: str) -> str:
    """Count things, as in `1 image` and `2 images`."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def printable(text: str) -> str:
    r"""Text as one line for a terminal: what would steer it, in the name of a file, is written as `\x1b`."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)

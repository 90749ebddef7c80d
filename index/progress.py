"""Report progress: bars on stderr, and lines through the logger `retrieval`."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from tqdm import tqdm

log = logging.getLogger("retrieval")
BARS = ContextVar("bars", default=True)  # whether bars are shown
NOTES: ContextVar[dict[str, None] | None] = ContextVar("notes", default=None)


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


def progress(total: int, label: str, unit: str = "img") -> "tqdm[None]":
    """Make a bar that shows a rate and the time left."""
    watched = sys.stderr.isatty()
    first = os.environ.get("RANK", "0") == "0"  # of the processes of torchrun only the first one speaks
    return tqdm(
        total=total,
        desc=label,
        unit=unit,
        mininterval=0.2 if watched else 15,
        dynamic_ncols=watched,
        disable=not (first and BARS.get()),
    )


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

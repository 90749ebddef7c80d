"""What is said on stderr meanwhile: one progress bar for everything that takes long, and single lines."""

import os
import sys

from tqdm import tqdm


def progress(total: int, label: str, unit: str = "img") -> "tqdm[None]":
    """Make a bar that shows a rate and the time left.

    Args:
        total: How many steps there are.
        label: What is being done.
        unit: What is counted.
    """
    watched = sys.stderr.isatty()
    return tqdm(
        total=total,
        desc=label,
        unit=unit,
        mininterval=0.2 if watched else 15,
        dynamic_ncols=watched,
        disable=os.environ.get("RANK", "0") != "0",  # of the processes of torchrun the first one speaks
    )


def say(line: str) -> None:
    """Say one line, beside whatever bar is shown."""
    tqdm.write(printable(line), file=sys.stderr)


def printable(text: str) -> str:
    r"""Text as one line for a terminal: what would steer it, in the name of a file, is written as `\x1b`."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)

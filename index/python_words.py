"""Messages in the words of a Python program: arguments, where the command has options."""

import re
from collections.abc import Callable, Container
from functools import wraps
from inspect import signature
from logging import LogRecord
from typing import ParamSpec, TypeVar

from index.arguments import call
from index.errors import RetrievalError

T = TypeVar("T")
P = ParamSpec("P")
# An option, perhaps with a number; and what stays as it is: a command to type.
OPTION = re.compile(
    r"retrieval (?:demo|distill|index|serve|evaluate|upgrade|judge|quantize|ledger) .*"
    r"|(?<![\w-])-(k\b|-[a-z][\w-]*)( (?=[\d.]+(?!\w)))?"
)
OTHERWISE = {"model": "student", "teacher-option": "options of Teacher"}
FLAGS = ("update", "resume", "allow-missing")


def in_python(function: Callable[P, T]) -> Callable[P, T]:
    """Read the arguments of a function, name them in its errors and lines, say what it notes at its end."""
    own = signature(function).parameters

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        from index.progress import log, notes_at_end

        def translate(record: LogRecord) -> bool:
            record.msg, record.args = name_arguments(record.getMessage(), own), ()
            return True

        log.addFilter(translate)
        try:
            with notes_at_end():
                return call(function, *args, **kwargs)
        except RetrievalError as error:
            error.args = (name_arguments(str(error), own), *error.args[1:])
            raise
        finally:
            log.removeFilter(translate)

    return run


def name_arguments(line: str, own: Container[str] = ()) -> str:
    """Name the arguments of `retrieval`, of a function with its own, in a line that names options."""

    def name(found: re.Match[str]) -> str:
        option, number = found.groups()
        if option is None:
            return found[0]
        option = option.lstrip("-")
        other = option.removeprefix("teacher-").replace("-", "_")
        argument = option if option in own else OTHERWISE.get(option, other)
        return f"{argument}=True" if option in FLAGS else f"{argument}=" if number else argument

    return OPTION.sub(name, line)

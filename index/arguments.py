"""Arguments that a program gives, read by their annotations, and messages that name them and no options."""

import re
from collections.abc import Callable, Container, Iterable, Mapping
from functools import wraps
from inspect import formatannotation, signature
from numbers import Integral, Real
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from index.errors import RetrievalError, UsageError

if TYPE_CHECKING:
    from logging import LogRecord  # which a command that only helps does not load

T = TypeVar("T")
P = ParamSpec("P")
# annotation: what is taken, what is made of it, and what to call it
KINDS: dict[str, tuple[Any, Callable[[Any], Any], str]] = {
    "bool": (bool, bool, "True or False"),
    "int": (Integral, int, "a whole number"),
    "float": (Real, float, "a number"),
    "str": ((str, PathLike), fspath, "text"),
    "AnyPath": ((str, PathLike), fspath, "a path"),
    "Mapping[str, str]": (Mapping, dict, "a mapping of columns to values"),
}
# annotation: the kind of each, or of one alone; of text there may be none
MANY = {"int | Sequence[int]": "int", "Images": "AnyPath", "Sequence[str]": "str", "tuple[str, ...]": "str"}


def call(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Call a function with its arguments read, as `read_value`; UsageError, too, if it takes no such ones."""
    called = signature(function)
    try:
        bound = called.bind(*args, **kwargs)
    except TypeError as error:
        names = ", ".join(name for name in called.parameters if name != "self")
        raise UsageError(f"Wrong call: {error}. There are {names}.") from None
    for name, value in bound.arguments.items():
        bound.arguments[name] = read_value(name, value, called.parameters[name].annotation)
    return function(*bound.args, **bound.kwargs)


def read_value(name: str, value: Any, annotation: Any) -> Any:
    """Make a plain value of one, such as an int of NumPy's; UsageError unless it fits its annotation."""
    text = annotation if isinstance(annotation, str) else formatannotation(annotation)
    kind = text.removesuffix(" | None")
    if value is None and kind != text:
        return None
    if (each := MANY.get(kind, kind)) not in KINDS:
        return value
    taken, make, what = KINDS[each]
    fits = isinstance(value, taken) and (taken is bool or not isinstance(value, bool))
    if kind in MANY and not fits and isinstance(value, Iterable) and not isinstance(value, str | bytes):
        several = tuple(read_value(name, one, each) for one in value)
        if several or each == "str":
            return several
    if not fits:
        raise UsageError(f"{name} must be {what}{', or several' * (kind in MANY)}, not {value!r:.40}.")
    if isinstance(value, Mapping):
        names = [read_value(f"a column of {name}", column, "str") for column in value]
        return {column: read_value(f"{name}[{column!r}]", value[column], "str") for column in names}
    return (make(value),) if kind in MANY else make(value)


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

        def translate(record: "LogRecord") -> bool:
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

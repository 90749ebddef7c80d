"""Arguments that a program gives, read by their annotations: one of another kind is a UsageError."""

from collections.abc import Callable, Iterable, Mapping
from inspect import formatannotation, signature
from numbers import Integral, Real
from os import PathLike, fspath
from typing import Any, TypeVar

from index.errors import UsageError

T = TypeVar("T")
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
SEVERAL = {
    "int | Sequence[int]": "int",
    "Images": "AnyPath",
    "Sequence[str]": "str",
    "tuple[str, ...]": "str",
}


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
    if (each := SEVERAL.get(kind, kind)) not in KINDS:
        return value
    taken, make, what = KINDS[each]
    fits = isinstance(value, taken) and (taken is bool or not isinstance(value, bool))
    if kind in SEVERAL and not fits and isinstance(value, Iterable) and not isinstance(value, str | bytes):
        several = tuple(read_value(name, one, each) for one in value)
        if several or each == "str":
            return several
    if not fits:
        raise UsageError(f"{name} must be {what}{', or several' * (kind in SEVERAL)}, not {value!r:.40}.")
    if isinstance(value, Mapping):
        return {column: read_value(f"{name}[{column!r}]", one, "str") for column, one in value.items()}
    return (make(value),) if kind in SEVERAL else make(value)

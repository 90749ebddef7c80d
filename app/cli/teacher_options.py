"""The command line's options of a teacher, one for each of `EmbedderOptions`, the same for every command."""

import inspect
from collections.abc import Callable
from dataclasses import Field, fields
from functools import wraps
from typing import Annotated, Any

import typer

from index.embedders.options import EmbedderOptions


def takes_teacher_options(command: Callable[..., None]) -> Callable[..., None]:
    """Turn a command's parameter `teacher_options` into one option for each field of `EmbedderOptions`."""
    own = [
        parameter
        for parameter in inspect.signature(command).parameters.values()
        if parameter.name != "teacher_options"
    ]
    added = [_option(field) for field in fields(EmbedderOptions)]

    @wraps(command)
    def with_options(**given: Any) -> None:
        values = {field.name: given.pop(f"teacher_{field.name}") for field in fields(EmbedderOptions)}
        command(**given, teacher_options=EmbedderOptions(**values))

    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in [*own, *added]]
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_options


def _option(field: Field[Any]) -> inspect.Parameter:
    """Make the command line's option of one of `EmbedderOptions`: a number, a flag, or text that it reads."""
    flags = (field.metadata["flag"],) if field.metadata["flag"] else ()
    kinds = [kind for kind in (bool, int, float) if field.type in (kind, kind | None)]
    kind: Any = kinds[0] if kinds else str
    option = typer.Option(
        *flags, help=field.metadata["help"], rich_help_panel="The teacher, if it needs more than its name"
    )
    return inspect.Parameter(
        f"teacher_{field.name}",
        inspect.Parameter.KEYWORD_ONLY,
        default=field.default,
        annotation=Annotated[kind if field.default is not None else kind | None, option],
    )

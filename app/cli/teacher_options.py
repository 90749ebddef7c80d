"""The command line's options of a teacher, one for each of `EmbedderOptions`, the same for every command."""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from functools import wraps
from typing import Annotated, Any

import typer

from index.embedders.options import EmbedderOptions
from index.errors import UsageError

HELP = {
    "model": "Of an endpoint: the model's name.",
    "dialect": "Of an endpoint: infinity, jina or multipart.",
    "batch": "Of an endpoint or a Python object: images a call.",
    "concurrency": "Of an endpoint: calls at a time.",
    "timeout": "Of an endpoint: seconds for one answer.",
    "rate": "Of an endpoint or a Python object: images a second at most.",
    "size": "Of an ONNX file: input side in pixels.",
    "mean": "Of an ONNX file: mean of red,green,blue between 0 and 1.",
    "std": "Of an ONNX file: deviation of red,green,blue.",
    "layout": "Of an ONNX file: nchw or nhwc.",
    "resize": "Of an ONNX file: squash, or crop the middle square.",
    "output": "Of an ONNX file: which output is the vector.",
    "allow_missing": "Of a file of vectors: go on without the images that it lacks.",
}
TYPES: dict[str, type] = {
    "batch": int,
    "concurrency": int,
    "timeout": float,
    "rate": float,
    "size": int,
    "allow_missing": bool,
}
FLAGS = {"allow_missing": ("--allow-missing",)}  # not named `--teacher-...`


def takes_teacher_options(command: Callable[..., None]) -> Callable[..., None]:
    """Turn a command's parameter `teacher_options` into one option for each field of `EmbedderOptions`."""
    own = [
        parameter
        for parameter in inspect.signature(command).parameters.values()
        if parameter.name != "teacher_options"
    ]
    added = [_option(field.name, field.default) for field in fields(EmbedderOptions)]

    @wraps(command)
    def with_options(**given: Any) -> None:
        values = {name: given.pop(f"teacher_{name}") for name in HELP}
        for name in ("mean", "std"):
            values[name] = _numbers(name, values[name])
        command(**given, teacher_options=EmbedderOptions(**values))

    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in [*own, *added]]
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_options


def _option(name: str, default: Any) -> inspect.Parameter:
    assert default is not MISSING
    kind: Any = TYPES.get(name, str)
    option = typer.Option(
        *FLAGS.get(name, ()), help=HELP[name], rich_help_panel="The teacher, if it needs more than its name"
    )
    return inspect.Parameter(
        f"teacher_{name}",
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind if default is not None else kind | None, option],
    )


def _numbers(name: str, text: str | None) -> tuple[float, ...] | None:
    try:
        return tuple(float(part) for part in text.split(",")) if text else None
    except ValueError:
        raise UsageError(f"--teacher-{name} takes three numbers, as in 0.5,0.5,0.5, not {text!r}.") from None

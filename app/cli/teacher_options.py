"""The teacher on the command line: one option for all that its name does not say."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from index.embedders.options import HELP, EmbedderOptions
from index.errors import UsageError

if TYPE_CHECKING:
    from index.rankers.registry import RankerSpec
    from index.teachers.spec import TeacherSpec, TextSpec


def _print_help(options: list[str] | None) -> list[str] | None:
    if "help" in (options or ()):
        typer.echo("\n".join(f"{name:14} {text}" for name, text in HELP.items()))
        raise typer.Exit
    return options


TeacherOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--teacher-option",
        metavar="KEY=VALUE",
        help="An option of the teacher, such as batch=64; `help` lists them. May repeat.",
        show_default=False,
        callback=_print_help,
        is_eager=True,
    ),
]
LONG = "--teacher-"


def describe_teacher(
    name: str | None, options: Sequence[str] | None, ledger: Path | None, budget: int
) -> "TeacherSpec":
    """Read what a command line says of a teacher; UsageError for an option that there is not."""
    from index.teachers.spec import TeacherSpec

    return TeacherSpec(name, read_options(options), ledger, budget)


def describe_either(
    teacher: str | None,
    ranker: str | None,
    options: Sequence[str] | None,
    ledger: Path | None,
    budget: int,
    modes: Sequence[str] | None = None,
) -> "tuple[TeacherSpec, RankerSpec | None]":
    """As `describe_teacher`, or of a ranker in its place; UsageError for both, or with nothing left to do."""
    from index.rankers.registry import RankerSpec

    if not ranker:
        return describe_teacher(teacher, options, ledger, budget), None
    if teacher:
        raise UsageError("--teacher and --ranker do not go together. Give one of them.")
    if modes and "rerank" not in modes:
        raise UsageError("--ranker orders what the student found. Give --mode rerank.")
    described = RankerSpec(ranker, read_options(options), ledger, budget)
    return describe_teacher(None, None, ledger, budget), described


def describe_text(
    name: str | None, tokenizer: Path | None, options: Sequence[str] | None, ledger: Path | None, budget: int
) -> "TextSpec | None":
    """Read what a command line says of a teacher's text model, if any; UsageError if a part stands alone.

    Its ledger lies beside that of the images.
    """
    from index.teachers.spec import TextSpec

    if name is None:
        if options:
            raise UsageError("--text-option is of a text model. Give --text-teacher.")
        return None
    beside = ledger and ledger.with_name(f"{ledger.stem}.texts{ledger.suffix}")
    return TextSpec(name, read_options(options, "--text-option"), beside, budget, tokenizer=tokenizer)


def read_options(options: Sequence[str] | None, flag: str = "--teacher-option") -> EmbedderOptions:
    """Read KEY=VALUE; UsageError for what is none, or an option that there is not."""
    values: dict[str, Any] = {}
    for option in options or ():
        key, equals, text = option.partition("=")
        if not equals:
            raise UsageError(f"{flag} takes KEY=VALUE, not {option!r}. Keys: {', '.join(HELP)}.")
        if key not in HELP:
            raise UsageError(f"{flag} has no key {key!r}. Keys: {', '.join(HELP)}.")
        values[key] = text
    return EmbedderOptions(**values)


def shorten(args: Sequence[str]) -> list[str]:
    """Turn the long forms, such as `--teacher-batch 64`, into `--teacher-option batch=64`."""
    short: list[str] = []
    rest = iter(args)
    for arg in rest:
        flag, equals, text = arg.partition("=")
        key = flag.removeprefix(LONG)
        if arg == "--":
            return [*short, arg, *rest]
        if arg == "--allow-missing":
            short += ["--teacher-option", "allow_missing=true"]
        elif flag.startswith(LONG) and key in HELP and (equals or (text := next(rest, "")) != ""):
            short += ["--teacher-option", f"{key}={text}"]
        else:
            short.append(arg)
    return short

"""Options and arguments that several commands share, and what is made of those that tell of a teacher."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from index.embedders.options import HELP, EmbedderOptions
from index.errors import UsageError

if TYPE_CHECKING:
    from index.rankers.registry import RankerSpec
    from index.teachers.spec import TeacherSpec, TextSpec


Several = list[str] | None  # what may be given again and again


def option(text: str, default: str | bool = True, **more: Any) -> Any:
    """Describe an option, and its default where the value itself does not tell; `more` is Typer's."""
    return typer.Option(help=text, show_default=default, **more)


TEACHERS = "ONNX file, http(s) address, .npz or .parquet of vectors, module:callable or model.py:callable."
SOURCES = "Folders of images, image files, .txt or .parquet lists, .tar shards; or addresses: s3://..."
Images = Annotated[list[str], typer.Argument(help=SOURCES)]
IndexFolder = Annotated[Path, typer.Argument(help="An index folder.")]
Gallery = Annotated[str, typer.Argument(help="An index folder, or milvus://HOST:19530/COLLECTION.")]
Student = Annotated[
    Path | None, option("The student's ONNX file, for a Milvus collection that another machine wrote.")
]
Exclude = Annotated[
    Several, option("Names to leave out of folders, shards and lists, as '*_small.jpg'. May repeat.")
]
Weights = Annotated[
    str, option("The network's: auto (ImageNet), none (random), or a .pth or .safetensors file.")
]
Steps = Annotated[int | None, option("Training steps.", "by the number of images")]
Seed = Annotated[int, option("Random seed.")]
Device = Annotated[str, option("auto, cpu or cuda.")]
Teacher = Annotated[str | None, option("The teacher, if it is not a file or has moved.")]
Ranker = Annotated[str | None, option("Orders 50 results in mode rerank; see judge.", False)]
Paid = Annotated[int, option("Most answers to pay for, ever.")]
Title = Annotated[str, option("Column of the metadata that names photos.", "file name")]
Link = Annotated[str, option("Column with the address that a photo leads to.", "none")]
TEXT_TEACHER = "The teacher's text model, to search by words: ONNX file or http(s) address."
TextTeacher = Annotated[str | None, option(TEXT_TEACHER, envvar="RETRIEVAL_TEXT_TEACHER")]
Tokenizer = Annotated[
    Path | None,
    option("tokenizer.json of --text-teacher, if that is an ONNX file.", envvar="RETRIEVAL_TOKENIZER"),
]
TextOptions = Annotated[
    Several, option("An option of the text model, such as output=NAME. May repeat.", metavar="KEY=VALUE")
]
LedgerFile = Annotated[Path | None, option("File of paid answers.", "in the cache folder")]
Price = Annotated[float | None, option("Price of a thousand teacher calls, in your currency.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what it will cost, and send nothing.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def _print_help(options: list[str] | None) -> list[str] | None:
    if "help" in (options or ()):
        typer.echo("\n".join(f"{name:14} {text}" for name, text in HELP.items()))
        raise typer.Exit
    return options


TEACHER_OPTION = "An option of the teacher, such as batch=64; `help` lists them. May repeat."
TeacherOptions = Annotated[
    Several, option(TEACHER_OPTION, False, metavar="KEY=VALUE", callback=_print_help, is_eager=True)
]


def describe_either(
    teacher: str | None,
    ranker: str | None,
    options: Sequence[str] | None,
    ledger: Path | None,
    budget: int,
    modes: Sequence[str] | None = None,
) -> "tuple[TeacherSpec, RankerSpec | None]":
    """Describe a teacher, or a ranker in its place; UsageError for both, or with nothing left to do."""
    from index.rankers.registry import RankerSpec
    from index.teachers.spec import TeacherSpec

    read = read_options(options)
    if not ranker:
        return TeacherSpec(teacher, read, ledger, budget), None
    if teacher:
        raise UsageError("--teacher and --ranker do not go together. Give one of them.")
    if modes and "rerank" not in modes:
        raise UsageError("--ranker orders what the student found. Give --mode rerank.")
    return TeacherSpec(None, ledger=ledger, budget=budget), RankerSpec(ranker, read, ledger, budget)


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
        key = flag.removeprefix("--teacher-")
        if arg == "--":
            return [*short, arg, *rest]
        if arg == "--allow-missing":
            short += ["--teacher-option", "allow_missing=true"]
        elif flag.startswith("--teacher-") and key in HELP and (equals or (text := next(rest, "")) != ""):
            short += ["--teacher-option", f"{key}={text}"]
        else:
            short.append(arg)
    return short

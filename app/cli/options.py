"""Options and arguments that several commands share."""

from pathlib import Path
from typing import Annotated, Any

import typer


def option(text: str, default: str | bool = True) -> Any:
    """Describe an option, and its default where the value itself does not tell."""
    return typer.Option(help=text, show_default=default)


TEACHERS = "ONNX file, http(s) address, .npz or .parquet of vectors, module:callable or model.py:callable."
SOURCES = "Folders of images, image files, .txt or .parquet lists, .tar shards; or addresses: s3://..."
Images = Annotated[list[str], typer.Argument(help=SOURCES)]
IndexFolder = Annotated[Path, typer.Argument(help="An index folder.")]
Gallery = Annotated[str, typer.Argument(help="An index folder, or milvus://HOST:19530/COLLECTION.")]
Student = Annotated[
    Path | None,
    typer.Option(
        "--model", help="The student's ONNX file, for a Milvus collection that another machine wrote."
    ),
]
Exclude = Annotated[
    list[str] | None, option("Names to leave out of folders, shards and lists, as '*_small.jpg'. May repeat.")
]
Weights = Annotated[str, option("auto, none, or a .pth or .safetensors file.")]
Steps = Annotated[int | None, option("Training steps.", "by the number of images")]
Seed = Annotated[int, option("Random seed.")]
Device = Annotated[str, option("auto, cpu or cuda.")]
Teacher = Annotated[str | None, option("Teacher, if it is no file or has moved.")]
Ranker = Annotated[str | None, option("Orders 50 results in mode rerank, as of `judge`.", False)]
Paid = Annotated[int, typer.Option("--budget", help="Most answers to pay for, ever.")]
TextTeacher = Annotated[
    str | None,
    typer.Option(
        envvar="RETRIEVAL_TEXT_TEACHER",
        help="The teacher's text model, to search by words: ONNX file or http(s) address.",
    ),
]
Tokenizer = Annotated[
    Path | None, typer.Option(envvar="RETRIEVAL_TOKENIZER", help="tokenizer.json of that ONNX file.")
]
TextOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--text-option",
        metavar="KEY=VALUE",
        help="An option of the text model, as --teacher-option. May repeat.",
    ),
]
LedgerFile = Annotated[Path | None, option("File of paid answers.", "in the cache folder")]
Price = Annotated[float | None, option("Price of a thousand teacher calls, in your currency.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what it will cost, and send nothing.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

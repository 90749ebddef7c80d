"""Options and arguments that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

TEACHERS = "ONNX file, http(s) address, .npz or .parquet of vectors, module:callable or model.py:callable."
SOURCES = "Folders of images, image files, .txt or .parquet lists, .tar shards; or addresses: s3://..."
Images = Annotated[list[str], typer.Argument(help=SOURCES, show_default=False)]
IndexFolder = Annotated[Path, typer.Argument(help="An index folder.", show_default=False)]
Gallery = Annotated[
    str, typer.Argument(help="An index folder, or milvus://HOST:19530/COLLECTION.", show_default=False)
]
Student = Annotated[
    Path | None,
    typer.Option(
        "--model",
        help="The student's ONNX file, for a Milvus collection that another machine wrote.",
        show_default=False,
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        help="Names to leave out of folders, shards and lists, as '*_small.jpg'. May repeat.",
        show_default=False,
    ),
]
Weights = Annotated[str, typer.Option(help="auto, none, or a .pth or .safetensors file.")]
Steps = Annotated[int | None, typer.Option(help="Training steps.", show_default="by the number of images")]
Seed = Annotated[int, typer.Option(help="Random seed.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Teacher = Annotated[str | None, typer.Option(help="Teacher to use, if it has moved since indexing.")]
Paid = Annotated[int, typer.Option("--budget", help="Most images to send to a paid teacher, ever.")]
TextTeacher = Annotated[
    str | None,
    typer.Option(
        envvar="RETRIEVAL_TEXT_TEACHER",
        help="The teacher's text model, to search by words: ONNX file or http(s) address.",
        show_default=False,
    ),
]
Tokenizer = Annotated[
    Path | None,
    typer.Option(envvar="RETRIEVAL_TOKENIZER", help="tokenizer.json of that ONNX file.", show_default=False),
]
TextOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--text-option",
        metavar="KEY=VALUE",
        help="An option of the text model, as --teacher-option. May repeat.",
        show_default=False,
    ),
]
LedgerFile = Annotated[
    Path | None, typer.Option(help="File of paid answers.", show_default="in the cache folder")
]
Price = Annotated[float | None, typer.Option(help="Price of a thousand teacher calls, in your currency.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what it will cost, and send nothing.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

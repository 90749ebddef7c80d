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
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Teacher = Annotated[str | None, typer.Option(help="As for distill, if it is not what or where it was.")]
Paid = Annotated[
    int, typer.Option("--budget", help="How many images a paid teacher may ever be asked about.")
]
LedgerFile = Annotated[
    Path | None, typer.Option(help="The file of paid answers.", show_default="in the cache folder")
]
Price = Annotated[float | None, typer.Option(help="What a thousand answers cost, in your money.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what it will cost, and ask nothing.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

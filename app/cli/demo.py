"""`retrieval demo`."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    images: Annotated[
        Path | None, typer.Option(help="A folder of yours.", show_default="photos that are installed")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("retrieval-demo"),
    serve: Annotated[bool, typer.Option(help="Open the page afterwards.")] = True,
    port: Annotated[int, typer.Option(help="Port of the page.")] = 7860,
) -> None:
    """Tell the whole story on sample photos: teacher, student, index, comparison, page."""
    from app.demo import run_demo

    run_demo(images, out, serve, port)

"""`retrieval demo`."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    images: Annotated[
        Path | None, typer.Option(help="A folder of your photos.", show_default="photos that are installed")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("retrieval-demo"),
    serve: Annotated[bool, typer.Option(help="Open the page afterwards.")] = True,
    port: Annotated[int, typer.Option(help="Port of the page.")] = 7860,
) -> None:
    """Try everything on sample photos (about 3 minutes)."""
    from app.demo import run_demo

    run_demo(images, out, serve, port)


EXAMPLES = {demo: "demo --images photos --no-serve"}

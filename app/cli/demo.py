"""`retrieval demo`."""

from pathlib import Path
from typing import Annotated

from app.cli.options import option


def demo(
    images: Annotated[Path | None, option("A folder of your photos.", "photos that are installed")] = None,
    out: Annotated[Path, option("Folder for everything the demo makes.")] = Path("retrieval-demo"),
    serve: Annotated[bool, option("Open the page afterwards.")] = True,
    port: Annotated[int, option("Port of the page.")] = 7860,
) -> None:
    """Try everything on sample photos (about 3 minutes)."""
    from app.demo import run_demo

    run_demo(images, out, serve, port)


EXAMPLES = {demo: "demo --images photos --no-serve"}

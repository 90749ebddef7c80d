"""`retrieval demo`."""

from pathlib import Path
from typing import Annotated

from app.cli.options import option


def demo(
    images: Annotated[Path | None, option("A folder of your photos.", "photos that are installed")] = None,
    out: Annotated[Path, option("Folder for everything the demo makes.")] = Path("retrieval-demo"),
    serve: Annotated[bool, option("Serve a page to watch it learn, and to search afterwards.")] = True,
    port: Annotated[int, option("Port of the page.")] = 7860,
) -> None:
    """Try everything on sample photos (one to three minutes)."""
    if not serve:
        from app.demo import make_demo

        make_demo(images, out)
        return
    from app.page.learning.learning import Learning
    from app.server.app import ServerOptions
    from app.server.app import serve as serve_page

    learning = Learning(images, out)
    serve_page(learning.open, ServerOptions(port=port), learning)


EXAMPLES = {demo: "demo --images photos --no-serve"}

"""`retrieval site`: search without a server."""

from pathlib import Path
from typing import Annotated

import typer

from app.cli import options as shared
from app.cli.options import option


def site(
    index: shared.IndexFolder,
    out: Annotated[Path, option("The folder to write.")],
    name: Annotated[str, option("What the page is called.", "the index")] = "",
    title: Annotated[str, option("Column of the metadata that names photos.", "file name")] = "",
    link: Annotated[str, option("Column with the address that a photo leads to.", "none")] = "",
    no_thumbnails: Annotated[
        str,
        typer.Option(
            metavar="TEMPLATE",
            help="Write no pictures: they are at this address, with {name}, {digest} or {COLUMN} filled in.",
            show_default=False,
        ),
    ] = "",
    small_only: Annotated[bool, typer.Option("--small-only", help="No pictures for the large view.")] = False,
    update: Annotated[bool, typer.Option("--update", help="Write what changed, remove the rest.")] = False,
    runtime: Annotated[
        Path | None, option("Folder with your own copy of ONNX Runtime Web.", "by npm, if needed")
    ] = None,
) -> None:
    """Write a static folder that searches in the visitor's browser."""
    from app.site.build import SiteOptions, build_site_by_name

    options = SiteOptions(name, title, link, no_thumbnails, not small_only, runtime, update)
    typer.echo(build_site_by_name(index, out, options))


EXAMPLES = {site: "site idx --out site --name 'Our shop' --title title --link url"}

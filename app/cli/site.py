"""`retrieval site`: search without a server."""

from pathlib import Path
from typing import Annotated

import typer

from app.cli.options import IndexFolder


def site(
    index: IndexFolder,
    out: Annotated[Path, typer.Option(help="The folder to write.", show_default=False)],
    name: Annotated[str, typer.Option(help="What the page is called.", show_default="the index")] = "",
    title: Annotated[
        str,
        typer.Option(help="Column of the metadata that names photos.", show_default="file name"),
    ] = "",
    link: Annotated[
        str, typer.Option(help="Column with the address that a photo leads to.", show_default="none")
    ] = "",
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
        Path | None,
        typer.Option(help="Folder with your own copy of ONNX Runtime Web.", show_default="by npm, if needed"),
    ] = None,
) -> None:
    """Write a static folder that searches in the visitor's browser."""
    from app.site.build import SiteOptions, build_site_by_name

    options = SiteOptions(name, title, link, no_thumbnails, not small_only, runtime, update)
    typer.echo(build_site_by_name(index, out, options))


EXAMPLES = {site: "site idx --out site --name 'Our shop' --title title --link url"}

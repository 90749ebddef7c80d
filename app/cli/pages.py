"""Commands that give a page to look at: `demo`, `serve`, `site`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from app.cli import options as shared
from app.cli.options import Several, describe_either, describe_text, option
from index.errors import UsageError

AUTH = (
    "user:password that every request must bring. Better set the environment variable: other users of this "
    "machine can see command lines."
)
ORIGIN = "Let pages of this origin, as https://shop.example, use /widget.js. May repeat."
FETCH = (
    "Allow the page to load images from addresses that start with this; with ? at its end, also with "
    "parameters. May repeat."
)
LOCAL = "Offer a page at local/ whose search runs in the visitor's browser."
ELSEWHERE = "Write no pictures: they are at this address, with {name}, {digest} or {COLUMN} filled in."


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


def serve(
    index: shared.Gallery,
    model: shared.Student = None,
    teacher: shared.Teacher = None,
    ranker: shared.Ranker = None,
    teacher_option: shared.TeacherOptions = None,
    text_teacher: shared.TextTeacher = None,
    tokenizer: shared.Tokenizer = None,
    text_option: shared.TextOptions = None,
    budget: shared.Paid = 0,
    ledger: shared.LedgerFile = None,
    host: Annotated[str, option("Address to serve on.")] = "127.0.0.1",
    port: Annotated[int, option("Port; 0 takes a free one.")] = 7860,
    auth: Annotated[str, option(AUTH, "none", envvar="RETRIEVAL_AUTH")] = "",
    queries: Annotated[Path | None, option("CSV file with path,label of queries, for the report.")] = None,
    labels: Annotated[Path | None, option("CSV file with path,label of the indexed images.")] = None,
    title: shared.Title = "",
    caption: Annotated[str, option("Column that stands below the name, such as the price.", "none")] = "",
    link: shared.Link = "",
    shop: Annotated[
        bool, typer.Option("--shop", help="Show the search with the student alone, and no comparison.")
    ] = False,
    origin: Annotated[Several, option(ORIGIN, "none")] = None,
    max_upload_mb: Annotated[float, option("Largest request, in MB.")] = 50.0,
    price: shared.Price = None,
    fetch: Annotated[Several, option(FETCH, "nowhere")] = None,
    mcp: Annotated[bool, typer.Option("--mcp", help="Be an MCP server too, at /mcp.")] = False,
    local: Annotated[bool, typer.Option("--local", help=LOCAL)] = False,
    root_path: Annotated[str, option("Path at which a proxy shows the server, as /photos.", "none")] = "",
    device: shared.Device = "auto",
) -> None:
    """Serve the page and the API."""
    from app.server.app import ServerOptions
    from app.server.app import serve as serve_page
    from app.server.labels import Labels
    from index.search import open_searcher

    if auth and "RETRIEVAL_AUTH" not in os.environ:
        typer.echo("Other users of this machine can see --auth. Better set RETRIEVAL_AUTH.", err=True)
    if (queries is None) != (labels is None):
        raise UsageError("--queries and --labels go together: give both CSV files.")
    if shop and (teacher or ranker or queries):
        raise UsageError("--shop serves the student alone. Leave out --teacher, --ranker and --queries.")
    labelled = (queries, labels) if queries and labels else None
    options = ServerOptions(
        host, port, auth, max_upload_mb, mcp, price, root_path, labelled,
        Labels(title, caption, link), local, shop, tuple(origin or ()),
    )  # fmt: skip
    spec, judge = describe_either(teacher, ranker, teacher_option, ledger, budget)
    text = describe_text(text_teacher, tokenizer, text_option, ledger, budget)
    serve_page(lambda: open_searcher(index, spec, device, not shop, model, fetch or (), text, judge), options)


def site(
    index: shared.IndexFolder,
    out: Annotated[Path, option("The folder to write.")],
    name: Annotated[str, option("What the page is called.", "the index")] = "",
    title: shared.Title = "",
    link: shared.Link = "",
    no_thumbnails: Annotated[str, option(ELSEWHERE, False, metavar="TEMPLATE")] = "",
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


EXAMPLES = {
    demo: "demo --images photos --no-serve",
    serve: "serve idx --price 1.20",
    site: "site idx --out site --name 'Our shop' --title title --link url",
}

"""`retrieval serve`."""

import os
from typing import Annotated

import typer

from app.cli.options import (
    Device,
    Gallery,
    LedgerFile,
    Paid,
    Price,
    Student,
    Teacher,
    TextOptions,
    TextTeacher,
    Tokenizer,
)
from app.cli.teacher_options import TeacherOptions, describe_teacher, describe_text


def serve(
    index: Gallery,
    model: Student = None,
    teacher: Teacher = None,
    teacher_option: TeacherOptions = None,
    text_teacher: TextTeacher = None,
    tokenizer: Tokenizer = None,
    text_option: TextOptions = None,
    budget: Paid = 0,
    ledger: LedgerFile = None,
    host: Annotated[str, typer.Option(help="Address to serve on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 7860,
    auth: Annotated[
        str,
        typer.Option(
            envvar="RETRIEVAL_AUTH",
            help="user:password that every request must bring. Better set the environment variable: other "
            "users of this machine can see command lines.",
            show_default="none",
        ),
    ] = "",
    max_upload_mb: Annotated[float, typer.Option(help="Largest request, in MB.")] = 50.0,
    price: Price = None,
    fetch: Annotated[
        list[str] | None,
        typer.Option(
            help="Allow the page to load images from addresses that start with this; with ? at its end, also "
            "with parameters. May repeat.",
            show_default="nowhere",
        ),
    ] = None,
    mcp: Annotated[bool, typer.Option("--mcp", help="Be an MCP server too, at /mcp.")] = False,
    root_path: Annotated[
        str, typer.Option(help="Path at which a proxy shows the server, as /photos.", show_default="none")
    ] = "",
    device: Device = "auto",
) -> None:
    """Serve the page and the API."""
    from app.server.app import ServerOptions
    from app.server.app import serve as serve_page
    from index.search import open_searcher

    if auth and "RETRIEVAL_AUTH" not in os.environ:
        typer.echo("Other users of this machine can see --auth. Better set RETRIEVAL_AUTH.", err=True)
    options = ServerOptions(host, port, auth, max_upload_mb, mcp, price, root_path)
    spec = describe_teacher(teacher, teacher_option, ledger, budget)
    text = describe_text(text_teacher, tokenizer, text_option, ledger, budget)
    serve_page(
        lambda: open_searcher(index, spec, device, model=model, allowed=fetch or (), text=text), options
    )


EXAMPLES = {serve: "serve idx --price 1.20"}

"""The `retrieval` command: each command reads its options and calls one function."""

from typing import Annotated

import typer

from app.cli import demo, distill, index, ledger, search, serve
from app.cli.groups import OneLine
from index.progress import show_lines

app = typer.Typer(
    cls=OneLine, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Distil a compact image embedder from few queries to a heavy one, and search with it.",
)  # fmt: skip


@app.callback()
def options(debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False) -> None:
    """Options that come before the command."""
    show_lines()


for command in (
    distill.export,
    distill.distill,
    distill.quantize,
    search.search,
    search.evaluate,
    serve.serve,
    demo.demo,
):
    app.command()(command)
app.add_typer(index.indexes, name="index")
app.add_typer(ledger.ledgers, name="ledger")


def main() -> None:
    """Entry point of the console script."""
    app(prog_name="retrieval")

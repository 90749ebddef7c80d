"""The `retrieval` command: each command reads its options and calls one function."""

from typing import Annotated

import typer

from app.cli import distill, index, ledger, pages, search
from app.cli.groups import OneLine

app = typer.Typer(
    cls=OneLine, no_args_is_help=True, add_completion=False,
    pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Train a small image-search model from a few hundred calls to a big one, and search with it.",
)  # fmt: skip


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("retrieval"))
        raise typer.Exit


@app.callback()
def read_common(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Read the options that come before the command."""
    from index.progress import show_lines

    show_lines()


for module in (distill, pages, search):
    for command, example in module.EXAMPLES.items():
        app.command(epilog=f"Example: retrieval {example}")(command)
app.add_typer(index.indexes, name="index")
app.add_typer(ledger.ledgers, name="ledger")


def main() -> None:
    """Run the console script."""
    app(prog_name="retrieval")

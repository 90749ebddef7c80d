"""Groups of commands: errors as one line on stderr, and a command that need not be named."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from index.errors import RetrievalError
from index.progress import printable

USAGE_ERROR: Any = typer.BadParameter.__base__  # Click's, which Typer keeps to itself


class OneLine(TyperGroup):
    """Turns errors into one line: exit code 2 for a wrong request, 1 for failed work."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read what stands before the command."""
        with _in_one_line(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with _in_one_line(ctx):
            return super().invoke(ctx)


class BuildsByDefault(TyperGroup):
    """A group whose word `build` may be left out, for it is what one does all the time."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `build` in its place."""
        named = bool(args) and args[0] in self.commands
        return super().parse_args(ctx, args if named else ["build", *(args or ["--help"])])


@contextmanager
def _in_one_line(ctx: Any) -> Iterator[None]:
    try:
        yield
    except USAGE_ERROR as error:
        command, message = (error.ctx or ctx).command_path, error.format_message()
        if "\n" in message:  # the help, where nothing was asked for
            raise
        typer.echo(f"retrieval: {printable(message.rstrip('.'))}. See {command} --help.", err=True)
        raise typer.Exit(2) from error
    except (RetrievalError, OSError) as error:
        if ctx.params.get("debug"):
            raise
        line = " ".join(str(error).split())
        typer.echo(f"retrieval: {printable(line)}", err=True)
        raise typer.Exit(getattr(error, "exit_code", 1)) from error

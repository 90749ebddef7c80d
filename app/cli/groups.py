"""Groups of commands: errors as one line on stderr, and a command that need not be named."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from app.cli.options import shorten
from index.errors import RetrievalError

USAGE_ERROR: Any = typer.BadParameter.__base__  # Click's, which Typer keeps to itself
ORDER = (
    "demo distill index search serve site evaluate duplicates upgrade judge export quantize ledger".split()
)  # of use
TYPES = re.compile(r"Input should be a valid (integer|number)\b.*")  # what Typer says of a value
WANTED = {"integer": "give a whole number", "number": "give a number"}


class OneLine(TyperGroup):
    """Turns errors into one line: exit code 2 for a wrong request, 1 for failed work."""

    def list_commands(self, ctx: Any) -> list[str]:
        """List the commands in the order of use."""
        return sorted(self.commands, key=ORDER.index)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read what stands before the command."""
        with _in_one_line(ctx):
            return super().parse_args(ctx, shorten(args))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find a command; of one that a group has, say which."""
        if args[0] not in self.commands:
            groups = [
                name for name, each in self.commands.items() if args[0] in getattr(each, "commands", ())
            ]
            if groups:
                meant = " or ".join(f"retrieval {name} {args[0]}" for name in groups)
                raise USAGE_ERROR(f"No such command {args[0]!r}. Did you mean {meant}?", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with _in_one_line(ctx):
            from index.progress import notes_at_end

            with notes_at_end():
                return super().invoke(ctx)


class BuildsByDefault(TyperGroup):
    """A group in which the word `build` may be left out, for it is what one does all the time."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `build` in its place."""
        named = bool(args) and args[0] in self.commands
        return super().parse_args(ctx, args if named else ["build", *(args or ["--help"])])


class ShowsByDefault(TyperGroup):
    """A group that shows the file it is given where no command is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `show` before a file, and before options that stand alone."""
        first = next((arg for arg in args if not arg.startswith("-")), "")
        file = first not in self.commands and (Path(first).suffix or Path(first).is_file())
        alone = bool(args) and not first and "--help" not in args
        return super().parse_args(ctx, ["show", *args] if file or alone else args)


def report_faults(faults: Sequence[str]) -> None:
    """End a command that has checked something: exit code 1 where it found faults."""
    typer.echo("\n".join(faults) or "All is well.")
    raise typer.Exit(int(bool(faults)))


@contextmanager
def _in_one_line(ctx: Any) -> Iterator[None]:
    try:
        yield
    except USAGE_ERROR as error:
        named = error.ctx.command_path if error.ctx else f"{ctx.command_path} {ctx.invoked_subcommand or ''}"
        command, message = named.strip(), error.format_message()
        if type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(message, err=True)
            raise typer.Exit(2) from error
        if not message or "\n" in message:  # the help was shown, for nothing was asked for
            raise typer.Exit(2) from error
        message = TYPES.sub(lambda found: WANTED[found[1]], message)
        end = "" if message.endswith("?") else "."
        _say(f"{message.rstrip('.')}{end} See {command} --help.")
        raise typer.Exit(2) from error
    except (RetrievalError, OSError) as error:
        if ctx.params.get("debug"):
            raise
        _say(" ".join(str(error).split()))
        raise typer.Exit(getattr(error, "exit_code", 1)) from error


def _say(line: str) -> None:
    from index.progress import printable

    typer.echo(f"retrieval: {printable(line)}", err=True)

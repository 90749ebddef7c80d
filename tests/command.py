"""The command `retrieval`, called in this process: what a start of Python costs, most tests need not pay."""

from dataclasses import dataclass

from typer.testing import CliRunner

from app.cli import app


@dataclass(frozen=True)
class Done:
    """What a call left, as `subprocess.CompletedProcess` has it."""

    returncode: int
    stdout: str
    stderr: str


def retrieval(*arguments: object) -> Done:
    """Call the command; what it raised is raised."""
    done = CliRunner().invoke(app, list(map(str, arguments)), prog_name="retrieval")
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Done(done.exit_code, done.stdout, done.stderr)


def refused(*arguments: object, code: int = 2) -> str:
    """Call a command that must fail with one line on stderr; return the line."""
    return refused_line(retrieval(*arguments), code)


def refused_line(done: Done, code: int = 2) -> str:
    """The one line on stderr of a command that failed."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("retrieval: ")]
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert len(lines) == 1
    assert done.stdout == ""
    return lines[0]

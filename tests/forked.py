"""Processes forked from one that has imported the server: that takes seconds, and few tests are about it."""

import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import TimeoutExpired

FORKS = multiprocessing.get_context("forkserver")
PRELOAD = ["app.server.app"]  # and what files of tests name as FORKED: set before the first fork of all


class Forked:
    """Calls a function of a module; what is asked of it is asked as of `subprocess.Popen`."""

    def __init__(self, call: Callable[..., object], *arguments: object, **environment: str) -> None:
        read, write = FORKS.Pipe(duplex=False)
        given = call, list(map(str, arguments)), Path.cwd(), os.environ | environment, write
        self._process = FORKS.Process(target=_run, args=given, daemon=True)
        self._process.start()
        write.close()
        self.stdout = os.fdopen(os.dup(read.fileno()))
        self.kill, self.terminate = self._process.kill, self._process.terminate

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        return self._process.exitcode

    def wait(self, seconds: float) -> int:
        """Wait for its end."""
        self._process.join(seconds)
        if self._process.exitcode is None:
            raise TimeoutExpired("a forked process", seconds)
        return self._process.exitcode


def command(arguments: list[str]) -> None:
    """Call the command `retrieval`."""
    from app.cli import main

    sys.argv = ["retrieval", *arguments]
    main()


def _run(call: Callable[..., object], arguments: list[str], folder: Path, environment: dict, out) -> None:
    os.dup2(out.fileno(), sys.stdout.fileno())
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    call(arguments)

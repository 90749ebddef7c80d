"""What the benchmarks of sites share: a file server that counts, and rows of a table."""

import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import sleep
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from page_tools import CHROMIUM, FLAGS

FOUND = ".search[data-state=found]:not([aria-busy]) .card"
OPEN = (
    "async base => { const {open} = await import(base + 'retrieval-search.js');"
    "window.gallery = await open(base); await gallery.ready(); }"
)
SPEED, DELAY = 10e6 / 8, 0.04  # bytes a second of the slow line, and seconds before an answer


class Counting(SimpleHTTPRequestHandler):
    """A file server that counts bytes, and sends them as slowly as is wanted, all together."""

    sent, files, slow, busy = 0, 0, False, threading.Lock()

    def copyfile(self, source: Any, outputfile: Any) -> None:
        """Send a file."""
        Counting.files += 1
        if Counting.slow:
            sleep(DELAY)
        while data := source.read(1 << 15):
            Counting.sent += len(data)
            if Counting.slow:
                with Counting.busy:
                    sleep(len(data) / SPEED)
            outputfile.write(data)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


def serve(folder: Path) -> str:
    """Serve a folder, and return its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Counting, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/"


def open_browser(playwright: Any) -> Any:
    """Start Chromium."""
    return playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)


def processes() -> set[int]:
    """What this one has started."""
    return {each.pid for each in psutil.Process().children(recursive=True)}


def megabytes(before: set[int]) -> str:
    """Resident memory of the largest process that has come since, which is that of a new tab."""
    return f"{max(psutil.Process(pid).memory_info().rss for pid in processes() - before) / 1e6:.0f} MB"


def row(what: str, value: str) -> None:
    """Print a row of the table."""
    print(f"| {what} | {value} |", flush=True)

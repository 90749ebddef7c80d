"""A web server for the tests that read from one."""

import re
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Site:
    """A web server with ranges of bytes, that counts what it is asked for.

    Attributes:
        files: What it serves, by path.
        ranges: Whether it knows ranges.
        lengths: Whether it tells how long files are.
        heads: Whether HEAD is told how long files are; else that they are empty.
        silence: Seconds before each answer.
        busy: The next answers, in place of files: status and headers.
        asked: Method, path and range of each request.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.ranges, self.asked = True, list[tuple[str, str, str]]()
        self.lengths, self.busy = True, list[tuple[int, dict[str, str]]]()
        self.heads, self.silence = True, 0.0
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wanted = self.headers.get("Range", "")
                site.asked.append((self.command, self.path, wanted))
                data = site.files.get(self.path)
                threading.Event().wait(site.silence)
                if site.busy:
                    status, headers = site.busy.pop(0)
                    self.send_response(status)
                    length = {} if "Transfer-Encoding" in headers else {"Content-Length": "0"}
                    for name, value in (length | headers).items():
                        self.send_header(name, value)
                    self.end_headers()
                    return
                if data is None:
                    self.send_error(404)
                    return
                whole = len(data)
                span = re.fullmatch(r"bytes=(\d+)-(\d+)", wanted) if site.ranges else None
                self.send_response(206 if span else 200)
                if span:
                    first, last = int(span[1]), min(int(span[2]), whole - 1)
                    data = data[first : last + 1]
                    self.send_header("Content-Range", f"bytes {first}-{last}/{whole}")
                if site.lengths:
                    told = len(data) if site.heads or self.command == "GET" else 0
                    self.send_header("Content-Length", str(told))
                self.send_header("ETag", f'"{hash(site.files[self.path])}"')
                self.end_headers()
                if self.command == "GET":
                    with suppress(ConnectionError):  # who has enough goes
                        self.wfile.write(data)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=[0.01], daemon=True).start()

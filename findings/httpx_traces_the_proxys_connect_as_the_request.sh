#!/usr/bin/env bash
# httpx hands the trace extension of a request on to httpcore, which uses it for the CONNECT that it first sends to a
# proxy, too, under the same event names. Where the proxy refuses, "send_request_body.complete" is told though the server
# never saw a byte. Code that takes that event for "the server may have begun to work" is wrong behind a proxy; the method
# of the request in "send_request_body.started" tells the two apart.
# Seen with httpx 0.28.1 and httpcore 1.0.9.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install --quiet httpx==0.28.1 httpcore==1.0.9
"$tmp/venv/bin/python" - <<'P' | tee "$tmp/said"
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpcore
import httpx


class Refusing(BaseHTTPRequestHandler):
    def do_CONNECT(self):
        self.send_error(403)

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Refusing)
threading.Thread(target=server.serve_forever, daemon=True).start()
told = []


def note(event, info):
    if event.endswith("send_request_body.started"):
        told.append(f"started {info['request'].method.decode()}")
    if event.endswith("send_request_body.complete"):
        told.append("complete")


print("httpx", httpx.__version__, "httpcore", httpcore.__version__)
with httpx.Client(proxy=f"http://127.0.0.1:{server.server_port}") as client:
    try:
        client.post("https://host.invalid/", content=b"body", extensions={"trace": note})
    except httpx.ProxyError as error:
        print("ProxyError", error)
print(told)
P
grep -q "ProxyError 403 Forbidden" "$tmp/said"
grep -qF "['started CONNECT', 'complete']" "$tmp/said"

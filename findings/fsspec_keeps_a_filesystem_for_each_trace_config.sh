#!/usr/bin/env bash
# fsspec keeps one file system for equal arguments, and tells arguments apart by their text. An aiohttp.TraceConfig (to
# watch redirects, say) has a text that holds its address, so a program that makes one for every call to url_to_fs gets
# another HTTPFileSystem each time, with a session of its own, and all of them are kept for ever: no connection is used
# again. One TraceConfig for all calls gives one file system.
# Seen with fsspec 2026.9.0 and aiohttp 3.14.5.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install --quiet fsspec==2026.9.0 aiohttp==3.14.5
"$tmp/venv/bin/python" - <<'P' | tee "$tmp/said"
import aiohttp
import fsspec
from fsspec.core import url_to_fs
from fsspec.implementations.http import HTTPFileSystem


def open_one(trace):
    return url_to_fs("http://127.0.0.1/a.png", client_kwargs={"trace_configs": [trace]})[0]


print("fsspec", fsspec.__version__, "aiohttp", aiohttp.__version__)
fresh = {id(open_one(aiohttp.TraceConfig())) for _ in range(50)}
kept = len(HTTPFileSystem._cache)
trace = aiohttp.TraceConfig()
shared = {id(open_one(trace)) for _ in range(50)}
print(f"50 calls: a trace config each {len(fresh)} file systems, {kept} kept; one for all {len(shared)}")
P
grep -q "50 calls: a trace config each 50 file systems, 50 kept; one for all 1" "$tmp/said"

#!/usr/bin/env bash
# Gradio numbers the parts of a page by a counter of the process, not of the page: the same Blocks built a second time
# have other numbers. A page that is open when a server replaces its Blocks in place (data that was written again) names
# parts by the old ones, and what it calls, as /component_server, ends in KeyError. `Context.id = 0` before each build
# makes them equal; `gr.Blocks` neither does so nor tells of it.
# Seen with gradio 6.31.0 (gradio/blocks.py, Block.__init__; gradio/context.py).
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install --quiet gradio==6.31.0
GRADIO_ANALYTICS_ENABLED=False "$tmp/venv/bin/python" -W ignore - <<'P'
import sys

import gradio as gr
from gradio.context import Context


def build() -> list[int]:
    with gr.Blocks() as page:
        gr.HTML("<p>photos</p>")
    return sorted(page.blocks)


first, second = build(), build()
Context.id = 0
third = build()
Context.id = 0
fourth = build()
print("gradio", gr.__version__)
print("built one after the other:", first, second)
print("with the counter set back:", third, fourth)
sys.exit(first == second or third != fourth)
P

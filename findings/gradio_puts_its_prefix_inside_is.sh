#!/usr/bin/env bash
# Gradio scopes the css of a page by a prefix before each selector, and takes every comma for the end of one, also
# between the brackets of :is(). `.one :is(.a, .b)` becomes `PREFIX .one :is(.a, PREFIX .b)`: the classes of the prefix
# count a second time, for .a as well, since :is() weighs as much as the heaviest of its parts, and the rule beats others
# that were written to beat it. Two rules without :is() do not have this.
# Seen with gradio 6.31.0 (its page prefixes in the browser); needs a Chromium, as `chromium` or in CHROMIUM.
set -euo pipefail
tmp=$(mktemp -d); server=; trap '[ -z "$server" ] || kill "$server"; rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install --quiet gradio==6.31.0
cat > "$tmp/page.py" <<'P'
import gradio as gr

with gr.Blocks() as page:
    gr.Markdown("photos")
css = "@media (max-width: 900px) { .one :is(.a, .b) { color: red } }"
_, address, _ = page.launch(css=css, quiet=True, prevent_thread_lock=True)
print(gr.__version__, address, flush=True)
page.block_thread()
P
GRADIO_ANALYTICS_ENABLED=False "$tmp/venv/bin/python" -W ignore "$tmp/page.py" > "$tmp/said" & server=$!
for _ in $(seq 60); do [ -s "$tmp/said" ] && break; sleep 1; done
read -r version address < "$tmp/said"
"${CHROMIUM:-chromium}" --headless --no-sandbox --user-data-dir="$tmp/browser" --virtual-time-budget=12000 \
    --dump-dom "$address" 2> /dev/null > "$tmp/dom"
echo "gradio $version"
grep -o '[^{]*:is(\.a , [^)]* \.b)[^}]*}' "$tmp/dom" | grep -F '.gradio-container' | head -1 | tee "$tmp/rule"
grep -qE ':is\(\.a , \.gradio-container[^)]* \.b\)' "$tmp/rule"

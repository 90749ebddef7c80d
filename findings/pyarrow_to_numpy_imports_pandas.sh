#!/usr/bin/env bash
# pyarrow needs no pandas, and importing it or mapping a table imports none. But the first `Array.to_numpy()`, or
# `pa.array()` of a plain list, imports pandas where it happens to be installed, to ask whether the values are its own:
# a program that only looks up rows of a mapped file pays for the whole of pandas at its first lookup, and not on a
# machine without it. A buffer that is read by `numpy.frombuffer` imports nothing.
# Seen with pyarrow 26.0.1 and pandas 3.1.1.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install --quiet pyarrow==26.0.1 pandas==3.1.1
"$tmp/venv/bin/python" - <<'P' | tee "$tmp/said"
import sys

import numpy as np
import pyarrow as pa

rows = pa.Array.from_buffers(pa.int32(), 3, [None, pa.py_buffer(np.arange(3, dtype=np.int32))])
table = pa.table({"row": rows})
print("pyarrow", pa.__version__)
print("a table is made, pandas imported:", "pandas" in sys.modules)
print("frombuffer", np.frombuffer(rows.buffers()[1], np.int32).tolist(), "imported:", "pandas" in sys.modules)
print("to_numpy", table["row"].chunk(0).to_numpy().tolist(), "imported:", "pandas" in sys.modules)
P
grep -q "a table is made, pandas imported: False" "$tmp/said"
grep -q "frombuffer \[0, 1, 2\] imported: False" "$tmp/said"
grep -q "to_numpy \[0, 1, 2\] imported: True" "$tmp/said"

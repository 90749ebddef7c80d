#!/usr/bin/env bash
# torch.save(..., pickle_protocol=4), an argument that it documents, writes a file that torch.load refuses by default:
# its weights-only reader knows no FRAME instruction, which protocols 4 and 5 begin with ("Unsupported operand 149").
# Only 2 and 3 can be read back, so a checkpoint meant for weights_only=True must keep the default protocol.
# Seen with torch 2.13.0 and 2.14.1 (torch/_weights_only_unpickler.py); saving gives no warning.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.3.5
"$tmp/venv/bin/python" -W ignore - "$tmp/state.pt" <<'P'
import sys

import torch

path, outcomes = sys.argv[1], {}
for protocol in (2, 3, 4, 5):
    torch.save({"weight": torch.zeros(2)}, path, pickle_protocol=protocol)
    try:
        outcomes[protocol] = f"read {list(torch.load(path))}"
    except Exception as error:
        reason = [line for line in str(error).splitlines() if "operand" in line]
        outcomes[protocol] = f"{type(error).__name__}: {reason[0].strip() if reason else error}"
print("torch", torch.__version__)
for protocol, outcome in outcomes.items():
    print("protocol", protocol, outcome)
read = {protocol for protocol, outcome in outcomes.items() if outcome.startswith("read")}
sys.exit(read != {2, 3})
P

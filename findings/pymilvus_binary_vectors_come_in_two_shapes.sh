#!/usr/bin/env bash
# A binary vector read with `MilvusClient.query` comes as a list of one bytes object, and the same vector read
# with `search` comes as the bytes themselves; a float vector is a list of numbers in both. Code that reads
# either answer must look at which it has: `b"".join(rows)` of a query fails, and `len(vector)` is 1.
# Seen with pymilvus 3.0.2 and the server of the package milvus 2.3.5 (v2.3.5-lite).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pymilvus==3.0.2 milvus==2.3.5 "setuptools<81"
cat > "$folder/show.py" <<'PY'
import sys
from importlib.metadata import version

from milvus import MilvusServer, MilvusServerConfig
from pymilvus import DataType, MilvusClient

code = bytes(range(8))
server = MilvusServer(MilvusServerConfig(data_dir=sys.argv[1]))
with server:
    client = MilvusClient(f"http://127.0.0.1:{server.listen_port}")
    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("code", DataType.BINARY_VECTOR, dim=64)
    client.create_collection("codes", schema=schema, consistency_level="Strong")
    index = client.prepare_index_params()
    index.add_index("code", index_type="BIN_FLAT", metric_type="HAMMING")
    client.create_index("codes", index)
    client.load_collection("codes")
    client.insert("codes", [{"id": 1, "code": code}])
    queried = client.query("codes", filter="id == 1", output_fields=["code"])[0]["code"]
    found = client.search("codes", data=[code], limit=1, output_fields=["code"])[0][0]["entity"]["code"]
print(f"pymilvus {version('pymilvus')}: query gives {queried!r}, search gives {found!r}")
assert queried == [code], "changed: a query gives something else"
assert found == code, "changed: a search gives something else"
PY
"$folder/venv/bin/python" "$folder/show.py" "$folder/data" 2>/dev/null

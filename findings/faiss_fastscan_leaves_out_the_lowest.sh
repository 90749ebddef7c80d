#!/usr/bin/env bash
# FAISS's IndexPQFastScan adds up table entries as small unsigned numbers. By inner product a result is taken only if
# its sum is above zero, and the vector with the lowest score that there can be has the sum zero: it is never
# returned, not even where k is all there are. Its place holds id -1, beside its own score. The plain
# IndexPQ with the same codebook returns it. Binary codes looked up in this way lose the exact opposite of a query.
# Seen with faiss-cpu 1.15.1.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install --quiet faiss-cpu==1.15.1 numpy
"$tmp/venv/bin/python" - <<'P' | tee "$tmp/said"
import faiss
import numpy as np

bits, parts = 64, 16
corners = np.array([[1.0 if i >> b & 1 else -1.0 for b in range(4)] for i in range(16)], np.float32)
vectors = np.stack([np.ones(bits), -np.ones(bits)]).astype(np.float32)  # a code, and its opposite
print("faiss", faiss.__version__)
for kind in (faiss.IndexPQ, faiss.IndexPQFastScan):
    index = kind(bits, parts, 4, faiss.METRIC_INNER_PRODUCT)
    faiss.copy_array_to_vector(np.tile(corners.ravel(), parts), index.pq.centroids)
    index.is_trained = True
    index.add(vectors)
    scores, ids = index.search(vectors[:1], 2)
    print(kind.__name__, "ids", ids[0].tolist(), "scores", np.round(scores[0]).astype(int).tolist())
P
grep -q "IndexPQ ids \[0, 1\] scores \[64, -64\]" "$tmp/said"
grep -q "IndexPQFastScan ids \[0, -1\] scores \[64, -64\]" "$tmp/said"

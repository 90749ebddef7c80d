#!/usr/bin/env bash
# FAISS's IndexPQFastScan scales its tables to bytes, so that the largest entries together are 255 each, and rounds. Where
# all entries are whole numbers, such as Hamming distances of four bits looked up among the 16 corners of a cube, the scale
# is 255 / 4 = 63.75 and sums of rounded entries differ for vectors at the same distance: distances come back as
# fractions, and equals in another order than by id, unlike IndexPQ with the same codebook. One more table, in which every
# code has 0 and whose largest entry is 5, makes the scale 255 / 5 = 51, a whole number: distances are exact, and with
# implem 12 equals are ordered by id.
# Seen with faiss-cpu 1.15.1.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install --quiet faiss-cpu==1.15.1 numpy
"$tmp/venv/bin/python" - <<'P' | tee "$tmp/said"
import faiss
import numpy as np

rng = np.random.default_rng(0)
codes, query = rng.integers(0, 256, (20000, 4), np.uint8), rng.integers(0, 256, (1, 4), np.uint8)
hamming = np.bitwise_count(codes ^ query).sum(axis=1)
wanted = np.lexsort((np.arange(len(codes)), hamming))[:200]  # by distance, equals by id
print("faiss", faiss.__version__)
for more in (0, 1):
    tables = 8 + more
    corners = np.zeros((tables, 16, 4), np.float32)
    corners[:8] = np.arange(16)[:, None] >> np.arange(4) & 1
    if more:
        corners[-1, 1:] = 2, 1, 0, 0  # 5 from the origin, which is the code that all have
    plain = faiss.IndexPQ(4 * tables, tables, 4)
    faiss.copy_array_to_vector(corners.ravel(), plain.pq.centroids)
    plain.is_trained = True
    plain.add_sa_codes(np.pad(codes, ((0, 0), (0, more))))
    packed = faiss.IndexPQFastScan(plain)
    packed.implem = 12
    bits = np.unpackbits(query, axis=1, bitorder="little").astype(np.float32)
    distances, ids = packed.search(np.pad(bits, ((0, 0), (0, 4 * more))), 200)
    whole = bool(np.abs(distances - np.rint(distances)).max() < 1e-4)
    print(f"tables {tables}: whole distances {whole}, ids as by Hamming and id {bool((ids[0] == wanted).all())}")
P
grep -q "tables 8: whole distances False, ids as by Hamming and id False" "$tmp/said"
grep -q "tables 9: whole distances True, ids as by Hamming and id True" "$tmp/said"

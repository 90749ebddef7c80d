"""A large ledger: size of the file against the raw vectors, and the time of one look-up."""

import argparse
import hashlib
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from index.teachers.ledger import Ledger

CHUNK = 2000


def digest(i: int) -> str:
    """A digest like that of an image: spread evenly."""
    return hashlib.blake2b(str(i).encode(), digest_size=16).hexdigest()


def main() -> None:
    """Fill a ledger, look up at random, print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--folder", type=Path, help="where to write; it is deleted afterwards")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        path = Path(name) / "ledger.sqlite"
        start = time.perf_counter()
        with Ledger(path, "benchmark") as ledger:
            for first in range(0, args.answers, CHUNK):
                names = [digest(i) for i in range(first, min(first + CHUNK, args.answers))]
                ledger.add(names, rng.standard_normal((len(names), args.dim), np.float32))
        filled = time.perf_counter() - start
        with Ledger(path, "benchmark") as ledger:
            times = []
            for i in rng.integers(0, args.answers, 2000).tolist():
                begun = time.perf_counter()
                assert len(ledger.answers([digest(i)])) == 1
                times.append(1000 * (time.perf_counter() - begun))
        raw, size = args.answers * args.dim * 4, path.stat().st_size
    print(f"{args.answers} answers of {args.dim}: {size / 1e6:.0f} MB, {size / raw - 1:+.1%} to the vectors")
    print(f"filled in {filled:.0f} s, {args.answers / filled:.0f} answers a second")
    print(f"look-up: median {median(times):.3f} ms, 99 % within {np.percentile(times, 99):.3f} ms")


if __name__ == "__main__":
    main()

"""How a real `retrieval serve` holds up: users searching together, the teacher busy or not, and its memory.

Each user sends a photo, waits for the answer, and sends the next. Prints median and 95th percentile by
mode, the searches a second, and the memory of the server before and after.
"""

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np

from index.images.sources import find_images


@contextmanager
def serving(index: Path) -> Iterator[tuple[int, str]]:
    """Run the server; yields its process id and address."""
    command = [sys.executable, "-m", "retrieval", "serve", str(index), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.pid, process.stdout.readline().strip()
    finally:
        process.send_signal(signal.SIGTERM)
        print(f"stopped with exit code {process.wait(30)}")


def memory(pid: int) -> float:
    """Resident memory of a process in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found
    return int(found[1]) / 1000


def search(address: str, mode: str, photos: list[bytes], until: float, most: int, seed: int) -> list[float]:
    """One user; the seconds of each search.

    Raises:
        httpx.HTTPStatusError: A search failed.
    """
    chooser = random.Random(seed)
    times: list[float] = []
    with httpx.Client(base_url=address, timeout=60) as http:
        while time.monotonic() < until and len(times) < most:
            start = time.perf_counter()
            answer = http.post(f"/search?mode={mode}&k=24", files={"image": chooser.choice(photos)})
            times.append(time.perf_counter() - start)
            answer.raise_for_status()
            assert answer.json()["results"]
    return times


def crowd(
    address: str, modes: dict[str, int], photos: list[bytes], seconds: float, most: int = sys.maxsize
) -> dict[str, list[float]]:
    """Many users together.

    Args:
        address: Of the server.
        modes: How many users search in which mode.
        photos: To search with.
        seconds: How long.
        most: Searches of one user, after which it stops.

    Returns:
        Seconds of each search by mode.
    """
    users = [mode for mode, count in modes.items() for _ in range(count)]
    until = time.monotonic() + seconds
    with ThreadPoolExecutor(len(users)) as pool:
        done = [pool.submit(search, address, m, photos, until, most, i) for i, m in enumerate(users)]
        times: dict[str, list[float]] = {mode: [] for mode in modes}
        for mode, one in zip(users, done, strict=True):
            times[mode] += one.result()
    return times


def report(title: str, times: dict[str, list[float]], seconds: float) -> None:
    """Print a line for each mode."""
    for mode, values in times.items():
        p50, p95 = 1000 * np.percentile(values, [50, 95])
        rate = len(values) / seconds
        print(
            f"{title:28} {mode:8} {len(values):6} searches  {rate:6.1f} a second  "
            f"p50 {p50:6.0f} ms  p95 {p95:6.0f} ms"
        )


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("index", type=Path)
    parser.add_argument("photos", type=Path, help="folder of photos to search with")
    parser.add_argument("--users", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--searches", type=int, default=2000, help="for the memory")
    args = parser.parse_args()
    files = find_images([args.photos])
    photos = [file.path.read_bytes() for file in files[:: -(-len(files) // 200)]]
    print(f"{os.cpu_count()} cores, {len(photos)} photos, {args.users} users")
    with serving(args.index) as (pid, address):
        alone = args.seconds / 6
        report("one user", crowd(address, {"student": 1}, photos, alone), alone)
        report("one user, warm", crowd(address, {"student": 1}, photos, alone), alone)
        mixed = {"student": 1, "teacher": args.users // 2}
        report("beside a busy teacher", crowd(address, mixed, photos, 2 * alone), 2 * alone)
        report(
            f"{args.users} users", crowd(address, {"student": args.users}, photos, args.seconds), args.seconds
        )
        before = memory(pid)
        each = -(-args.searches // args.users)
        times = crowd(address, {"student": args.users}, photos, 600, each)
        count = sum(map(len, times.values()))
        print(f"memory {before:.0f} MB, after {count} more searches {memory(pid):.0f} MB")


if __name__ == "__main__":
    main()

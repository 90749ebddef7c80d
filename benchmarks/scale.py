"""What a million, a hundred million and a billion images take, from figures measured here and now.

    python benchmarks/scale.py photos --model student/student.onnx --hour 0.10 --month 0.02

Reading, decoding and embedding are measured on all cores, each alone; bytes on the disk in an index of the
photos; bytes in FAISS as what twice as many vectors add. All else is multiplication.
"""

import argparse
import os
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

import faiss
import numpy as np
from indexing import choose, decode_alone, make_models_alone

from index.ahead import CORES
from index.ann import build_ann, search_exact
from index.embedder import OnnxEmbedder
from index.images import find_images
from index.pipeline import build_index
from index.store import ITEMS

COUNTS = {"1M": 10**6, "100M": 10**8, "1B": 10**9}
ROUNDS = 3
VECTORS = 20_000  # that FAISS is measured with, and half as many
FACTORIES = {"Flat": "32 bits", "SQ8": "8 bits", "PQ{half}x4fs": "2 bits", "RaBitQfs": "1 bit"}
# Shares of the raw vectors, as Milvus comes: pq_code_budget_gb_ratio and search_cache_budget_gb_ratio.
DISKANN = 0.125 + 0.1
DAY = 24.0


@dataclass(frozen=True)
class Measured:
    """What this machine does, and what an image takes.

    Attributes:
        file: Mean bytes of a file.
        decode: Images a second that all cores read and decode.
        embed: Images a second that all cores embed.
        listed: Bytes of memory for each image that is listed.
        vector: Bytes of a vector on the disk.
        item: Bytes of an item on the disk.
        codes: Bytes of a vector in FAISS, by what a number is kept in.
        scan: Vectors a second that exact search compares on one core.
    """

    file: float
    decode: float
    embed: float
    listed: float
    vector: float
    item: float
    codes: dict[str, float]
    scan: float


def main() -> None:
    """Print what was measured and what follows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--count", type=int, default=400, help="Photos, spread over all there are.")
    parser.add_argument("--hour", type=float, default=0.10, help="Dollars for an hour of such a machine.")
    parser.add_argument("--month", type=float, default=0.02, help="Dollars for a GB stored for a month.")
    parser.add_argument("--network", type=float, default=1.0, help="Gbit/s from where the photos lie.")
    args = parser.parse_args()
    model = OnnxEmbedder(args.model, "cpu", threads=1)
    measured = measure(args.photos, args.count, model)
    print_measured(measured, args.count, model)
    print_plan(measured, args.hour, args.month, args.network)


def measure(folder: Path, count: int, model: OnnxEmbedder) -> Measured:
    """Measure for about half a minute."""
    tracemalloc.start()
    found = find_images([folder])
    listed = tracemalloc.get_traced_memory()[0] / len(found)
    tracemalloc.stop()
    files = choose(folder, count)
    decode = len(files) / seconds(lambda: decode_alone(files, model))
    embed = len(files) / seconds(make_models_alone(files, model))
    with tempfile.TemporaryDirectory() as scratch:
        index = build_index([file.path for file in files], model, Path(scratch) / "index")
        items = (index.data / ITEMS).stat().st_size / len(index)
        vector = index.vectors("student")[:1].nbytes
    vectors = np.random.default_rng(0).standard_normal((VECTORS, model.dim), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    codes = {bits: code_bytes(vectors, name.format(half=model.dim // 2)) for name, bits in FACTORIES.items()}
    faiss.omp_set_num_threads(1)
    scan = VECTORS / seconds(lambda: search_exact(vectors[:1], vectors, 10))
    file = mean(file.path.stat().st_size for file in files)
    return Measured(file, decode, embed, listed, vector, items, codes, scan)


def seconds(work: Callable[[], object]) -> float:
    """Median over some rounds, after one to warm up."""
    times = []
    for _ in range(ROUNDS + 1):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return median(times[1:])


def code_bytes(vectors: np.ndarray, factory: str) -> float:
    """Bytes that each vector adds to an index; with inverted lists, its id among them."""
    name = factory if factory == "Flat" else f"IVF64,{factory}"
    sizes = [faiss.serialize_index(build_ann(vectors[:n], name)).nbytes for n in (VECTORS // 2, VECTORS)]
    return (sizes[1] - sizes[0]) / (VECTORS // 2)


def print_measured(measured: Measured, count: int, model: OnnxEmbedder) -> None:
    """Print the figures that all else follows from."""
    print(f"{count} photos, a student of {model.dim} numbers at {model.side} pixels, {CORES} cores, ", end="")
    print(f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.0f} GB of memory\n")
    print("| measured | |\n|---|---|")
    print(f"| a file | {measured.file / 1e3:.1f} kB |")
    print(f"| read and decode | {measured.decode:.0f} images/s |")
    print(f"| embed | {measured.embed:.0f} images/s |")
    print(f"| memory while it is listed | {measured.listed:.0f} bytes |")
    print(f"| a vector on the disk | {measured.vector:.0f} bytes |")
    print(f"| an item on the disk | {measured.item:.0f} bytes |")
    for bits, size in measured.codes.items():
        print(f"| a vector in FAISS, {bits} a number | {size:.0f} bytes |")
    print(f"| exact search, one core | {measured.scan / 1e6:.1f}M vectors/s |")


def print_plan(measured: Measured, hour: float, month: float, network: float) -> None:
    """Print what so many images take."""
    print(f"\n${hour:.2f} an hour for such a machine, ${month:.2f} a month for a GB, {network:g} Gbit/s\n")
    print(f"| | {' | '.join(COUNTS)} |\n|{'---|' * (1 + len(COUNTS))}")
    for name, value in rows(measured, hour, month, network).items():
        print(f"| {name} | {' | '.join(value(count) for count in COUNTS.values())} |")


def rows(measured: Measured, hour: float, month: float, network: float) -> dict[str, Callable[[int], str]]:
    """Each row of the table: its name, and its value for a number of images."""

    def hours(rate: float) -> Callable[[int], float]:
        return lambda count: count / rate / 3600

    decode, embed = hours(measured.decode), hours(measured.embed)
    read = hours(network * 1e9 / 8 / measured.file)
    index = measured.vector + measured.item

    def work(count: int) -> float:
        return decode(count) + embed(count)

    table: dict[str, Callable[[int], str]] = {
        "read and decode, machine hours": lambda n: f"{decode(n):,.1f}",
        "embed, machine hours": lambda n: f"{embed(n):,.1f}",
        "machines to be done in a day": lambda n: f"{np.ceil(work(n) / DAY):,.0f}",
        "dollars to decode and embed": lambda n: f"{work(n) * hour:,.2f}",
        "photos over the network, hours of one link": lambda n: f"{read(n):,.1f}",
        "photos on the disk": lambda n: gigabytes(n * measured.file),
        "vectors and items on the disk": lambda n: gigabytes(n * index),
        "dollars a month to keep both": lambda n: f"{n * (measured.file + index) / 1e9 * month:,.2f}",
        "memory to list them in one command": lambda n: gigabytes(n * measured.listed),
        "exact search of one query, core seconds": lambda n: f"{n / measured.scan:,.2f}",
    }
    for bits, size in measured.codes.items():
        table[f"memory to search, {bits} a number"] = lambda n, size=size: gigabytes(n * size)  # type: ignore[misc]
    table["memory to search, DISKANN as Milvus comes"] = lambda n: gigabytes(n * measured.vector * DISKANN)
    return table


def gigabytes(size: float) -> str:
    """A size for people."""
    return f"{size / 1e12:,.1f} TB" if size >= 1e12 else f"{size / 1e9:,.2f} GB"


if __name__ == "__main__":
    main()

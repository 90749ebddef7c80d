"""What a million, a hundred million and a billion images take, reckoned from what this machine measures now.

    python benchmarks/scale.py photos --model student/student.onnx --hourly 0.40 --cores 8 --memory 64

Measured at the start, on one core: reading and decoding, embedding, taking vectors into an index, what an
item takes on the disk, and for each kind of FAISS index its bytes a vector and the time of a search that
finds 95 % of the ten nearest, among vectors drawn to be spread as those of the photos are. The rest is
arithmetic: work grows as the images do, and a search looks at the centres of all lists, and then into as many
lists as it did here. `--hourly`, `--cores` and `--memory` describe the machine to hire; its cores are taken
to be as fast as this one's.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import faiss
import numpy as np
from synthetic import PER_CLUSTER, Law

from index.build.embed import Embedded
from index.build.journal import Journal
from index.build.ray import read_piece, write_piece
from index.embedders.onnx import OnnxEmbedder
from index.images.decode import read_photo
from index.images.file import ImageFile
from index.images.sources import find_images
from index.stores.faiss.tuning import build_tuned, choose_factory
from index.stores.faiss.vector_index import inverted_lists
from index.stores.options import SearchTarget
from index.stores.records import Item
from index.stores.tables import ITEM_SCHEMA, write_rows

SIZES = {"1M": 10**6, "100M": 10**8, "1B": 10**9}
SAMPLE = 100_000  # vectors that are searched
LISTS = 512  # that `choose_factory` gives them
PIECE = 4096
KEY = 16  # bytes of a digest and its id, to be bisected
HOURS = 24.0  # in which all is to be embedded
MONTH = 730  # hours
ROOM = 0.8  # of a machine's memory, for the index
GB = 1e9
Row = Callable[[str, Callable[[int], str]], None]


@dataclass(frozen=True)
class Measured:
    """What this machine does, with one core.

    Attributes:
        megabytes: Of a photo.
        decode: Photos read and decoded, a second.
        embed: Photos embedded, a second.
        item: Bytes on the disk of an item, beside its vector: they are mapped when it is looked at.
        take: Vectors that the process which writes the index takes from pieces, a second.
        dim: Length of a vector.
        kinds: Bytes a vector, milliseconds a search, lists, and lists visited, by kind of index.
    """

    megabytes: float
    decode: float
    embed: float
    item: float
    take: float
    dim: int
    kinds: dict[str, tuple[float, float, int, int]]


@dataclass(frozen=True)
class Machine:
    """A machine to hire: dollars an hour, cores, GB of memory."""

    hourly: float
    cores: int
    memory: float


def main() -> None:
    """Measure, and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--hourly", type=float, required=True, help="Dollars an hour of a machine.")
    parser.add_argument("--cores", type=int, default=8, help="Its cores.")
    parser.add_argument("--memory", type=float, default=64.0, help="Its memory, in GB.")
    parser.add_argument("--count", type=int, default=600, help="Photos to measure with.")
    args = parser.parse_args()
    files = find_images([args.photos])
    chosen = [files[i] for i in np.linspace(0, len(files) - 1, min(args.count, len(files))).astype(int)]
    measured = measure(chosen, args.model)
    print_measured(measured, len(chosen))
    print()
    print_costs(measured, Machine(args.hourly, args.cores, args.memory))


def measure(files: Sequence[ImageFile], path: Path) -> Measured:
    """Measure all of it, in about a minute."""
    model = OnnxEmbedder(path, "cpu", threads=1)
    squares = [model.prepare(read_photo(file, model.decode_side)) for file in files]
    rows = [model.embed(squares[start : start + 8]) for start in range(0, len(squares), 8)]

    def decode() -> None:
        for file in files:
            model.prepare(read_photo(file, model.decode_side))

    def embed() -> None:
        for start in range(0, len(squares), 8):
            model.embed(squares[start : start + 8])

    law = Law.fit(np.concatenate(rows))
    vectors = np.concatenate(list(law.draw(SAMPLE, SAMPLE // PER_CLUSTER)))
    kinds = {}
    factories = {
        "exact": "Flat",
        "8 bits": f"IVF{LISTS},SQ8",
        "4 bits for two": f"RR{model.dim},IVF{LISTS},PQ{model.dim // 2}x4fs",
    }
    for name, factory in factories.items():
        index, served = build_tuned(vectors, SearchTarget(0.95), factory)
        lists = inverted_lists(index)
        size = len(faiss.serialize_index(index)) / SAMPLE
        kinds[name] = size, served.milliseconds, lists.nlist if lists else 0, served.probes
    megabytes = sum(file.status()[0] for file in files) / len(files) / 1e6
    rates = len(files) / seconds(decode), len(files) / seconds(embed)
    return Measured(megabytes, *rates, item_bytes(files), take(vectors), model.dim, kinds)


def seconds(work: Callable[[], None]) -> float:
    """The median time of three."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return sorted(times)[1]


def item_bytes(files: Sequence[ImageFile]) -> float:
    """Bytes of an item, and of its place by digest, as `IndexWriter` writes them."""
    rows = [
        {**vars(Item(f"{file.path}{i}", f"{file.name}{i}", f"{i:032}", i, i, i, i)), "copies": []}
        for i, file in zip(range(PIECE), cycle(files), strict=False)
    ]
    with tempfile.TemporaryDirectory() as scratch:
        write_rows(Path(scratch) / "items", ITEM_SCHEMA, rows)
        return (Path(scratch) / "items").stat().st_size / len(rows) + KEY


def take(vectors: np.ndarray) -> float:
    """Rows a second that a journal takes from pieces."""
    rows = vectors[:PIECE]
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "index"
        files = [ImageFile(Path(scratch) / f"{i}.jpg", f"{i}.jpg") for i in range(PIECE)]
        items = [Item(file.location, file.name, f"{i:032}", 1, 1, 1, 1) for i, file in enumerate(files)]
        with Journal(out) as journal:
            journal.start({}, resume=False)
            journal.list_files(files)
            write_piece(out / "piece", Embedded(items, {"student": rows}, []))
            began = time.perf_counter()
            piece = read_piece(out / "piece")
            journal.add(piece.items, piece.vectors, piece.failures)
            taken = time.perf_counter() - began
            (out / "piece").unlink()
    return PIECE / taken


def print_measured(measured: Measured, photos: int) -> None:
    """Print what was measured."""
    print(f"| measured, one core, {photos} photos | |\n|---|---|")
    print(f"| a photo | {1000 * measured.megabytes:.0f} kB |")
    print(f"| read and decode | {measured.decode:.0f} images/s |")
    print(f"| embed ({measured.dim}-d) | {measured.embed:.0f} images/s |")
    print(f"| an item on the disk, mapped | {measured.item:.0f} B |")
    print(f"| take into the index | {measured.take:,.0f} vectors/s |")
    for name, (size, milliseconds, lists, probes) in measured.kinds.items():
        how = f", {probes} of {lists} lists" if lists else ""
        print(f"| search {SAMPLE:,}, {name} | {size:.0f} B a vector, {milliseconds:.2f} ms{how} |")


def print_costs(measured: Measured, machine: Machine) -> None:
    """Print what the images take: a column for each number of them."""
    sizes = SIZES.values()

    def row(name: str, value: Callable[[int], str]) -> None:
        print(f"| {name} | {' | '.join(map(value, sizes))} |")

    def core_hours(count: int) -> float:
        return count * (1 / measured.decode + 1 / measured.embed) / 3600

    print(f"| machine: {machine.cores} cores, {machine.memory:g} GB, ${machine.hourly:g}/h | "
          f"{' | '.join(SIZES)} |\n|---|{'---|' * len(SIZES)}")  # fmt: skip
    row("photos on disk", lambda n: size_text(n * measured.megabytes * 1e6))
    row("decode, core hours", lambda n: number(n / measured.decode / 3600))
    row("embed, core hours", lambda n: number(n / measured.embed / 3600))
    row("both, dollars", lambda n: number(core_hours(n) / machine.cores * machine.hourly))
    row(f"machines to do it in {HOURS:g} h", lambda n: f"{int(-(-core_hours(n) // (machine.cores * HOURS)))}")
    row("network meanwhile, Gbit/s", lambda n: number(n * measured.megabytes * 8e-3 / HOURS / 3600))
    row("one process takes the vectors, h", lambda n: number(n / measured.take / 3600))
    row("vectors on disk", lambda n: size_text(4 * n * measured.dim))
    row("items on the disk, mapped", lambda n: size_text(n * measured.item))
    for kind in measured.kinds:
        print_searches(measured, machine, kind, row)


def print_searches(measured: Measured, machine: Machine, kind: str, row: Row) -> None:
    """Print what one kind of index takes."""
    size = measured.kinds[kind][0]

    def machines(count: int) -> int:
        return int(-(-count * size // (ROOM * machine.memory * GB)))

    row(f"{kind}: memory", lambda n: size_text(n * size))
    row(f"{kind}: machines to hold it", lambda n: f"{machines(n)}")
    row(f"{kind}: dollars a month", lambda n: number(machines(n) * machine.hourly * MONTH))
    row(f"{kind}: core ms a search", lambda n: number(search_ms(measured, kind, n)))


def search_ms(measured: Measured, kind: str, count: int) -> float:
    """Time of a search among more: it meets all centres, and then vectors in the lists that it visits."""
    _, milliseconds, lists, probes = measured.kinds[kind]
    if not lists:
        return milliseconds * count / SAMPLE
    many = int(choose_factory(count, measured.dim, SearchTarget(0.99, 1e6)).removeprefix("IVF").split(",")[0])
    return milliseconds * (many + probes * count / many) / (lists + probes * SAMPLE / lists)


def number(value: float) -> str:
    """A whole number, or two digits that count."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def size_text(size: float) -> str:
    """Bytes for people."""
    return f"{size / 1e12:,.1f} TB" if size >= 1e12 else f"{size / GB:,.1f} GB"


if __name__ == "__main__":
    main()

"""What it costs to open an index of many images, made by the project's own writer of vectors drawn at random.

    python benchmarks/opening.py --model student/student.onnx --folder scratch --counts 2640 1000000 --update

For each size: one cold `retrieval search`, without a filter and with one (medians of five, and the most
memory); `retrieval serve` until `/health` answers; a search by photo, one with a filter as the page makes it,
and the memory after a thousand of both; with `--update` what 1000 new photos take and write, what 1000 fewer,
and how well and how fast both parts are searched then. The items have two columns of metadata, and files that
are links to a few photos. An index that is there already is measured again: after `--update` remove it.
"""

import argparse
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any

import faiss
import httpx
import numpy as np
import pyarrow as pa
from PIL import Image
from serve import memory
from synthetic import PER_CLUSTER, Law

from index.embedders.onnx import OnnxEmbedder
from index.stores.folder import Index
from index.stores.options import SearchTarget
from index.stores.records import Item, Space
from index.stores.writing.writer import IndexWriter
from index.vectors import scale_to_unit

COLOURS = ("red", "blue", "green", "black", "white", "grey", "brown", "pink")
LINKS = 50_000  # names that one file is given; a disk allows about 65,000
NEW = 1000  # photos of the update
ROUNDS, SEARCHES = 5, 1000
QUERIES = 500  # that recall is measured with
COMMAND = [sys.executable, "-m", "retrieval"]


def photo(seed: int, side: int = 348) -> bytes:
    """A photo of coloured noise, which is as large as one of a camera of that side."""
    small = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    data = BytesIO()
    Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC).save(data, "JPEG", quality=90)
    return data.getvalue()


def make_files(photos: Path, count: int) -> Iterator[Item]:
    """Make the files, in the order in which they are found again, and yield their items."""
    for i in range(count):
        folder = photos / f"{i // 1000:05}"
        if i % 1000 == 0:
            folder.mkdir(parents=True)
        file = folder / f"{i:08}.jpg"
        if i % LINKS == 0:
            first = file
            first.write_bytes(photo(i))
            facts = first.stat()
        else:
            os.link(first, file)
        name = f"{folder.name}/{file.name}"
        digest = f"{(i * 0x9E3779B97F4A7C15) % 2**64:016x}{i:016x}"
        yield Item(str(file), name, digest, facts.st_size, 348, 348, facts.st_mtime_ns)


def make_index(folder: Path, student: OnnxEmbedder, count: int) -> None:
    """Write an index of so many items, and their files beside it."""
    spread = np.diag(np.arange(1, student.dim + 1, dtype=np.float32) ** np.float32(-0.5)).astype(np.float32)
    law = Law(np.zeros(student.dim, np.float32), spread, spread * np.float32(0.5), np.ones(1, np.float32))
    out, photos = folder / "idx", folder / "photos"
    out.mkdir(parents=True)
    with IndexWriter(out, [str(photos)]) as writer:
        writer.add_items(make_files(photos, count))
        writer.add_failures([])
        numbers = np.arange(count)
        writer.add_metadata(
            pa.table(
                {
                    "path": [f"{photos}/{i // 1000:05}/{i:08}.jpg" for i in range(count)],
                    "colour": [COLOURS[i] for i in (numbers * 7919 % len(COLOURS)).tolist()],
                    "price": [str(i) for i in (numbers * 104_729 % 10_007).tolist()],
                }
            )
        )
        space = Space(student.key, student.name, student.dim)
        vectors = writer.add_space("student", space, law.draw(count, max(count // PER_CLUSTER, 1)))
        writer.add_search("student", vectors, SearchTarget(), "auto")
        writer.add_model(student.data, folder)
        writer.commit(None, {})


def run(*arguments: str) -> tuple[float, float, float]:
    """Seconds by the clock and of the processor, and most megabytes, of one command."""
    start = time.perf_counter()
    process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"{arguments} ended with {process.returncode}"
    return time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1000


def cold(*arguments: str) -> str:
    """The medians of some runs of a command, for people."""
    return describe(*map(median, zip(*(run(*arguments) for _ in range(ROUNDS)), strict=True)))


def describe(seconds: float, processor: float, megabytes: float) -> str:
    """What a process took, for people."""
    return f"{seconds:.2f} s ({processor:.2f} s of the processor), {megabytes:.0f} MB"


def processor(pid: int) -> float:
    """Seconds of the processor that a process has had."""
    return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13])) / 100


def milliseconds(work: Callable[[int], Any], count: int, pid: int) -> str:
    """Median time of a call, after a tenth that warms up, and what it takes of the processor of a server."""
    times = []
    for i in range(count):
        if i == count // 10:
            before = processor(pid)
        start = time.perf_counter()
        work(i)
        times.append(time.perf_counter() - start)
    spent = 1000 * (processor(pid) - before) / (count - count // 10)
    return f"{1000 * median(times[count // 10 :]):.1f} ms ({spent:.1f} ms of the processor)"


def page_search(http: httpx.Client) -> Callable[[dict[str, str], int], None]:
    """The search of the page, which takes filters, as its scripts call it."""
    config = http.get("/config").json()
    (component,) = (c["id"] for c in config["components"] if "search" in c["props"].get("server_fns", ()))

    def search(columns: dict[str, str], item: int) -> None:
        asked: dict[str, Any] = {"modes": ["student"], "k": 10, "item": item, "columns": columns}
        asked["cut"] = 1e-9 * item  # or the page would remember the answer to a photo like it
        data = {"session_hash": "x", "component_id": component, "fn_name": "search", "data": asked}
        answer = http.post("/gradio_api/component_server", json=data)
        answer.raise_for_status()
        assert "columns" in answer.json(), answer.text[:300]

    return search


def serve(index: Path, count: int) -> dict[str, str]:
    """Start the server, ask it, and look at its memory."""
    start = time.perf_counter()
    command = [*COMMAND, "serve", str(index), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        with httpx.Client(base_url=process.stdout.readline().strip(), timeout=60) as http:
            http.get("/health").raise_for_status()
            up = time.perf_counter() - start, processor(process.pid), memory(process.pid)
            rows = {"`serve` until `/health` answers": describe(*up)}
            photos = [photo(i) for i in range(50)]

            def by_photo(i: int) -> None:
                http.post("/search", files={"image": photos[i % 50]}).raise_for_status()

            rows["`POST /search`, p50"] = milliseconds(by_photo, SEARCHES // 2, process.pid)
            searched, step = page_search(http), max(count // SEARCHES, 1)
            for name, columns in (("no", {}), ("a", {"colour": "red"}), ("another", {"price": "0"})):

                def by_item(i: int, columns: dict[str, str] = columns) -> None:
                    searched(columns, i * step % count)

                rows[f"the page's search with {name} filter, p50"] = milliseconds(
                    by_item, SEARCHES // 6, process.pid
                )
            rows[f"memory after {SEARCHES} searches"] = f"{memory(process.pid):.0f} MB"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    return rows


def update(folder: Path) -> dict[str, str]:
    """Add new photos, and remove as many; say what that took and wrote, and how all is searched then."""
    new, idx = folder / "photos" / "zz", folder / "idx"
    rows = {"recall@10, one search on one core": searched(Index(idx))}
    new.mkdir()
    for i in range(NEW):
        (new / f"{i:04}.jpg").write_bytes(photo(10_000_000 + i))
    model = next(idx.glob("data-*/student.onnx"))
    alone = run("index", str(new), "--model", str(model), "--out", str(folder / "alone"))
    rows[f"`index` of {NEW} photos"] = describe(*alone)
    asked = [
        "index",
        str(folder / "photos"),
        "--model",
        str(folder / "student.onnx"),
        "--out",
        str(idx),
        "--update",
    ]
    (folder / "student.onnx").write_bytes(model.read_bytes())
    rows[f"`index --update` with {NEW} new photos"] = written(idx, *asked)
    rows["recall@10, one search on one core, then"] = searched(Index(idx))
    shutil.rmtree(sorted((folder / "photos").iterdir())[len(list((folder / "photos").iterdir())) // 2])
    rows[f"`index --update` with {NEW} fewer"] = written(idx, *asked)
    rows["recall@10, one search on one core, at last"] = searched(Index(idx))
    return rows


def written(index: Path, *arguments: str) -> str:
    """Run a command, and say what it took and how much it wrote of an index."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_oublock
    took = run(*arguments)
    megabytes = 512 * (resource.getrusage(resource.RUSAGE_CHILDREN).ru_oublock - before) / 1e6
    size = sum(file.size for file in Index(index).manifest.files.values()) / 1e6
    return f"{describe(*took)}, {megabytes:.1f} MB written of {size:.0f}: {megabytes / size:.1%}"


def searched(index: Index) -> str:
    """Recall@10 of items of the gallery against exact search, and the median of a search."""
    rows = index.read_rows("student", np.linspace(0, len(index) - 1, QUERIES).astype(np.int64))
    queries = scale_to_unit(rows + np.roll(rows, 1, axis=0) / 10)
    space = index.open_space("student", "cpu")
    nearest = np.full((QUERIES, 10), -1, np.float32)
    for some in index.iter_rows("student"):
        nearest = np.partition(np.concatenate([nearest, queries @ some.T], axis=1), -10, axis=1)[:, -10:]
    recall = (space.search(queries, 10)[0] >= nearest.min(axis=1, keepdims=True) - 1e-5).mean()
    faiss.omp_set_num_threads(1)
    times = []
    for query in queries:
        start = time.perf_counter()
        space.search(query[None], 10)
        times.append(time.perf_counter() - start)
    return f"{recall:.3f}, {1000 * median(times):.2f} ms"


def main() -> None:
    """Print a table, a column for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="where the indexes are made")
    parser.add_argument("--counts", type=int, nargs="+", default=[2640, 1_000_000])
    parser.add_argument("--update", action="store_true")
    args = parser.parse_args()
    student, table = OnnxEmbedder(args.model, "cpu"), list[dict[str, str]]()
    for count in args.counts:
        folder = args.folder / str(count)
        if not folder.is_dir():
            make_index(folder, student, count)
        index, query = str(folder / "idx"), folder / "query.jpg"
        query.write_bytes(photo(-1 % 2**32))
        run("search", index, str(query))  # what the system has read stays in its cache
        asked = ["search", index, str(query)]
        rows = {"`search`, cold": cold(*asked)}
        for where in ("colour=red", "price=0"):
            rows[f"the same with `--where {where}`"] = cold(*asked, "--where", where)
        rows |= serve(folder / "idx", count)
        if args.update:
            rows |= update(folder)
        table.append(rows)
        print("\n".join(f"{count:,} items: {name}: {value}" for name, value in rows.items()), flush=True)
    print(f"\n| | {' | '.join(f'{count:,} items' for count in args.counts)} |\n|---{'|---' * len(table)}|")
    for name in table[0]:
        print(f"| {name} | {' | '.join(rows[name] for rows in table)} |")


if __name__ == "__main__":
    main()

"""How busy the client keeps an endpoint: images a second, as a share of a bare httpx loop's.

Both ask the same server, in turns, at the same concurrency and batch size; the share is of medians. With
`--lists` it is a rerank endpoint, asked about lists of a query and ten candidates.
"""

import argparse
import asyncio
import json
import tempfile
import threading
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np
import uvicorn
from fastapi import FastAPI, Request, Response
from PIL import Image

from index.embedders.http_formats import Upload, write_answer, write_request
from index.embedders.options import EmbedderOptions
from index.images.file import ImageFile, digest_pool
from index.images.sources import find_images
from index.rankers.asking import ask_lists
from index.rankers.base import SHOWN, Pool, Rows
from index.rankers.registry import open_ranker
from index.teachers.ask import ask_about
from index.teachers.client import BudgetedTeacher
from index.teachers.ledger import Ledger
from index.teachers.spec import TeacherSpec

DIM = 1024
WARM = 66  # images that are asked about before the clock starts


def make_app(delay: float) -> FastAPI:
    """An endpoint that takes its time and answers with noise."""
    app = FastAPI()
    vectors = np.random.default_rng(0).standard_normal((512, DIM), np.float32)

    @app.post("/v1/embeddings")
    async def answer(request: Request) -> Response:
        count = len((await request.json())["input"])
        await asyncio.sleep(delay)
        body = json.dumps(write_answer(vectors[:count], "noise", "base64"))
        return Response(body, media_type="application/json")

    @app.post("/v1/rerank")
    async def order(request: Request) -> dict[str, Any]:
        count = len((await request.json())["documents"]["content"])
        await asyncio.sleep(delay)
        return {"results": [{"index": i, "relevance_score": -i} for i in range(count)]}

    return app


@contextmanager
def serve(app: FastAPI) -> Iterator[str]:
    """Run it in a thread; yields its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    server.should_exit = True
    thread.join()


def make_photos(folder: Path, count: int) -> Sequence[ImageFile]:
    """Small JPEGs that differ."""
    for i in range(count):
        coarse = np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(coarse).resize((160, 120)).save(folder / f"{i:05}.jpg")
    return find_images([folder])


def bare(url: str, files: Sequence[ImageFile], batch: int, lanes: int) -> float:
    """Images a second of the least that can be done: read, send, take the JSON apart."""
    start = time.perf_counter()
    client = httpx.Client(timeout=60, limits=httpx.Limits(max_connections=lanes))

    def call(some: Sequence[ImageFile]) -> None:
        uploads = [Upload(file.path.read_bytes(), "image/jpeg", "") for file in some]
        json.loads(client.post(url, **write_request("infinity", "", uploads)).content)

    with client, ThreadPoolExecutor(lanes) as pool:
        list(pool.map(call, [files[i : i + batch] for i in range(0, len(files), batch)]))
    return len(files) / (time.perf_counter() - start)


def through_ledger(url: str, files: Sequence[ImageFile], batch: int, lanes: int, ledger: Path) -> float:
    """Images a second as the product asks: chosen, decoded, reserved, checked and stored on disk.

    The first, from which the length of the vectors and the size of calls are learnt, come before the clock
    starts.
    """
    paid = TeacherSpec(url, EmbedderOptions(batch=batch, concurrency=lanes), ledger, len(files)).open("cpu")
    assert isinstance(paid, BudgetedTeacher)
    list(ask_about(files[:WARM], paid, WARM))
    start = time.perf_counter()
    list(ask_about(files[WARM:], paid, len(files)))
    seconds = time.perf_counter() - start
    assert paid.asked == len(files)
    return (len(files) - WARM) / seconds


def bare_lists(url: str, pool: Pool, lists: Sequence[Rows], lanes: int) -> float:
    """Lists a second of the least that can be done."""
    start = time.perf_counter()
    client = httpx.Client(timeout=60, limits=httpx.Limits(max_connections=lanes))

    def call(rows: Rows) -> None:
        photos = [b64encode(pool.files[row].path.read_bytes()).decode() for row in rows]
        part, *parts = [
            {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{photo}"}} for photo in photos
        ]
        about = {"query": {"content": [part]}, "documents": {"content": parts}}
        json.loads(client.post(url, json=about).content)

    with client, ThreadPoolExecutor(lanes) as threads:
        list(threads.map(call, lists))
    return len(lists) / (time.perf_counter() - start)


def lists_through_ledger(url: str, pool: Pool, lists: Sequence[Rows], lanes: int, path: Path) -> float:
    """Lists a second as `judge` asks: decoded, made small, reserved, checked and stored on disk."""
    ranker = open_ranker(url, "cpu", EmbedderOptions(concurrency=lanes))
    with Ledger(path, ranker.key) as ledger:
        start = time.perf_counter()
        answers, _ = ask_lists(lists, pool, ranker, ledger, len(lists))
        seconds = time.perf_counter() - start
    assert len(answers) == len(lists)
    return len(lists) / seconds


def main() -> None:
    """Print both, and the share."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=610)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--delay", type=float, default=0.5, help="seconds that the endpoint takes for a call")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--lists", type=int, default=0, help="how many to ask a rerank endpoint about")
    args = parser.parse_args()
    plain, ours = [], []
    with tempfile.TemporaryDirectory() as name, serve(make_app(args.delay)) as url:
        (Path(name) / "photos").mkdir()
        files = make_photos(Path(name) / "photos", args.images)
        pool, lot = Pool(files, digest_pool(files)), np.random.default_rng(0)
        lists = [tuple(lot.choice(len(files), SHOWN + 1, replace=False).tolist()) for _ in range(args.lists)]
        for turn in range(args.rounds):
            ledger = Path(name) / f"{turn}.sqlite"
            if lists:
                plain.append(bare_lists(f"{url}/rerank", pool, lists, args.concurrency))
                ours.append(lists_through_ledger(f"{url}/rerank", pool, lists, args.concurrency, ledger))
                continue
            plain.append(bare(f"{url}/embeddings", files[WARM:], args.batch, args.concurrency))
            ours.append(through_ledger(f"{url}/embeddings", files, args.batch, args.concurrency, ledger))
    what = "lists" if lists else "images"
    print(f"bare httpx loop     {median(plain):8.1f} {what} a second")
    print(f"through the ledger  {median(ours):8.1f} {what} a second, {median(ours) / median(plain):.1%}")


if __name__ == "__main__":
    main()

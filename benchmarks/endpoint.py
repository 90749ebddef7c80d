"""How busy the client keeps an endpoint: images a second, as a share of a bare httpx loop's.

Both ask the same server, in turns, at the same concurrency and batch size; the share is of medians.
"""

import argparse
import asyncio
import json
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import httpx
import numpy as np
import uvicorn
from fastapi import FastAPI, Request, Response
from PIL import Image

from index.embedders.http_formats import Upload, write_answer, write_request
from index.embedders.options import EmbedderOptions
from index.images.file import ImageFile
from index.images.sources import find_images
from index.teachers.ask import ask_about
from index.teachers.client import BudgetedTeacher
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

    return app


@contextmanager
def serve(app: FastAPI) -> Iterator[str]:
    """Run it in a thread; yields its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1/embeddings"
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


def main() -> None:
    """Print both, and the share."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=610)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--delay", type=float, default=0.5, help="seconds that the endpoint takes for a call")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    plain, ours = [], []
    with tempfile.TemporaryDirectory() as name, serve(make_app(args.delay)) as url:
        (Path(name) / "photos").mkdir()
        files = make_photos(Path(name) / "photos", args.images)
        for turn in range(args.rounds):
            plain.append(bare(url, files[WARM:], args.batch, args.concurrency))
            ledger = Path(name) / f"{turn}.sqlite"
            ours.append(through_ledger(url, files, args.batch, args.concurrency, ledger))
    print(f"bare httpx loop     {median(plain):8.1f} images a second")
    print(f"through the ledger  {median(ours):8.1f} images a second, {median(ours) / median(plain):.1%}")


if __name__ == "__main__":
    main()

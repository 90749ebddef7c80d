"""How busy the client keeps an endpoint: images a second, as a share of a bare httpx loop's.

Both ask the same server, in turns, at the same concurrency and batch size; the share is of medians.
"""

import argparse
import asyncio
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import httpx
import hypercorn.asyncio
import hypercorn.config
import numpy as np
import trustme
import uvicorn
from fastapi import FastAPI, Request, Response
from PIL import Image

from index.embedders.http_formats import Upload, write_answer, write_request
from index.embedders.options import EmbedderOptions
from index.images.file import ImageFile
from index.images.sources import find_images
from index.teachers.ask import ask_about
from index.teachers.client import PaidEmbedder
from index.teachers.spec import TeacherSpec

DIM = 1024


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
    """Run it over HTTP/1.1 in a thread; yields its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1/embeddings"
    server.should_exit = True
    thread.join()


@contextmanager
def serve_http2(app: FastAPI, folder: Path) -> Iterator[str]:
    """The same over TLS and HTTP/2, with a certificate that this process trusts."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    os.environ["SSL_CERT_FILE"] = str(folder / "authority.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(folder / "host.pem")
    config = hypercorn.config.Config()
    config.bind, config.alpn_protocols = ["127.0.0.1:0"], ["h2"]
    config.certfile = config.keyfile = str(folder / "host.pem")
    sockets = config.create_sockets()
    (listening,) = sockets.secure_sockets
    listening.listen()
    config.create_sockets = lambda: sockets  # type: ignore[method-assign]
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    serving = hypercorn.asyncio.serve(app, config, shutdown_trigger=stop.wait, mode="asgi")  # type: ignore[arg-type]
    thread = threading.Thread(target=loop.run_until_complete, args=(serving,), daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{listening.getsockname()[1]}/v1/embeddings"
    loop.call_soon_threadsafe(stop.set)
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
    trust, lane = httpx.create_ssl_context(), threading.local()

    def connect() -> None:
        lane.client = httpx.Client(timeout=60, http2=True, verify=trust)

    def call(some: Sequence[ImageFile]) -> None:
        uploads = [Upload(file.path.read_bytes(), "image/jpeg", "") for file in some]
        json.loads(lane.client.post(url, **write_request("infinity", "", uploads)).content)

    with ThreadPoolExecutor(lanes, initializer=connect) as pool:
        list(pool.map(call, [files[i : i + batch] for i in range(0, len(files), batch)]))
    return len(files) / (time.perf_counter() - start)


def through_ledger(url: str, files: Sequence[ImageFile], batch: int, lanes: int, ledger: Path) -> float:
    """Images a second as the product asks: chosen, decoded, reserved, checked and stored on disk.

    The first two, from which the length of the vectors is learnt one at a time, come before the clock starts.
    """
    paid = TeacherSpec(url, EmbedderOptions(batch=batch, concurrency=lanes), ledger, len(files)).open("cpu")
    assert isinstance(paid, PaidEmbedder)
    list(ask_about(files[:2], paid, 2))
    start = time.perf_counter()
    list(ask_about(files[2:], paid, len(files)))
    seconds = time.perf_counter() - start
    assert paid.asked == len(files)
    return (len(files) - 2) / seconds


def main() -> None:
    """Print both, and the share."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=514)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--delay", type=float, default=0.5, help="seconds that the endpoint takes for a call")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--http2", action="store_true", help="over TLS and HTTP/2, in place of HTTP/1.1")
    args = parser.parse_args()
    plain, ours = [], []
    with ExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory())
        app = make_app(args.delay)
        url = stack.enter_context(serve_http2(app, Path(name)) if args.http2 else serve(app))
        (Path(name) / "photos").mkdir()
        files = make_photos(Path(name) / "photos", args.images)
        for turn in range(args.rounds):
            plain.append(bare(url, files[2:], args.batch, args.concurrency))
            ledger = Path(name) / f"{turn}.sqlite"
            ours.append(through_ledger(url, files, args.batch, args.concurrency, ledger))
    print(f"bare httpx loop     {median(plain):8.1f} images a second")
    print(f"through the ledger  {median(ours):8.1f} images a second, {median(ours) / median(plain):.1%}")


if __name__ == "__main__":
    main()

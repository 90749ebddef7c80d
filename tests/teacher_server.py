"""A teacher behind HTTP to test against: any embedder, of images or texts, and faults on demand."""

import asyncio
import base64
import json
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import uvicorn
from fastapi import FastAPI, Request, Response

from index.embedders.base import Embedder
from index.images.decode import decode
from index.images.file import ImageFile
from index.io import content_digest
from index.teachers.ask import ask_about
from index.teachers.spec import TeacherSpec
from index.text.models import Text, TextEmbedder

# What can go wrong. The first two are not charged for; the others have cost an answer.
FREE = ("429", "500")
CHARGED = ("drop", "truncate", "dimension", "nan", "duplicate")
HARMLESS = ("slow", "reorder")
EVERY = (*FREE, *CHARGED, *HARMLESS)


class TeacherServer:
    """Counts what it is asked, and fails a share of the calls.

    Attributes:
        faults: The kinds of fault, each as likely as the others.
        share: Of the calls that fail.
        delay: Seconds that each call takes.
        slow: Seconds that a slow call takes in addition.
        key: What `Authorization` must bring; empty wants none.
        charged: How often each image was worked on, by content digest; what a teacher would bill.
        calls: Content digests of each call, whatever became of it.
        forced: Faults of the next calls, before chance decides.
        script: Raw answer in place of all others: status, headers, body.
    """

    def __init__(
        self, embedder: Embedder, share: float = 0.0, faults: tuple[str, ...] = EVERY, seed: int = 0
    ):
        self.embedder, self.share, self.faults = embedder, share, faults
        self.delay, self.slow, self.key = 0.0, 0.3, ""
        self.charged: Counter[str] = Counter()
        self.calls: list[list[str]] = []
        self.headers: list[dict[str, str]] = []
        self.clients: set[object] = set()
        self.versions: set[str] = set()
        self.forced: list[str] = []
        self.script: tuple[int, dict[str, str], bytes] | None = None
        self._random = random.Random(seed)
        self._api = FastAPI()
        self._api.post("/v1/embeddings")(self.answer)

    async def __call__(self, scope, receive, send):
        """Serve; a dropped connection needs the transport below."""
        if scope["http_version"] == "1.1":
            scope["cut"] = send.__self__.transport.abort
        await self._api(scope, receive, send)

    async def answer(self, request: Request) -> Response:
        self.versions.add(request.scope["http_version"])
        self.clients.add(tuple(request.scope["client"]))
        self.headers.append(dict(request.headers))
        files, encoding = await read_request(request)
        digests = [content_digest(data) for data in files]
        self.calls.append(digests)
        if self.script:
            status, headers, body = self.script
            return Response(body, status, headers)
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            return Response(f"no such key: {request.headers.get('authorization')}", 401)
        fault = self._choose()
        await asyncio.sleep(self.delay + (self.slow if fault == "slow" else 0))
        if fault == "429":
            return Response("too fast", 429, {"Retry-After": "0.05"})
        if fault == "500":
            return Response("oh no", 500)
        self.charged.update(digests)
        vectors = await asyncio.to_thread(self._embed, files)
        return self._write(request, vectors, encoding, fault)

    def _choose(self) -> str:
        if self.forced:
            return self.forced.pop(0)
        return self._random.choice(self.faults) if self._random.random() < self.share else ""

    def _embed(self, files: list[bytes]) -> np.ndarray:
        # One at a time: an answer must not depend, in its last bits, on what was asked with it.
        if isinstance(self.embedder, TextEmbedder):
            inputs = [self.embedder.prepare(Text(data.decode())) for data in files]
        else:
            inputs = [self.embedder.prepare(decode(data, "upload")) for data in files]
        return np.concatenate([self.embedder.embed([one]) for one in inputs])

    def _write(self, request: Request, vectors: np.ndarray, encoding: str, fault: str) -> Response:
        if fault == "dimension":
            vectors = vectors[:, :-1]
        if fault == "nan":
            vectors = vectors.copy()
            vectors[self._random.randrange(len(vectors))] = np.nan
        entries = [
            {
                "index": i,
                "embedding": base64.b64encode(row.astype("<f4").tobytes()).decode()
                if encoding == "base64"
                else row.tolist(),
            }
            for i, row in enumerate(vectors)
        ]
        if fault == "duplicate":
            entries[-1] = {**entries[-1], "index": 0} if len(entries) > 1 else {**entries[0], "index": 1}
        if fault == "reorder":
            self._random.shuffle(entries)
        body = json.dumps({"data": entries}).encode()
        if fault == "drop":
            request.scope["cut"]()
        if fault == "truncate":
            return Response(body[: len(body) // 2], headers={"Content-Length": str(len(body))})
        return Response(body, media_type="application/json")


async def read_request(request: Request) -> tuple[list[bytes], str]:
    """The images or texts of a request in any dialect, and how it wants the vectors."""
    if request.headers["content-type"].startswith("multipart/"):
        form = await request.form()
        return [await part.read() for part in form.getlist("images")], "float"
    asked = await request.json()
    encoding = asked.get("encoding_format", "float")
    urls = [entry.get("image") if isinstance(entry, dict) else entry for entry in asked["input"]]
    texts = [entry.get("text") if isinstance(entry, dict) else entry for entry in asked["input"]]
    if all(text and not text.startswith("data:") for text in texts):
        assert "modality" not in asked
        return [text.encode() for text in texts], encoding
    assert all(url.startswith("data:image/") for url in urls)
    return [base64.b64decode(url.partition(",")[2]) for url in urls], encoding


class _Server(uvicorn.Server):
    """Notices within a hundredth of a second, not a tenth, that it is to end."""

    async def main_loop(self) -> None:
        while not await self.on_tick(0):
            await asyncio.sleep(0.01)


@contextmanager
def serving(app, **options) -> Iterator[str]:
    """Run an app in a thread; yields the address of its embeddings."""
    server = _Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="off", **options))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        threading.Event().wait(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    scheme = "https" if options.get("ssl_certfile") else "http"
    try:
        yield f"{scheme}://127.0.0.1:{port}/v1/embeddings"
    finally:
        server.should_exit = True
        server.force_exit = True
        thread.join(5)


def ask_everything(files: list[ImageFile], spec: TeacherSpec) -> None:
    """Ask about all files, in a process of its own."""
    paid = spec.open("cpu")
    for _ in ask_about(files, paid, len(files)):
        pass

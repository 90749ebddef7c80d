"""A `/v1/rerank` endpoint to test against: it orders by mean colour, and fails on demand."""

import base64
import io
import json
from collections import Counter

import numpy as np
from fastapi import FastAPI, Request, Response
from PIL import Image


def colour(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), float).mean(axis=(0, 1))


class RerankServer:
    """Counts what it is asked.

    Attributes:
        charged: How often each list was answered, by what was sent.
        script: Answers in place of the next ones: status and body.
        key: What `Authorization` must bring.
    """

    def __init__(self):
        self.charged: Counter[str] = Counter()
        self.script: list[tuple[int, str]] = []
        self.key = ""
        self.most = 10  # scores an answer
        self._api = FastAPI()
        self._api.post("/v1/embeddings")(self.answer)  # the path that `serving` names

    async def __call__(self, scope, receive, send):
        await self._api(scope, receive, send)

    async def answer(self, request: Request) -> Response:
        asked = await request.json()
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            return Response("no", 401)
        if self.script:
            status, body = self.script.pop(0)
            return Response(body, status, {"Retry-After": "0.05"})
        if isinstance(asked["documents"], dict):
            urls = [part["image_url"]["url"] for part in asked["documents"]["content"]]
            about = asked["query"]["content"][0]["image_url"]["url"]
        else:
            urls, about = [one["image"] for one in asked["documents"]], asked["query"]["image"]
        self.charged[" ".join([about, *urls])] += 1
        query, *found = [colour(base64.b64decode(url.partition(",")[2])) for url in (about, *urls)]
        scores = [-float(((one - query) ** 2).sum()) for one in found]
        results = [{"index": i, "relevance_score": score} for i, score in enumerate(scores)]
        results.sort(key=lambda one: -one["relevance_score"])
        return Response(json.dumps({"results": results[: self.most]}), media_type="application/json")

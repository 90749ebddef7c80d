"""Rerank and chat endpoints to test against: they order by mean colour, and fail on demand."""

import base64
import io
import json
from collections import Counter
from typing import Any

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
        says: What the chat says, with a place for `{order}`.
        bodies: What the chat was asked.
    """

    def __init__(self):
        self.charged: Counter[str] = Counter()
        self.script: list[tuple[int, str]] = []
        self.key = ""
        self.most = 10  # scores an answer
        self._api = FastAPI()
        self.says = '{{"order": {order}}}'
        self.bodies: list[dict[str, Any]] = []
        self._api.post("/v1/embeddings")(self.answer)  # the path that `serving` names
        self._api.post("/v1/chat/completions")(self.chat)

    async def chat(self, request: Request) -> Response:
        """Answer as OpenAI's chat does, in the words of `says`, which `order` is put in."""
        asked = await request.json()
        self.bodies.append(asked)
        if self.script:
            status, body = self.script.pop(0)
            return Response(body, status, {"Retry-After": "0.05"})
        parts = asked["messages"][0]["content"]
        urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
        self.charged[" ".join(urls)] += 1
        found = [colour(base64.b64decode(url.partition(",")[2])) for url in urls]
        order = np.argsort([((one - found[0]) ** 2).sum() for one in found[1:]]) + 1
        message = {"role": "assistant", "content": self.says.format(order=order.tolist()[: self.most])}
        answer = {
            "id": "1", "object": "chat.completion", "created": 1, "model": asked["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 900, "completion_tokens": 20, "total_tokens": 920},
        }  # fmt: skip
        return Response(json.dumps(answer), media_type="application/json")

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

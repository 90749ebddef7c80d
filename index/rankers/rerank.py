"""Rerank endpoints, which score candidates."""

import json
import math
from collections.abc import Sequence
from typing import Any

from index.embedders.http import EndpointEmbedder
from index.embedders.http_formats import Upload, as_text
from index.embedders.options import EmbedderOptions
from index.errors import TransientError
from index.rankers.base import EmbedderRanker


class RerankRanker(EmbedderRanker):
    """Asks `POST URL`. The dialect `jina` sends `{"image": data URL}`, any other vLLM's parts of a message.

    Addresses, keys, limits and what a status means are those of an endpoint with vectors.
    """

    def __init__(self, url: str, options: EmbedderOptions) -> None:
        self._endpoint = EndpointEmbedder(url, options)
        super().__init__("rank", self._endpoint)

    def order(self, query: Upload, candidates: Sequence[Upload]) -> list[int]:
        """Make one call; see `Ranker.order`."""
        urls = [as_text(upload) for upload in (query, *candidates)]
        if self.options.dialect == "jina":
            asked, *documents = [{"image": url} for url in urls]
            about: dict[str, Any] = {"query": asked, "documents": documents}
        else:
            part, *parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
            about = {"query": {"content": [part]}, "documents": {"content": parts}}
        named = {"model": self.options.model} if self.options.model else {}
        body = self._endpoint.post({"json": {**named, **about, "top_n": len(candidates)}})
        try:
            return read_order(body, len(candidates))
        except ValueError as error:
            raise TransientError(f"{self.name} answered with {error}", charged=True) from error


def read_order(body: bytes, count: int) -> list[int]:
    """Read `{"results": [{"index": 0, "relevance_score": 0.9}]}`: places by score; else ValueError."""
    try:
        found = [(entry["index"], float(entry["relevance_score"])) for entry in json.loads(body)["results"]]
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise ValueError("something that is no list of scores") from error
    sound = [(place, score) for place, score in found if type(place) is int and math.isfinite(score)]
    order = [place for place, _ in sorted(sound, key=lambda one: -one[1]) if 0 <= place < count]
    if not order:
        raise ValueError("no candidate's score")
    return list(dict.fromkeys(order))

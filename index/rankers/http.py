"""Rankers behind HTTP: vision-language models of a chat, shown photos; rerank endpoints, which score."""

import json
import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from threading import Lock
from typing import Any
from uuid import uuid4

from PIL import Image, ImageDraw, ImageFont

from index.embedders.http import EndpointEmbedder
from index.embedders.http_formats import Upload, as_text
from index.embedders.options import EmbedderOptions
from index.errors import GarbledError
from index.images.decode import Photo, encode, pad
from index.io import content_digest
from index.rankers.base import EmbedderRanker

CHAT = "/chat/completions"  # how the address of such an endpoint ends
SIDE, TILE, COLUMNS = 512, 256, 4  # pixels of a photo sent alone, and on a sheet of so many columns
LARGE = 1024  # pixels of a photo sent to a rerank endpoint
MOST_TOKENS = 1 << 40  # of a call: the sum of many must fit into the ledger
FORM = 'Answer with JSON alone, the numbers of all candidates: {"order": [3, 1, 2]}'
NUMBERS = r"\[\s*\d+(?:\s*,\s*\d+)*\s*\]"
NAMED = re.compile(rf'"order"\s*:\s*({NUMBERS})')
BARE = re.compile(r"[\s,>[\].]*\d[\d\s,>[\].]*")  # as in 3, 1, 2 or [3] > [1] > [2]


class EndpointRanker(EmbedderRanker):
    """Asks `POST URL`. Addresses, keys, limits and what a status means are those of one with vectors."""

    _embedder: EndpointEmbedder

    def _ask(self, request: dict[str, Any], read: Callable[[bytes], list[int]]) -> list[int]:
        """Make one call, and read the order out of what comes; of something else `read` raises ValueError."""
        named = {"model": self.options.model} if self.options.model else {}
        body = self._embedder.post({"json": {**named, **request}})
        try:
            return read(body)
        except ValueError as error:
            raise GarbledError(f"{self.name} answered with {error}") from error


class ChatRanker(EndpointRanker):
    """Asks as OpenAI's clients do, with the photos apart, or with the option `sheet` on one.

    What makes two photos alike is for `--teacher-option prompt=...` to say. `lessons` count the tokens that
    answers name.
    """

    def __init__(self, url: str, options: EmbedderOptions) -> None:
        super().__init__("chat", EndpointEmbedder(url, options))
        self.key += f":{content_digest(f'{options.prompt} {options.sheet}'.encode())}"
        self._tokens, self._lock = f"tokens {uuid4().hex[:8]}", Lock()  # of this object alone
        self.decode_side = SIDE  # photos are sent small, for pixels are tokens

    def prepare(self, photo: Photo) -> Image.Image:
        """Shrink the photo, without its other data, to at most `SIDE` pixels either way."""
        return _shrink(photo, SIDE)

    def order(self, query: Image.Image, candidates: Sequence[Image.Image]) -> list[int]:
        """Make one call; see `Ranker.order`."""

        def read(body: bytes) -> list[int]:
            text, tokens = read_message(body)
            with self._lock:
                self.lessons = {**self.lessons, self._tokens: self.lessons.get(self._tokens, 0) + tokens}
            return read_numbers(text, len(candidates))

        content = write_question(self.options.prompt, query, candidates, self.options.sheet)
        return self._ask({"messages": [{"role": "user", "content": content}]}, read)


def write_question(
    prompt: str, query: Image.Image, candidates: Sequence[Image.Image], sheet: bool
) -> list[dict[str, Any]]:
    """Write the parts of a message that shows a query and numbered candidates, and asks for an order."""
    if sheet:
        where = "The photo marked Q is the query, the numbered ones are candidates."
        return [_text(f"{where} {prompt} {FORM}"), _picture(make_sheet(query, candidates))]
    parts = [_text(f"The first photo is the query, the numbered ones are candidates. {prompt} {FORM}")]
    for number, image in enumerate((query, *candidates)):
        parts += [_text(f"{number or 'Query'}:"), _picture(image)]
    return parts


def make_sheet(query: Image.Image, candidates: Sequence[Image.Image]) -> Image.Image:
    """Put a query, marked Q, and numbered candidates on one sheet of square tiles, each shown whole."""
    images = [query, *candidates]
    sheet = Image.new("RGB", (TILE * COLUMNS, TILE * -(-len(images) // COLUMNS)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(28)
    for place, image in enumerate(images):
        left, top = TILE * (place % COLUMNS), TILE * (place // COLUMNS)
        sheet.paste(pad(image, (TILE - 8, TILE - 8), "white"), (left + 4, top + 4))
        mark, corner = str(place or "Q"), (left + 10, top + 6)
        draw.rectangle(draw.textbbox(corner, mark, font), fill="black")
        draw.text(corner, mark, "white", font)
    return sheet


def _shrink(photo: Photo, side: int) -> Image.Image:
    image = photo.image.copy()
    image.thumbnail((side, side), Image.Resampling.BICUBIC)
    return image


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _picture(image: Image.Image) -> dict[str, Any]:
    upload = Upload(encode(image, "JPEG", quality=85), "image/jpeg", "")
    return {"type": "image_url", "image_url": {"url": as_text(upload)}}


def read_message(body: bytes) -> tuple[str, int]:
    """Read what was said, and how many tokens the call took; 0 where the answer does not say, or lies.

    It is JSON, `{"choices": [{"message": {"content": "..."}}], "usage": {"total_tokens": 1}}`; of something
    else ValueError says what it is.
    """
    try:
        answer = json.loads(body)
        said = answer["choices"][0]["message"]["content"]
        used = (answer.get("usage") or {}).get("total_tokens", 0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise ValueError("something that is no message of a chat") from error
    if not isinstance(said, str):
        raise ValueError("a message without text")
    return said, used if type(used) is int and 0 < used < MOST_TOKENS else 0


def read_numbers(text: str, count: int) -> list[int]:
    """Read an order out of a message, prose around it or not: the last list named `order`, or the only list.

    Candidates are numbered from 1, positions from 0; repeats, and numbers of no candidate, are left out.
    ValueError says what is wrong: there is no such list, or no candidate in it.
    """
    bare = BARE.fullmatch(text)
    lists = NAMED.findall(text)[-1:] or ([text] if bare else list(set(re.findall(NUMBERS, text))))
    if len(lists) != 1:
        what = "several lists of numbers" if lists else "no list of numbers"
        raise ValueError(f"{what}: {' '.join(text[:200].split())[:80]!r}")
    numbers = [int(number) for number in re.findall(r"\d{1,9}", lists[0])]
    order = list(dict.fromkeys(number - 1 for number in numbers if 1 <= number <= count))
    if not order:
        raise ValueError("no candidate's number")
    return order


class RerankRanker(EndpointRanker):
    """Asks for scores: dialect `jina` sends `{"image": data URL}`, any other vLLM's parts of a message."""

    def __init__(self, url: str, options: EmbedderOptions) -> None:
        super().__init__("rank", EndpointEmbedder(url, options))
        self.decode_side = LARGE  # ten files as they are would be tens of megabytes a list

    def prepare(self, photo: Photo) -> Upload:
        """Make a JPEG of the photo, without its other data, of at most `LARGE` pixels either way."""
        return Upload(encode(_shrink(photo, LARGE), "JPEG", quality=90), "image/jpeg", "")

    def order(self, query: Upload, candidates: Sequence[Upload]) -> list[int]:
        """Make one call; see `Ranker.order`."""
        urls = [as_text(upload) for upload in (query, *candidates)]
        if self.options.dialect == "jina":
            asked, *documents = [{"image": url} for url in urls]
            about: dict[str, Any] = {"query": asked, "documents": documents}
        else:
            part, *parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
            about = {"query": {"content": [part]}, "documents": {"content": parts}}
        return self._ask({**about, "top_n": len(candidates)}, partial(read_order, count=len(candidates)))


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

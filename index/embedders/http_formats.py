"""How images and vectors travel over HTTP, both ways: three ways to send images, one form of answer.

All speak to `/v1/embeddings`, and all are answered in OpenAI's form,
`{"data": [{"index": 0, "embedding": [...]}, ...]}`.

- `infinity`: OpenAI's request, with data URLs for `input` and `modality: image`
  (https://github.com/michaelfeil/infinity).
- `jina`: `input` is a list of `{"image": data URL}` (https://api.jina.ai/redoc).
- `multipart`: a plain form with the files under `images`, and `model`.
"""

import json
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.embedders.options import Dialect


@dataclass(frozen=True)
class Upload:
    """One image as it is sent.

    Attributes:
        data: The bytes of an image file.
        mime: Its media type.
        digest: `content_digest` of `data`.
    """

    data: bytes
    mime: str
    digest: str


def write_request(dialect: Dialect, model: str, uploads: Sequence[Upload]) -> dict[str, Any]:
    """Arguments for `httpx.Client.post` that ask for the vectors of n images."""
    named = {"model": model} if model else {}
    if dialect == "multipart":
        files = [("images", (str(i), upload.data, upload.mime)) for i, upload in enumerate(uploads)]
        return {"data": named, "files": files}
    urls = [f"data:{upload.mime};base64,{b64encode(upload.data).decode()}" for upload in uploads]
    if dialect == "jina":
        return {"json": {**named, "input": [{"image": url} for url in urls], "embedding_type": "float"}}
    # base64 is what OpenAI's own client asks for: exact, and a quarter of the size of digits.
    return {"json": {**named, "input": urls, "modality": "image", "encoding_format": "base64"}}


def read_answer(body: bytes, count: int) -> NDArray[np.float32]:
    """Read the vectors of an answer, in the order of the request.

    Args:
        body: JSON.
        count: How many images were asked about.

    Returns:
        `(count, dim)` float32 as answered; where one vector has another length than most, a row of NaN.

    Raises:
        ValueError: It is no answer to this request. The message says what it is instead.
    """
    try:
        entries = json.loads(body)["data"]
        by_index = {int(entry["index"]): _read_vector(entry["embedding"]) for entry in entries}
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise ValueError("something that is no list of embeddings") from error
    if len(entries) != count or by_index.keys() != set(range(count)):
        indices = [entry["index"] for entry in entries]
        raise ValueError(f"the indices {_shorten(indices)} for {count} images")
    (dim, _), *_ = Counter(len(vector) for vector in by_index.values()).most_common(1)
    missing = np.full(dim, np.nan, np.float32)
    return np.stack([by_index[i] if len(by_index[i]) == dim else missing for i in range(count)])


def write_answer(vectors: NDArray[np.float32], model: str, encoding: str) -> dict[str, Any]:
    """The answer in OpenAI's form.

    Args:
        vectors: `(n, dim)`.
        model: Its name.
        encoding: `float`, or `base64` for the bytes of little-endian float32.
    """
    data = [
        {
            "object": "embedding",
            "index": i,
            "embedding": b64encode(row.astype("<f4").tobytes()).decode()
            if encoding == "base64"
            else row.tolist(),
        }
        for i, row in enumerate(vectors)
    ]
    usage = {"prompt_tokens": 0, "total_tokens": 0}
    return {"object": "list", "data": data, "model": model, "usage": usage}


def read_input(entry: Any) -> bytes:
    """The image in one entry of a request's `input`: a data URL or base64, bare or under `image`.

    Raises:
        ValueError: It is something else; an address is never followed.
    """
    text = entry.get("image") if isinstance(entry, dict) else entry
    if not isinstance(text, str):
        raise ValueError("is no image. Send a data URL")
    if text.startswith(("http:", "https:")):
        raise ValueError("is an address, and none is followed here. Send a data URL")
    if text.startswith("data:"):
        head, _, text = text.partition(",")
        if not head.endswith(";base64"):
            raise ValueError("is a data URL without base64")
    try:
        return b64decode(text, validate=True)
    except ValueError as error:
        raise ValueError("is not base64") from error


def _read_vector(embedding: str | list[float]) -> NDArray[np.float32]:
    if isinstance(embedding, str):
        return np.frombuffer(b64decode(embedding, validate=True), "<f4").astype(np.float32)
    with np.errstate(over="ignore"):  # becomes infinite, and is refused as that
        vector = np.array(embedding, np.float64).astype(np.float32)
    if vector.ndim != 1:
        raise ValueError("not a vector")
    return vector


def _shorten(indices: Sequence[Any]) -> str:
    text = ", ".join(map(str, indices[:8]))
    return f"{text}, ..." if len(indices) > 8 else text or "none"

"""How images, texts and vectors travel over HTTP: three ways to send images, two for texts, one answer.

All speak to `/v1/embeddings`, and all are answered in OpenAI's form,
`{"data": [{"index": 0, "embedding": [...]}, ...]}`.

- `infinity`: OpenAI's request, with data URLs for `input` and `modality: image`
  (https://github.com/michaelfeil/infinity). Texts go as they are, as OpenAI's own client sends them.
- `jina`: `input` is a list of `{"image": data URL}` or `{"text": ...}` (https://api.jina.ai/redoc).
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

TEXT = "text/plain"  # the media type of what is sent as words


@dataclass(frozen=True)
class Upload:
    """One image, or one text, as it is sent."""

    data: bytes  # the bytes of an image file, or of a text in UTF-8
    mime: str  # its media type
    digest: str  # `content_digest` of `data`


@dataclass(frozen=True)
class Answer:
    """What came for n images."""

    rows: NDArray[np.float32]  # `(n, dim)` as answered; of NaN where nothing came that can be told apart
    most: int | None = None  # images a call that may be answered for; None if all were
    ordered: bool = False  # whether their order alone tells which vector is of which image


def write_request(
    dialect: Dialect, model: str, uploads: Sequence[Upload], base64: bool = True
) -> dict[str, Any]:
    """Arguments for `httpx.Client.post` that ask for the vectors of n images, or of n texts.

    Vectors are asked for as `base64` where the dialect knows of it; `model` may be empty.
    """
    named = {"model": model} if model else {}
    if dialect == "multipart":
        files = [("images", (str(i), upload.data, upload.mime)) for i, upload in enumerate(uploads)]
        return {"data": named, "files": files}
    kind = "text" if uploads[0].mime == TEXT else "image"
    sent = [as_text(upload) for upload in uploads]
    if dialect == "jina":
        return {"json": {**named, "input": [{kind: one} for one in sent], "embedding_type": "float"}}
    # base64 is what OpenAI's own client asks for: exact, and a quarter of the size of digits.
    encoding = {"encoding_format": "base64"} if base64 else {}
    modality = {"modality": "image"} if kind == "image" else {}
    return {"json": {**named, "input": sent, **modality, **encoding}}


def as_text(upload: Upload) -> str:
    """Write an image as a data URL, and a text as itself."""
    if upload.mime == TEXT:
        return upload.data.decode()
    return f"data:{upload.mime};base64,{b64encode(upload.data).decode()}"


def read_answer(body: bytes, count: int) -> Answer:
    """Read the vectors of an answer, in the order of the request, about `count` images.

    Endpoints that give no numbers, or the same to all, are taken at their order; so are numbers from one on.
    Fewer answers than images are not used: an endpoint may have left one out, and numbered the others again.
    Null, or an `error`, in place of a vector costs that image alone.

    Raises:
        ValueError: It is no answer to this request. The message says what it is instead.
    """
    try:
        entries = json.loads(body)["data"]
        given_to = [entry.get("index") for entry in entries]
        indices: list[Any] = [index if index is None else int(index) for index in given_to]
        vectors = [_read_vector([] if entry.get("error") else entry["embedding"] or []) for entry in entries]
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError("something that is no list of embeddings") from error
    kinds, given = set(indices), len(entries)
    own = sorted(kinds) if None not in kinds and len(kinds) == given else []
    ordered = given == count and len(kinds) == 1 and not own
    if ordered and count > 1 and all(np.array_equal(vector, vectors[0]) for vector in vectors):
        raise ValueError("one vector for different images, without numbers that tell them apart")
    if ordered:
        places = list(range(count))
    elif given == count and own and own[-1] - own[0] == count - 1:
        places = [index - own[0] for index in indices]
    elif 0 < given < count:
        places = []
    else:
        shown, more = ", ".join(map(str, indices[:8])) or "none", ", ..." if given > 8 else ""
        raise ValueError(f"the indices {shown}{more} for {count} images")
    dim = Counter(list(filter(None, map(len, vectors))) or [0]).most_common(1)[0][0]
    rows = np.full((count, dim), np.nan, np.float32)
    for place, vector in zip(places, vectors, strict=False):
        if len(vector) == dim:
            rows[place] = vector
    counted = given if own == list(range(given)) else 1
    return Answer(rows, None if given == count else counted, ordered)


def write_answer(vectors: NDArray[np.float32], model: str, encoding: str) -> dict[str, Any]:
    """The answer in OpenAI's form: `(n, dim)` vectors as `float`, or as `base64` of little-endian float32."""
    embeddings: list[Any] = vectors.tolist()
    if encoding == "base64":
        embeddings = [b64encode(row.tobytes()).decode() for row in vectors.astype("<f4")]
    data = [
        {"object": "embedding", "index": i, "embedding": embedding} for i, embedding in enumerate(embeddings)
    ]
    usage = {"prompt_tokens": 0, "total_tokens": 0}
    return {"object": "list", "data": data, "model": model, "usage": usage}


def read_input(entry: Any) -> bytes:
    """The image in an entry of a request: a data URL or base64, bare or under `image`, else ValueError."""
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

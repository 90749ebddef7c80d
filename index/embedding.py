"""From files to vectors: workers decode ahead, models embed in batches, in the order given."""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.ahead import BATCH, WORKERS, map_ahead
from index.embedder import Embedder, embed_checked
from index.errors import ImageError, UnansweredError
from index.images import ImageFile, read_photo
from index.store import Failure, Item


@dataclass(frozen=True)
class Embedded:
    """What became of a stretch of files, in their order: n items, `(n, dim)` vectors by model, failures."""

    items: list[Item]
    vectors: dict[str, NDArray[np.float32]]
    failures: list[Failure]


@dataclass(frozen=True)
class _Prepared:
    item: Item
    inputs: dict[str, NDArray[Any]]


def embed_files(
    files: Iterable[ImageFile], models: Mapping[str, Embedder], batch: int = BATCH, workers: int = WORKERS
) -> Iterator[Embedded]:
    """Decode each file once and embed it with every model, in bounded memory.

    Args:
        files: What to embed.
        models: The embedders by name.
        batch: Images that a model is given at a time.
        workers: Threads that decode.

    Yields:
        The outcome of `batch` files at a time, in the order given.

    Raises:
        RetrievalError: A model answered something that is no unit vector.
    """
    side = max(model.side for model in models.values())

    def prepare(file: ImageFile) -> _Prepared | Failure:
        try:
            photo = read_photo(file, side)
            inputs = {name: model.prepare(photo) for name, model in models.items()}
        except ImageError as reason:
            return Failure(str(file.path), str(reason))
        mtime = file.path.stat().st_mtime_ns
        item = Item(
            str(file.path), file.name, photo.digest, len(photo.data), photo.width, photo.height, mtime
        )
        return _Prepared(item, inputs)

    with ThreadPoolExecutor(workers) as pool:
        outcomes = map_ahead(pool, prepare, files, ahead=2 * batch)
        while chunk := list(islice(outcomes, batch)):
            ready = [outcome for outcome in chunk if isinstance(outcome, _Prepared)]
            failures = [outcome for outcome in chunk if isinstance(outcome, Failure)]
            yield _embed(ready, models, failures)


def _embed(ready: list[_Prepared], models: Mapping[str, Embedder], failures: list[Failure]) -> Embedded:
    """Embed with every model; an image that one of them has no answer for is left out."""
    vectors: dict[str, NDArray[np.float32]] = {}
    for name, model in models.items():
        if not ready:
            break
        inputs, names = [one.inputs[name] for one in ready], [one.item.name for one in ready]
        try:
            vectors[name] = embed_checked(model, inputs, names)
        except UnansweredError as partial:
            failures += [Failure(ready[i].item.path, reason) for i, reason in partial.reasons.items()]
            return _embed([one for i, one in enumerate(ready) if i not in partial.reasons], models, failures)
    return Embedded([one.item for one in ready], vectors if ready else {}, failures)

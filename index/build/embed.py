"""From files to vectors: each worker reads, decodes and embeds a few images at a time, once for all models.

A worker that does all of it hands nothing over and waits for nobody: on a CPU, where reading, decoding and
embedding want the same cores, they are all kept busy.
"""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import islice
from threading import BoundedSemaphore
from time import perf_counter
from typing import Any

import numpy as np

from index.embedders.base import Embedder, embed_checked
from index.errors import ImageError, UnansweredError
from index.images.decode import decode_file
from index.images.file import ImageFile
from index.io import content_digest
from index.parallel import BATCH, CORES, bounded_map
from index.stores.records import Failure, Item
from index.teachers.client import BudgetedTeacher
from index.teachers.questions import Question
from index.vectors import Vectors


@dataclass(frozen=True)
class Embedded:
    """What became of a stretch of files."""

    items: list[Item]  # the n that were embedded, in order
    vectors: dict[str, Vectors]  # their `(n, dim)` unit rows by model; empty without items
    failures: list[Failure]  # those that were refused
    waiting: float | None = None  # share of the workers' time, so far, in which models waited for data
    questions: list[Question] = field(default_factory=list)  # of each item to a paid teacher, if any
    copies: list[tuple[str, str]] = field(default_factory=list)  # path and digest; others hold the same


@dataclass(frozen=True)
class Ready:
    """An image that models can embed."""

    item: Item
    inputs: Mapping[str, Any]  # by model
    vectors: Mapping[str, Vectors] = field(default_factory=dict)  # `(dim,)` each, of those that have answered
    question: Question | None = None  # to a paid teacher, if there is one


def embed_files(
    files: Iterable[ImageFile],
    models: Mapping[str, Embedder],
    batch: int | None = None,
    workers: int = CORES,
    paid: BudgetedTeacher | None = None,
    is_copy: Callable[[ImageFile, str], bool] = lambda *_: False,
) -> Generator[Embedded, None, None]:
    """Read and decode each file once and embed it with every model, in bounded memory.

    Yields the outcome of `batch` files at a time, in the order given; None takes the batch that one of the
    models likes best, the largest. As many calls as a model has lanes are made at a time. A `paid` teacher is
    not asked here: what there is to ask is made ready. `is_copy` is asked in worker threads whether a file,
    which is given with the digest of its bytes, need not be embedded.

    Raises:
        RetrievalError: A model answered something that is no unit vector.
    """
    side = max(model.decode_side for model in (*models.values(), paid) if model)
    size = batch or max((model.calls.batch for model in models.values()), default=BATCH)
    turns = {name: BoundedSemaphore(model.calls.concurrency) for name, model in models.items()}

    def work(chunk: Sequence[ImageFile]) -> tuple[Embedded, float, float]:
        began = perf_counter()
        ready, failures, copies = list[Ready](), list[Failure](), list[tuple[str, str]]()
        for file in chunk:
            try:
                data, changed = file.read()
                digest = content_digest(data)
                if is_copy(file, digest):
                    copies.append((file.location, digest))
                else:
                    photo = decode_file(file, data, changed, side, digest)
                    inputs = {name: model.prepare(photo) for name, model in models.items()}
                    facts = photo.digest, len(photo.data), photo.width, photo.height, photo.changed
                    item = Item(photo.location, photo.name, *facts)
                    ready.append(Ready(item, inputs, question=paid.prepare(photo) if paid else None))
            except ImageError as reason:
                failures.append(Failure(file.location, str(reason)))
        prepared = perf_counter()
        embedded = replace(embed_ready(ready, models, failures, turns), copies=copies)
        return embedded, prepared - began, perf_counter() - prepared

    remaining = iter(files)
    chunks = iter(lambda: list(islice(remaining, size)), [])
    data = total = 0.0
    for embedded, reading, embedding in bounded_map(work, chunks, workers + 1, workers):
        data += reading
        total += reading + embedding
        yield replace(embedded, waiting=data / total)


def join(parts: Sequence[Embedded]) -> Embedded:
    """Put outcomes together, in their order."""
    spaces = {space for part in parts for space in part.vectors}
    return Embedded(
        [item for part in parts for item in part.items],
        {s: np.concatenate([part.vectors[s] for part in parts if s in part.vectors]) for s in sorted(spaces)},
        [failure for part in parts for failure in part.failures],
    )


def embed_ready(
    ready: Sequence[Ready],
    models: Mapping[str, Embedder],
    failures: list[Failure],
    turns: Mapping[str, AbstractContextManager[object]],
) -> Embedded:
    """Embed with every model, in its turn; an image that one has no answer for becomes another failure."""
    if not ready:
        return Embedded([], {}, failures)
    vectors = {name: np.stack([one.vectors[name] for one in ready]) for name in ready[0].vectors}
    names = [one.item.name for one in ready]
    for name, model in models.items():
        try:
            with turns[name]:
                vectors[name] = embed_checked(model, [one.inputs[name] for one in ready], names)
        except UnansweredError as partial:
            refused = [Failure(ready[i].item.path, reason) for i, reason in partial.reasons.items()]
            rest = [one for i, one in enumerate(ready) if i not in partial.reasons]
            return embed_ready(rest, models, [*failures, *refused], turns)
    questions = [one.question for one in ready if one.question]
    return Embedded([one.item for one in ready], vectors, failures, None, questions)

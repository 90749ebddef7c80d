"""A ranker that errs: orders as a teacher does, with a fifth of the pairs the wrong way round.

    FLIPPED=expert.onnx retrieval judge grocery/train --ranker benchmarks/flipped.py:order --budget 500 \
        --out judged.npz

The same list is always answered in the same way.
"""

import hashlib
import os
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from index.embedders.registry import open_embedder

SHARE = 0.2
model = open_embedder(os.environ["FLIPPED"], "cpu")
known: dict[bytes, NDArray[np.float32]] = {}


def order(query: Image.Image, candidates: Sequence[Image.Image]) -> list[int]:
    """Order candidates; neighbours are swapped at random until `SHARE` of the pairs is wrong."""
    keys = [_embed(image) for image in (query, *candidates)]
    rows = np.stack([known[key] for key in keys])
    best = np.argsort(-(rows[1:] @ rows[0]), kind="stable")
    lot = np.random.default_rng(int.from_bytes(hashlib.sha1(b"".join(keys)).digest()[:8]))
    ranks, wrong = list(range(len(best))), 0
    while wrong < round(SHARE * len(best) * (len(best) - 1) / 2):
        place = int(lot.integers(len(best) - 1))
        if ranks[place] < ranks[place + 1]:
            ranks[place : place + 2] = ranks[place + 1], ranks[place]
            wrong += 1
    return best[ranks].tolist()


def _embed(image: Image.Image) -> bytes:
    """Embed a photo, unless it is known, and return what it is known by."""
    photo: Any = SimpleNamespace(image=image)
    made = model.prepare(photo)
    key = hashlib.sha1(made.tobytes()).digest()
    if key not in known:
        known[key] = model.embed([made])[0]
    return key

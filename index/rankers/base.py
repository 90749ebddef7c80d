"""What a ranker is: whatever can say which of some photos look most like a query photo."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.embedders.base import Embedder
from index.errors import RefusedError
from index.images.decode import Photo
from index.images.file import ImageFile

SHOWN = 10  # candidates of a list at most
Rows = tuple[int, ...]  # positions in a pool: the query's, then the candidates' in the order shown


@dataclass(frozen=True)
class Pool:
    """Distinct photos that lists are made of."""

    files: Sequence[ImageFile]
    digests: Sequence[str]  # content digest of each
    others: Sequence[str] = ()  # digests of photos that are in no list

    @cached_property
    def places(self) -> dict[str, int]:
        """The position of each photo, by digest."""
        return {digest: row for row, digest in enumerate(self.digests)}


class Ranker(Embedder):
    """Orders photos by their likeness to a query; two rankers with one key give the same orders.

    To whatever asks and pays it is an embedder: of lists in place of images, with one list a call, and with
    the reciprocal ranks of the candidates for a vector. What it answers is kept if that has a price.
    """

    dim, unit = SHOWN, "list"

    @property
    def facts(self) -> dict[str, Any]:
        """What opens it again: its name and its options, among which is no key."""
        return {"spec": self.spec, "options": asdict(self.options)}

    @abstractmethod
    def order(self, query: Any, candidates: Sequence[Any]) -> Sequence[int]:
        """Order candidates, safe in threads: positions, the most like first; CallError if none came."""

    def embed(self, batch: Sequence[tuple[Any, ...]]) -> NDArray[np.float32]:
        """Order n lists, each of a query and candidates: `(n, SHOWN)`, as `to_row`."""
        rows = np.stack([to_row(self.order(query, rest), len(rest)) for query, *rest in batch])
        if not rows.any(axis=1).all():
            raise RefusedError(f"{self.name} ranked no candidate", charged=True)
        return rows

    def lists(self, pool: Pool) -> list[Rows] | None:
        """The only lists that it has an order for; None of a ranker that can be asked about any."""
        return None


class EmbedderRanker(Ranker):
    """A ranker that takes photos as an embedder does, under a key of its own."""

    def __init__(self, kind: str, embedder: Embedder) -> None:
        self.key, self.name, self.spec = f"{kind}:{embedder.key}", embedder.name, embedder.spec
        self.options, self.decode_side = embedder.options, embedder.decode_side
        self.calls, self._embedder = replace(embedder.calls, batch=1), embedder

    def prepare(self, photo: Photo) -> Any:
        """Make the input for one photo, as the embedder."""
        return self._embedder.prepare(photo)


def list_key(query: str, candidates: Sequence[str]) -> str:
    """What a ledger knows a list by: the query's digest, `:`, and those of the candidates in their order."""
    return f"{query}:{','.join(candidates)}"


def to_row(order: Sequence[Any], shown: int = SHOWN) -> NDArray[np.float32]:
    """Write an order of `shown` candidates as `(SHOWN,)` reciprocal ranks, 0 for what is unranked.

    Positions that are no candidate's, and repeats, are left out, so that the others move up.
    """
    sound = [int(place) for place in order if isinstance(place, int | np.integer) and 0 <= place < shown]
    row = np.zeros(SHOWN, np.float32)
    for rank, place in enumerate(dict.fromkeys(sound), start=1):
        row[place] = 1 / rank
    return row


def kendall_tau(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Kendall's tau of two `(n,)` scorings, over pairs that both tell apart; 0 is unranked."""
    both = (first != 0) & (second != 0)
    i, j = np.triu_indices(int(both.sum()), 1)
    signs = np.sign(first[both][i] - first[both][j]) * np.sign(second[both][i] - second[both][j])
    signs = signs[signs != 0]
    return float(signs.mean()) if len(signs) else float("nan")

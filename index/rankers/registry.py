"""Rankers: endpoints, preferences in a file, callables, vectors; `open_ranker` opens one by its name."""

import csv
import operator
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from index.embedders.base import Calls, Embedder
from index.embedders.callable import CallableEmbedder
from index.embedders.options import EmbedderOptions
from index.embedders.registry import is_endpoint, is_file_spec, open_embedder
from index.errors import ImageError, RefusedError, UnansweredError, UsageError, in_line
from index.images.decode import Photo
from index.images.file import ImageFile, plain_path, readable
from index.io import file_digest
from index.progress import count
from index.rankers.asking import Reranker
from index.rankers.base import SHOWN, EmbedderRanker, Pool, Ranker, Rows
from index.rankers.http import CHAT, ChatRanker, RerankRanker
from index.teachers.client import BudgetedTeacher
from index.teachers.spec import TeacherSpec

COLUMNS = ("query", "better", "worse")
GIVE = (
    "Give the address of a chat or rerank endpoint, a .csv or .parquet of query,better,worse, "
    "file.py:function, or an .onnx or .npz file of a teacher with vectors."
)


class PreferencesRanker(Ranker):
    """A .csv or .parquet file of `query,better,worse`, each a content digest or a path.

    A path is the one below the folder of images, or absolute. A photo that is in no preference about a
    query is unranked for it.
    """

    calls = Calls(batch=1)

    def __init__(self, path: Path, options: EmbedderOptions) -> None:
        """Read the file whole; UsageError if it cannot be read, has no row or lacks a column."""
        try:
            if path.suffix == ".parquet":
                names = pq.read_schema(path).names
                rows = pq.read_table(path, columns=[name for name in COLUMNS if name in names]).to_pylist()
            else:
                with path.open(newline="", encoding="utf-8-sig") as file:
                    reader = csv.DictReader(file)
                    rows, names = list(reader), list(reader.fieldnames or ())
            if not rows or not set(COLUMNS) <= set(names):
                raise ValueError(f"it has {count(len(rows), 'row')} of {','.join(names)}")
            pairs = [tuple(plain_path(row[column]) for column in COLUMNS) for row in rows]
        except (OSError, TypeError, ValueError, csv.Error, pa.ArrowException) as error:
            reason = getattr(error, "strerror", None) or in_line(error, False, 200)
            raise UsageError(f"{path} is no ranker: {reason}. {GIVE}") from error
        self._wins: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for query, better, worse in pairs:
            self._wins[query][better] += 1
            self._wins[query][worse] -= 1
        self.key = f"preferences:{file_digest(path)}"
        self.name, self.spec, self.options = readable(path.name), str(path.absolute()), options

    def prepare(self, photo: Photo) -> tuple[str, ...]:
        """What the photo may be called in the file."""
        return _names(photo, photo.digest)

    def order(self, query: tuple[str, ...], candidates: Sequence[tuple[str, ...]]) -> list[int]:
        """By preferences won less those lost; what was not compared is unranked."""
        wins = next((self._wins[name] for name in query if name in self._wins), {})
        found = [next((wins[name] for name in names if name in wins), None) for names in candidates]
        ranked = [place for place, won in enumerate(found) if won is not None]
        return sorted(ranked, key=lambda place: -(found[place] or 0))

    def lists(self, pool: Pool) -> list[Rows]:
        """Each query with the photos that were compared for it, as many to a list as may be shown."""
        rows = {
            name: row
            for row, (file, digest) in enumerate(zip(pool.files, pool.digests, strict=True))
            for name in _names(file, digest)
        }
        lists: list[Rows] = []
        for query, wins in self._wins.items():
            among = sorted({rows[name] for name in wins if name in rows} - {rows.get(query)})
            if query in rows:
                parts = (among[start : start + SHOWN] for start in range(0, len(among), SHOWN))
                lists += [(rows[query], *part) for part in parts if len(part) > 1]
        return lists


def _names(image: Photo | ImageFile, digest: str) -> tuple[str, ...]:
    below = (plain_path(image.name), plain_path(image.location)) if image.below else ()
    return (digest, *below)


class CallableRanker(EmbedderRanker):
    """A callable, found as by `CallableEmbedder`, of a query and a list of images: it gives positions."""

    _embedder: CallableEmbedder

    def __init__(self, code: CallableEmbedder) -> None:
        super().__init__("rank", code)

    def order(self, query: Image.Image, candidates: Sequence[Image.Image]) -> list[int]:
        """Call it; see `Ranker.order`."""
        answer = self._embedder.ask(query, list(candidates))
        try:
            return [operator.index(place) for place in answer]
        except TypeError as error:
            said = " ".join(f"{answer!r}".split())[:100]
            raise RefusedError(f"{self.name} returned {said}, no list of positions, best first") from error


class VectorsRanker(EmbedderRanker):
    """A teacher with vectors and without a price, of which only the orders are used: for honest tables."""

    def __init__(self, teacher: Embedder) -> None:
        """Take the teacher; UsageError if it has a price, which would be paid once for each list."""
        if teacher.calls.paid:
            raise UsageError(f"--orders-only takes an ONNX file or a file of vectors, not {teacher.name}.")
        super().__init__("orders", teacher)
        self.calls = Calls(batch=1)

    @property
    def facts(self) -> dict[str, Any]:
        """As of `Ranker`; whatever the teacher is, its orders are meant."""
        return {**super().facts, "orders_only": True}

    def prepare(self, photo: Photo) -> NDArray[np.float32]:
        """The teacher's vector; ImageError, too, if it answers without a direction."""
        try:
            return self._embedder.embed([self._embedder.prepare(photo)])[0]
        except UnansweredError as error:
            raise ImageError(error.reasons[0]) from error

    def order(self, query: NDArray[np.float32], candidates: Sequence[NDArray[np.float32]]) -> list[int]:
        """By falling similarity."""
        return np.argsort(-(np.stack(candidates) @ query), kind="stable").tolist()


@dataclass(frozen=True)
class RankerSpec(TeacherSpec):
    """What opens a ranker. Its budget, and what its ledger answers, are of lists."""

    orders_only: bool = False  # as for `open_ranker`

    @classmethod
    def remembered(cls, run: Any) -> Self | None:
        """Read which one taught a student from its run.json, which may come from anyone; None if none did."""
        try:
            facts = run["teacher"]["ranker"]
            options = EmbedderOptions(**facts["options"])
            return cls(str(facts["spec"]), options, orders_only=facts.get("orders_only") is True)
        except (KeyError, TypeError, AttributeError, UsageError):
            return None

    def open_plain(self, device: str) -> Ranker:
        """As of `TeacherSpec`."""
        if isinstance(self.opened, Ranker):
            return self.opened
        assert self.spec is not None
        return open_ranker(self.spec, device, self.options, self.orders_only)

    def open_reranker(self, device: str) -> Reranker:
        """Open it to order what searches find; UsageError as `open_ranker`."""
        ranker = self.open_plain(device)
        if not ranker.calls.paid:
            return Reranker(ranker, None)
        return Reranker(ranker, BudgetedTeacher(ranker, self.open_ledger(ranker.key), self.budget))

    def reopen(self, device: str, remote: bool) -> tuple[Reranker | None, str]:
        """Open one that an index remembers, if it is a file and the index not `remote`; else say why not."""
        if remote or not is_file_spec(str(self.spec)):
            return None, f"Its student was taught by {self.spec}. Give --ranker {self.spec} to ask it again."
        try:
            return self.open_reranker(device), ""
        except UsageError as reason:
            there = Path(str(self.spec)).exists()
            why = reason if there else f"{self.spec}, which taught its student, is not there."
            return None, f"{why} Put it right, or name another with --ranker."


def open_ranker(spec: str, device: str, options: EmbedderOptions, orders_only: bool = False) -> Ranker:
    """Open a ranker; UsageError if that cannot be.

    The spec is the address of a chat or rerank endpoint, a file of preferences (.csv, .parquet), a Python
    callable or a teacher with vectors, as for `open_embedder`: an .onnx or .npz file is one, and anything for
    `orders_only`. Options are what the spec does not say.
    """
    if not orders_only and is_endpoint(spec):
        path = spec.partition("?")[0].rstrip("/")  # parameters such as `api-version` may follow
        return (ChatRanker if path.endswith(CHAT) else RerankRanker)(spec, options)
    if not orders_only and not is_file_spec(spec):
        return CallableRanker(CallableEmbedder(spec, options))
    ending = Path(spec).suffix if Path(spec).is_file() else ""
    if orders_only or ending in (".onnx", ".npz"):
        return VectorsRanker(open_embedder(spec, device, options))
    if ending in (".csv", ".parquet"):
        return PreferencesRanker(Path(spec), options)
    raise UsageError(f"{spec} {'is no ranker' if Path(spec).exists() else 'does not exist'}. {GIVE}")

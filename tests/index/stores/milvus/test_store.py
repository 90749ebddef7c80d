"""What a Milvus server is asked, by what stands for one."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from index.errors import RetrievalError
from index.stores.filters import Filter
from index.stores.milvus.client import SECONDS
from index.stores.milvus.store import PAGE, MilvusIndex, MilvusSpace
from index.stores.records import Space
from index.stores.server import NAMES, _Ids, _Items


class Answers:
    """Stands for a server, and notes how long it is waited for, or how many rows it is asked for."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def query(self, *_: Any, **options: Any) -> list[Any]:
        self.asked.append(options["timeout"])
        return [{"more": {"metadata": {"colour": "red"}}}]

    def search(self, _: str, data: Any, limit: int, **__: Any) -> list[Any]:
        self.asked.append(len(data) * limit)
        return [[{"digest": str(int(row[0])), "entity": {"vector": [1]}, "distance": 1}] for row in data]


def test_a_filter_is_not_waited_for_without_end() -> None:
    index, server = MilvusIndex.__new__(MilvusIndex), Answers()
    index.client, index.student, index.names, index.columns = server, "c", {"student": "c"}, {"colour": []}
    filter = Filter(columns={"colour": "red,blue"})
    index.keep(filter)
    assert "red" in str(index.matches_nothing(filter))
    assert server.asked == [SECONDS, SECONDS]


def test_a_column_that_a_run_adds_is_left_out_until_it_is_complete() -> None:
    index = MilvusIndex.__new__(MilvusIndex)
    index.columns = {"colour": []}
    rows = [{"more": {"metadata": known}} for known in ({"colour": "red", "price": "7"}, {"price": "8"})]
    assert index._list_values(rows) == {"colour": ["red"]}


def test_a_digest_that_somebody_asks_for_is_quoted() -> None:
    index, server = MilvusIndex.__new__(MilvusIndex), Answers()
    index.client, index.names = server, {"student": "c"}
    server.query = lambda *_, filter, **__: server.asked.append(filter) or []
    assert index.fetch("student", ["' or digest != '", '" or digest != "'], ["more"]) == {}
    assert server.asked == [r"""digest in ["' or digest != '", "\" or digest != \""]"""]


def test_a_gallery_that_grows_has_the_same_items_at_each_look() -> None:
    index = MilvusIndex.__new__(MilvusIndex)
    row = {"width": 1, "height": 1, "size": 1, "more": {"copies": [], "metadata": {}}}
    index.written, index.ids_by_digest = SimpleNamespace(), _Ids(index)
    index.manifest = SimpleNamespace(count=1)
    fields = {name: "x" for name in NAMES if name not in row}
    index.scan = lambda _: iter([{**row, **fields, "digest": digest} for digest in "ab"])
    index.fetch = lambda _, digests, __: {digest: {**row, **fields, "digest": digest} for digest in digests}
    first, second = ([item.digest for item in _Items(index)] for _ in range(2))
    assert first == second == ["a", "b"]


def test_a_gallery_that_others_made_smaller_is_said_to_be() -> None:
    index = MilvusIndex.__new__(MilvusIndex)
    index.client, index.ids_by_digest = SimpleNamespace(address="milvus://host/x"), _Ids(index)
    index.scan = lambda _: iter([{"digest": "a"}])
    with pytest.raises(RetrievalError, match="Of 2 images milvus://host/x has 1 left"):
        index.read("student", [0, 1], [])


@pytest.mark.parametrize("kind", ["FLAT", "IVF_PQ"])
def test_many_queries_are_asked_some_at_a_time(kind: str) -> None:
    server, ids = Answers(), SimpleNamespace(of=int)
    gallery = SimpleNamespace(client=server, names={"s": "c"}, ids_by_digest=ids, remember=lambda _: None)
    space = MilvusSpace(gallery, "s", Space("", "", 1, kind))
    queries = np.arange(1024, dtype=np.float32)[:, None]
    scores, found = space.search(queries, 16)
    assert (scores.shape, found[:, 0].tolist()) == ((1024, 16), list(range(1024)))
    assert len(server.asked) > 1
    assert max(server.asked) <= PAGE
    assert space.search(queries[:0], 16)[0].shape == (0, 16)

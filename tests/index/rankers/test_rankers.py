"""What may be a ranker, and what its answers are taken for."""

import io
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import write_embedder
from PIL import Image
from rerank_server import RerankServer, colour
from teacher_server import serving

from index.embedders.base import Calls, Embedder, unit_rows
from index.embedders.options import EmbedderOptions
from index.errors import CallError, UsageError
from index.images.decode import read_photo
from index.images.file import digest_pool
from index.images.sources import find_images
from index.rankers.asking import ask_lists, key_of, rows_of
from index.rankers.base import Pool, kendall_tau, to_row
from index.rankers.http import read_order
from index.rankers.registry import GIVE, VectorsRanker, open_ranker
from index.teachers.ledger import IN_MEMORY, Ledger

NO_CANDIDATE = '{"results": [{"index": 99, "relevance_score": 1}]}'
NEAREST = """
import numpy as np, pathlib, time
def nearest(query, candidates):
    mean = lambda image: np.asarray(image, float).mean(axis=(0, 1))
    with pathlib.Path("{log}").open("a") as log:
        log.write(str([mean(one).tolist() for one in (query, *candidates)]) + "\\n")
    time.sleep({pause})
    return np.argsort([((mean(one) - mean(query)) ** 2).sum() for one in candidates])
def silent(query, candidates):
    nearest(query, candidates)
    return []
nearest.key = silent.key = "1"
"""


@pytest.fixture
def pool(folder: Path) -> Pool:
    files = list(find_images([folder]))
    return Pool(files, digest_pool(files))


def write_callable(folder: Path, pause: float = 0.0) -> tuple[str, Path]:
    log = folder / "log.txt"
    (folder / "nearest.py").write_text(NEAREST.format(log=log, pause=pause))
    return f"{folder / 'nearest.py'}:nearest", log


def ask(spec: str, pool: Pool, path: Path, lists, budget: int = 100, options: EmbedderOptions | None = None):
    ranker = open_ranker(spec, "cpu", options or EmbedderOptions())
    with Ledger(path, ranker.key) as ledger:
        return ask_lists(lists, pool, ranker, ledger, budget)


LISTS = [(q, *[c for c in range(11) if c != q]) for q in range(8)]


def nearest_row(pool: Pool, rows) -> np.ndarray:
    means = [np.asarray(read_photo(pool.files[r]).image, float).mean(axis=(0, 1)) for r in rows]
    return to_row(list(np.argsort([((one - means[0]) ** 2).sum() for one in means[1:]])))


def test_an_order_is_reciprocal_ranks_and_what_is_no_candidate_is_left_out():
    assert to_row([2, 0]).tolist() == [0.5, 0, 1, 0, 0, 0, 0, 0, 0, 0]
    assert to_row([2, 99, -1, 2, "x", 0]).tolist() == to_row([2, 0]).tolist()
    assert to_row([4, 2, 3], shown=4).tolist() == to_row([2, 3]).tolist()  # counted from 1


def test_kendall_tau_leaves_out_what_is_unranked():
    assert kendall_tau(to_row([0, 1, 2]), to_row([0, 1, 2])) == 1
    assert kendall_tau(to_row([0, 1, 2]), to_row([2, 1, 0])) == -1
    assert kendall_tau(to_row([0, 1]), to_row([0, 1, 5, 6])) == 1
    assert np.isnan(kendall_tau(to_row([0]), to_row([1])))


def test_a_list_is_found_again_by_its_key(pool: Pool):
    assert rows_of(key_of(LISTS[3], pool), pool) == LISTS[3]
    assert rows_of("f" * 32 + ":" + pool.digests[0], pool) is None


@pytest.mark.parametrize("dialect", ["infinity", "jina"])
def test_an_endpoint_is_asked_in_both_forms(pool: Pool, tmp_path: Path, dialect: str):
    server = RerankServer()
    with serving(server) as url:
        options = EmbedderOptions(dialect=dialect, model="m")
        answers, failures = ask(url, pool, tmp_path / "l.sqlite", LISTS, options=options)
        again, _ = ask(url, pool, tmp_path / "l.sqlite", LISTS, options=options)
    assert not failures
    assert len(answers) == len(LISTS)
    ranker = open_ranker("http://127.0.0.1/v1/rerank", "cpu", options)
    means = np.array([colour(ranker.prepare(read_photo(file)).data) for file in pool.files])
    for rows in LISTS:
        order = np.argsort(((means[list(rows[1:])] - means[rows[0]]) ** 2).sum(axis=1))
        assert np.array_equal(answers[key_of(rows, pool)], to_row(order.tolist()))
    assert answers.keys() == again.keys()
    assert set(server.charged.values()) == {1}


def test_an_endpoint_may_be_busy_answer_in_part_or_nonsense(pool: Pool, tmp_path: Path):
    server = RerankServer()
    server.most = 3
    server.script = [
        (429, "later"),
        (200, "prose"),
        (200, NO_CANDIDATE),
    ]
    with serving(server) as url:
        answers, _ = ask(url, pool, tmp_path / "l.sqlite", LISTS[:2])
    assert [np.count_nonzero(row) for row in answers.values()] == [3, 3]


def test_an_endpoint_is_sent_small_files(tmp_path: Path):
    """Ten photos of a camera are fifty megabytes."""
    Image.effect_noise((3000, 2400), 50).convert("RGB").save(tmp_path / "large.jpg", quality=95)
    ranker = open_ranker("http://127.0.0.1/v1/rerank", "cpu", EmbedderOptions())
    photo = read_photo(find_images([tmp_path / "large.jpg"])[0], ranker.decode_side)
    made = ranker.prepare(photo)
    sent = Image.open(io.BytesIO(made.data))
    assert photo.image.size == (1500, 1200)
    assert (sent.format, sent.size, made.mime) == ("JPEG", (1024, 819), "image/jpeg")


def test_a_wrong_key_is_one_line(pool: Pool, tmp_path: Path):
    server = RerankServer()
    server.key = "secret"
    with serving(server) as url, pytest.raises(CallError, match="RETRIEVAL_TEACHER_KEY"):
        ask(url, pool, tmp_path / "l.sqlite", LISTS[:1])


def test_scores_are_read_strictly():
    found = [(1, 0.5), (0, 0.9), (0, 0.1), (7, 1.0), (-1, 1.0), (True, 1.0), (2, float("nan"))]
    body = json.dumps({"results": [{"index": i, "relevance_score": s} for i, s in found]}).encode()
    assert read_order(body, 3) == [0, 1]
    for wrong in (b"[]", b"{}", b'{"results": []}', b'{"results": [{"index": 0}]}', b"1>2"):
        with pytest.raises(ValueError, match="score"):
            read_order(wrong, 3)


def test_a_callable_is_asked_about_each_list_once_and_no_more_than_the_budget(pool: Pool, tmp_path: Path):
    spec, log = write_callable(tmp_path)
    answers, _ = ask(spec, pool, tmp_path / "l.sqlite", LISTS, budget=5)
    assert len(answers) == 5
    answers, _ = ask(spec, pool, tmp_path / "l.sqlite", LISTS[::-1], budget=7)
    assert len(answers) == 7
    assert len(log.read_text().splitlines()) == 7
    for rows in LISTS:
        if (row := answers.get(key_of(rows, pool))) is not None:
            assert np.array_equal(row, nearest_row(pool, rows))


def test_a_ranker_that_ranks_nothing_has_spent_a_list_and_is_not_asked_about_it_again_at_once(
    pool: Pool, tmp_path: Path
):
    spec, log = write_callable(tmp_path)
    answers, failures = ask(spec.replace(":nearest", ":silent"), pool, tmp_path / "s.sqlite", LISTS[:2])
    assert not answers
    assert "ranked no candidate" in failures[0].reason
    assert len(log.read_text().splitlines()) == 2


def test_two_processes_share_one_budget_and_ask_nothing_twice(pool: Pool, tmp_path: Path):
    spec, log = write_callable(tmp_path, pause=0.05)
    context = multiprocessing.get_context("spawn")
    asking = [context.Process(target=ask, args=(spec, pool, tmp_path / "l.sqlite", LISTS, 6)) for _ in "ab"]
    for process in asking:
        process.start()
    for process in asking:
        process.join()
        assert process.exitcode == 0
    assert len(log.read_text().splitlines()) == 6


def test_a_killed_run_has_spent_what_was_in_flight_and_loses_no_answer(pool: Pool, tmp_path: Path):
    spec, log = write_callable(tmp_path, pause=0.3)
    process = multiprocessing.get_context("spawn").Process(
        target=ask, args=(spec, pool, tmp_path / "l.sqlite", LISTS, 6)
    )
    process.start()
    while not log.exists() or len(log.read_text().splitlines()) < 3:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    answers, _ = ask(spec, pool, tmp_path / "l.sqlite", LISTS, budget=6)
    assert len(log.read_text().splitlines()) == 6
    assert len(answers) == 5


@pytest.mark.slow
def test_ten_kills_pay_for_no_answer_twice(pool: Pool, tmp_path: Path):
    spec, log = write_callable(tmp_path, pause=0.1)
    lists = [
        (query, *candidates[turn:], *candidates[:turn]) for query, *candidates in LISTS for turn in range(6)
    ]
    asking = spec, pool, tmp_path / "l.sqlite", lists, len(lists)
    log.touch()
    for kill in range(10):
        before = len(log.read_text().splitlines())
        process = multiprocessing.get_context("spawn").Process(target=ask, args=asking)
        process.start()
        while len(log.read_text().splitlines()) <= before + kill % 3:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    answers, _ = ask(*asking)
    calls = log.read_text().splitlines()
    assert (
        len(answers) + 10 >= len(lists) >= len(calls)
    )  # what was in flight is spent, and may be asked again
    assert len(calls) - len(set(calls)) <= 10


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_preferences_give_their_own_lists(pool: Pool, folder: Path, tmp_path: Path, ending: str):
    path = tmp_path / f"preferences.{ending}"
    pairs = [("0.png", "1.png", "2.png"), ("0.png", "2.png", "more/10.jpg"), ("0.png", "gone.png", "1.png")]
    if ending == "csv":
        path.write_text("query,better,worse\n" + "".join(",".join(pair) + "\n" for pair in pairs))
    else:
        columns = dict(zip(("query", "better", "worse"), map(list, zip(*pairs, strict=True)), strict=True))
        pq.write_table(pa.table(columns), path)
    ranker = open_ranker(str(path), "cpu", EmbedderOptions())
    (rows,) = ranker.lists(pool)
    assert {pool.files[row].name for row in rows[1:]} == {"1.png", "2.png", "more/10.jpg"}
    query, *candidates = [ranker.prepare(read_photo(pool.files[row])) for row in rows]
    assert [pool.files[rows[1 + place]].name for place in ranker.order(query, candidates)][
        -1
    ] == "more/10.jpg"
    others = [ranker.prepare(read_photo(file)) for file in pool.files[3:5]]
    assert ranker.order(query, others) == []


def test_what_is_no_ranker_is_one_line(tmp_path: Path):
    with pytest.raises(UsageError):
        open_ranker("http://user:word@host/v1/rerank", "cpu", EmbedderOptions())
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    (tmp_path / "empty.csv").write_text("query,better,worse\n")
    (tmp_path / "short.csv").write_text("query,better,worse\n1\n")
    pq.write_table(pa.table({"ids": ["a"], "vectors": [[1.0]]}), tmp_path / "v.parquet")
    (tmp_path / "x.parquet").write_bytes(b"\xff\xfe\0")
    (tmp_path / "photo.jpg").write_bytes(b"")
    for name, why in {
        "x.csv": "it has 1 row of a,b",
        "empty.csv": "it has 0 rows of query,better,worse",
        "short.csv": "is no ranker",
        "v.parquet": "it has 1 row of ids,vectors",
        "x.parquet": "is no ranker",
        "photo.jpg": "is no ranker. Give",
        "none.csv": "none.csv does not exist",
        "none.onnx": "none.onnx does not exist",
        "none.npz": "none.npz does not exist",
        "ftp://host/rank": "does not exist",
    }.items():
        with pytest.raises(UsageError, match=why) as told:
            open_ranker(name if "://" in name else str(tmp_path / name), "cpu", EmbedderOptions())
        assert str(told.value).endswith(GIVE)
        assert "\n" not in str(told.value)


class Blind(Embedder):
    """Has no vector for one photo."""

    key = name = spec = "blind"
    options, calls = EmbedderOptions(), Calls()

    def __init__(self, digest):
        self.digest = digest

    def prepare(self, photo):
        return photo.digest

    def embed(self, batch):
        return unit_rows(np.float32([[digest != self.digest, 0] for digest in batch]), self.name)


def test_a_photo_without_a_vector_leaves_out_its_lists_alone(pool: Pool):
    ranker = VectorsRanker(Blind(pool.digests[0]))
    with Ledger(IN_MEMORY, ranker.key) as ledger:
        answers, failures = ask_lists([(0, 1, 2), (3, 4, 5)], pool, ranker, ledger, 9)
    assert [*answers] == [key_of((3, 4, 5), pool)]
    assert [failure.reason for failure in failures] == ["answered with a vector of zeros"]


def test_a_teacher_with_vectors_gives_its_orders(pool: Pool, tmp_path: Path):
    teacher = write_embedder(tmp_path / "teacher.onnx")
    ranker = open_ranker(str(teacher), "cpu", EmbedderOptions(), orders_only=True)
    query, *candidates = [ranker.prepare(read_photo(file, ranker.decode_side)) for file in pool.files[:6]]
    assert ranker.order(query, candidates) == list(np.argsort([-(query @ one) for one in candidates]))
    with pytest.raises(UsageError, match="orders-only"):
        open_ranker("http://127.0.0.1/v1/embeddings", "cpu", EmbedderOptions(), orders_only=True)

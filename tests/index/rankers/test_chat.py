"""Vision-language models behind a chat endpoint, which say an order."""

import io
import json
import time
from base64 import b64decode
from pathlib import Path

import numpy as np
import openai
import pytest
from conftest import picture
from PIL import Image
from rerank_server import RerankServer, colour
from teacher_server import serving

from index.embedders.options import EmbedderOptions
from index.errors import CallError, RetrievalError
from index.images.decode import read_photo
from index.images.file import digest_pool
from index.images.sources import find_images
from index.rankers.asking import Reranker, ask_lists
from index.rankers.base import Pool
from index.rankers.http import TILE, ChatRanker, make_sheet, read_message, read_numbers, write_question
from index.rankers.registry import open_ranker
from index.teachers.client import BudgetedTeacher
from index.teachers.ledger import Ledger
from index.teachers.ledger_report import read_account

LISTS = [(q, *[c for c in range(6) if c != q]) for q in range(4)]


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch):
    monkeypatch.setattr("index.teachers.retry.SHORTEST", 0.002)


@pytest.fixture
def pool(folder: Path) -> Pool:
    files = list(find_images([folder]))
    return Pool(files, digest_pool(files))


def ask(server: RerankServer, pool: Pool, path: Path, lists=LISTS, **options):
    with serving(server) as url:
        return ask_at(url, pool, path, lists, **options)


def ask_at(url: str, pool: Pool, path: Path, lists=LISTS, **options):
    spec = url.replace("embeddings", "chat/completions")
    ranker = open_ranker(spec, "cpu", EmbedderOptions(model="m", **options))
    with Ledger(path, ranker.key) as ledger:
        return ask_lists(lists, pool, ranker, ledger, 100)


def test_it_is_asked_once_about_each_list_and_its_tokens_are_counted(pool: Pool, tmp_path: Path):
    server, path = RerankServer(), tmp_path / "l.sqlite"
    with serving(server) as url:
        answers, failures = ask_at(url, pool, path)
        again, _ = ask_at(url, pool, path)
    assert not failures
    assert answers.keys() == again.keys()
    assert len(server.bodies) == len(LISTS)
    assert all(np.count_nonzero(row) == 5 for row in answers.values())
    assert read_account(path).tokens == 920 * len(LISTS)
    assert "tokens     3,680" in str(read_account(path))


@pytest.mark.parametrize("says", [
    'Let me see: 1 is [blue]. Thus {{"order": {order}}}, as asked.',
    "```json\n{{\"order\":{order}}}\n```",
    "{order}",
    'I thought of [1] first, then of [2]. {{"order": [9]}} no: {{"order": {order}}}',
])  # fmt: skip
def test_prose_around_an_order_is_no_harm(pool: Pool, tmp_path: Path, says: str):
    expected, _ = ask(RerankServer(), pool, tmp_path / "a.sqlite")
    server = RerankServer()
    server.says = says
    answers, _ = ask(server, pool, tmp_path / "b.sqlite")
    assert {key: row.tolist() for key, row in answers.items()} == {k: r.tolist() for k, r in expected.items()}


def test_it_may_be_busy_rank_in_part_or_say_nonsense(pool: Pool, tmp_path: Path):
    server = RerankServer()
    server.most = 2
    prose = {"choices": [{"message": {"role": "assistant", "content": "The second one."}}]}
    server.script = [(429, "later"), (200, json.dumps(prose)), (200, "{}"), (503, "no")]
    answers, _ = ask(server, pool, tmp_path / "l.sqlite", LISTS[:2])
    assert [np.count_nonzero(row) for row in answers.values()] == [2, 2]


def test_a_list_without_an_order_is_paid_for_a_few_times_and_not_at_each_search(pool: Pool, tmp_path: Path):
    server = RerankServer()
    server.says = "The second one."
    query = read_photo(pool.files[0])
    with serving(server) as url:
        spec = url.replace("embeddings", "chat/completions")
        ranker = open_ranker(spec, "cpu", EmbedderOptions(model="m"))
        with Ledger(tmp_path / "l.sqlite", ranker.key) as ledger:
            reranker = Reranker(ranker, BudgetedTeacher(ranker, ledger, 100))
            for _ in range(2):
                with pytest.raises(RetrievalError, match=r"no list of numbers: 'The second one.', 4 times"):
                    reranker.order(query, pool.files[1:6], pool.digests[1:6])
            assert ledger.spent == len(server.bodies) == 4


@pytest.mark.parametrize("tokens", [10**30, -5, True, "920", None])
def test_a_number_of_tokens_that_is_none_costs_no_answer(pool: Pool, tmp_path: Path, tokens: object):
    server, path = RerankServer(), tmp_path / "l.sqlite"
    said = {"choices": [{"message": {"content": "[2, 1]"}}], "usage": {"total_tokens": tokens}}
    server.script = [(200, json.dumps(said))] * 2
    answers, _ = ask(server, pool, path, LISTS[:2])
    assert [row.tolist()[:3] for row in answers.values()] == [[0.5, 1, 0]] * 2
    assert read_account(path).tokens == 0


def test_an_address_with_parameters_is_one_of_a_chat():
    spec = "https://models.example/openai/chat/completions?api-version=2024-06-01"
    assert isinstance(open_ranker(spec, "cpu", EmbedderOptions()), ChatRanker)


def test_a_wrong_model_is_one_line(pool: Pool, tmp_path: Path):
    server = RerankServer()
    server.script = [(404, '{"error": {"message": "no model m"}}')] * 20
    with pytest.raises(CallError, match="no model m"):
        ask(server, pool, tmp_path / "l.sqlite")


def test_openai_own_client_sends_the_same(pool: Pool, tmp_path: Path):
    server = RerankServer()
    images = [picture(i, 40, 30) for i in range(4)]
    content = write_question("Order them.", images[0], images[1:], sheet=False)
    with (
        serving(server) as url,
        openai.OpenAI(base_url=url.rpartition("/")[0], api_key="any") as own,
    ):
        answer = own.chat.completions.create(model="m", messages=[{"role": "user", "content": content}])
    assert len(read_numbers(answer.choices[0].message.content, 3)) == 3
    ask(server, pool, tmp_path / "l.sqlite", LISTS[:1])
    theirs, ours = server.bodies
    assert ours.keys() == theirs.keys()
    assert [part["type"] for part in ours["messages"][0]["content"]] == ["text"] + ["text", "image_url"] * 6
    assert [part["text"] for part in content[1::2]] == ["Query:", "1:", "2:", "3:"]


def test_a_sheet_shows_all_photos_with_their_numbers(pool: Pool, tmp_path: Path):
    images = [Image.new("RGB", (90, 60), colour) for colour in ("red", "lime", "blue", "red", "lime", "blue")]
    sheet = make_sheet(images[0], images[1:])
    assert sheet.size == (4 * TILE, 2 * TILE)
    middles = [sheet.getpixel((TILE * (i % 4) + TILE // 2, TILE * (i // 4) + TILE // 2)) for i in range(6)]
    assert middles == [image.getpixel((0, 0)) for image in images]
    (_, part) = write_question("Order them.", images[0], images[1:], sheet=True)
    sent = Image.open(io.BytesIO(b64decode(part["image_url"]["url"].partition(",")[2])))
    assert sent.size == sheet.size
    server = RerankServer()
    server.says = '{{"order": [2, 1]}}'
    answers, _ = ask(server, pool, tmp_path / "l.sqlite", LISTS[:2], sheet=True)
    assert [row.tolist()[:3] for row in answers.values()] == [[0.5, 1, 0]] * 2
    assert colour(b64decode(part["image_url"]["url"].partition(",")[2])).shape == (3,)


def test_another_prompt_or_form_is_another_ranker():
    url = "http://127.0.0.1:1/v1/chat/completions"
    given = ({}, {"prompt": "By colour."}, {"sheet": True}, {"model": "n"})
    keys = {open_ranker(url, "cpu", EmbedderOptions(**options)).key for options in given}
    assert len(keys) == len(given)


def test_numbers_are_read_strictly():
    assert read_numbers('{"order": [3, 1, 3, 0, 7]}', 3) == [2, 0]
    for bare in ("3, 1, 2", "[3] > [1] > [2]", "3\n1\n2\n", "[3, 1, 2]."):
        assert read_numbers(bare, 3) == [2, 0, 1]
    for wrong in ("", "none", "photo 1, then [2]; [3]", '{"order": []}', "[8, 9]", '{"order": [1, 2'):
        with pytest.raises(ValueError, match="number"):
            read_numbers(wrong, 3)
    start = time.perf_counter()
    with pytest.raises(ValueError, match="no list of numbers"):
        read_numbers("1 " * 20_000 + "x", 3)
    assert time.perf_counter() - start < 2
    for wrong in (b"[]", b"{}", b'{"choices": []}', b'{"choices": [{"message": {"content": null}}]}', b"<"):
        with pytest.raises(ValueError, match="message"):
            read_message(wrong)

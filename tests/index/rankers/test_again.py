"""Searches whose results a ranker orders."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import picture
from fastapi import FastAPI
from rerank_server import RerankServer
from starlette.testclient import TestClient
from teacher_server import serving
from typer.testing import CliRunner

from app.cli import app
from app.page.search.tab import SearchPage
from app.page.search.views import render_search
from app.server.api import build_api
from app.server.concurrency import SharedSearcher
from index.build.pipeline import build_index
from index.embedders.base import Calls
from index.embedders.onnx import OnnxEmbedder
from index.embedders.options import EmbedderOptions
from index.errors import BudgetError, RefusedError, RetrievalError
from index.images.decode import read_photo
from index.images.file import ImageFile, digest_pool
from index.images.sources import find_images
from index.rankers.asking import FIRST, Reranker, windows
from index.rankers.base import Ranker
from index.rankers.registry import RankerSpec, open_ranker
from index.search import Searcher, open_searcher
from index.stores.filters import Filter
from index.teachers.client import BudgetedTeacher
from index.teachers.ledger import IN_MEMORY, Ledger

COUNT = 60


def colour_of(path: Path) -> np.ndarray:
    return np.asarray(read_photo(ImageFile(path, path.name)).image, float).mean(axis=(0, 1))


class Known(Ranker):
    """Orders by a number that each photo's name is."""

    calls = Calls(batch=1, paid=True)
    key = name = spec = "known"
    options, asked, most = EmbedderOptions(), 0, 10

    def prepare(self, photo):
        return photo.name

    def order(self, query, candidates):
        self.asked += 1
        return np.argsort([int(name.split(".")[0]) for name in candidates])[: self.most].tolist()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(COUNT):
        picture(i).save(folder / f"{i}.png")
    picture(99).save(tmp_path / "query.png")
    return folder


@pytest.fixture
def index(photos: Path, tmp_path: Path, student_file: Path) -> Path:
    build_index([photos], OnnxEmbedder(student_file), tmp_path / "idx")
    return tmp_path / "idx"


def order(ranker: Ranker, photos: Path, length: int, ledger: Ledger, budget: int = 100) -> list[int]:
    files = [ImageFile(photos / f"{i}.png", f"{i}.png") for i in range(length)][::-1]
    found = Reranker(ranker, BudgetedTeacher(ranker, ledger, budget)).order(
        read_photo(ImageFile(photos.parent / "query.png", "query.png")), files, digest_pool(files)
    )
    return [length - 1 - place for place in found]


def test_windows_overlap_and_reach_the_front_last():
    assert [(w.start, w.stop) for w in windows(20)] == [(10, 20), (5, 15), (0, 10)]
    assert [(w.start, w.stop) for w in windows(12)] == [(2, 12), (0, 10)]
    assert [len(windows(length)) for length in (0, 1, 2, 10, 11, FIRST)] == [0, 0, 1, 1, 2, 9]


def test_the_best_are_carried_to_the_front_and_nothing_is_asked_twice(photos: Path):
    ranker = Known()
    with Ledger(IN_MEMORY, "known") as ledger:
        found = order(ranker, photos, FIRST, ledger)
        assert found[:5] == [0, 1, 2, 3, 4]
        assert sorted(found) == list(range(FIRST))
        assert ranker.asked == ledger.spent == len(windows(FIRST))
        assert order(ranker, photos, FIRST, ledger) == found
        assert ranker.asked == len(windows(FIRST))


def test_what_is_unranked_stays_where_it_was_behind_the_ranked(photos: Path):
    ranker = Known()
    ranker.most = 2
    with Ledger(IN_MEMORY, "known") as ledger:
        assert order(ranker, photos, 8, ledger) == [0, 1, 7, 6, 5, 4, 3, 2]


def test_a_search_that_the_budget_has_no_room_for_is_refused_before_anything_is_paid(photos: Path):
    ranker = Known()
    with Ledger(IN_MEMORY, "known") as ledger:
        with pytest.raises(BudgetError, match="needs up to 9 lists, and 8 of the budget of 8 are left"):
            order(ranker, photos, FIRST, ledger, 8)
        assert ranker.asked == ledger.spent == 0
        found = order(ranker, photos, FIRST, ledger, 9)
        assert ranker.asked == ledger.spent == 9
        assert order(ranker, photos, FIRST, ledger, 9) == found, "what was paid is free"
        assert ranker.asked == 9


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("[0.1] * len(c)", r"returned \[0\.1, 0\.1.*no list of positions, best first"),
        ("'ab'", "returned 'ab', no list of positions"),
        ("None", "returned None, no list of positions"),
        ("__import__('numpy').ones((2, 2))", r"returned array\(\[\[1., 1.\], \[1., 1.\]\]\), no list"),
        ("(1 // 0 for _ in c)", "raised ZeroDivisionError"),
    ],
)
def test_what_is_no_list_of_positions_is_not_taken_for_one(
    photos: Path, tmp_path: Path, answer: str, said: str
):
    (tmp_path / "r.py").write_text(f"def rank(q, c):\n    return {answer}\n")
    ranker = open_ranker(f"{tmp_path}/r.py:rank", "cpu", EmbedderOptions())
    query = ImageFile(photos.parent / "query.png", "query.png")
    made = [ranker.prepare(read_photo(query, 32))] * 3
    with pytest.raises(RefusedError, match=said):
        ranker.order(made[0], made[1:])


def by_colour(path: Path, names) -> list[str]:
    query = colour_of(path)
    return sorted(names, key=lambda name: ((colour_of(path.parent / "images" / name) - query) ** 2).sum())


def test_an_endpoint_orders_what_the_student_found(index: Path, tmp_path: Path):
    server = RerankServer()
    with serving(server) as url:
        spec = RankerSpec(url, EmbedderOptions(), tmp_path / "l.sqlite", 18)
        searcher = open_searcher(index, ranker=spec)
        assert searcher.modes == ["student", "rerank"]
        assert "up to 9 lists" in searcher.reranker.describe_price(1)
        photo = read_photo(ImageFile(tmp_path / "query.png", "query.png"), searcher.decode_side("rerank"))
        first = searcher.find([photo], "student", FIRST).results.ids[0].tolist()
        found = searcher.find([photo], "rerank", 5).results
        names = [searcher.index.items[item].name for item in found.ids[0]]
        assert names == by_colour(tmp_path / "query.png", [searcher.index.items[i].name for i in first])[:5]
        assert found.scores[0].tolist() == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4, 1 / 5])
        paid = sum(server.charged.values())
        assert paid == 9
        again = open_searcher(index, ranker=spec).find([photo], "rerank", 3).results
        assert again.ids[0].tolist() == found.ids[0, :3].tolist()
        cut = searcher.find([photo], "student", FIRST, Filter(cut=0.9)).results
        kept = searcher.find([photo], "rerank", FIRST, Filter(cut=0.9)).results
        assert sorted(kept.ids[0].tolist()) == sorted(cut.ids[0].tolist())
    assert set(server.charged.values()) == {1}


def test_preferences_order_what_they_tell_of_and_no_more(index: Path, photos: Path, tmp_path: Path):
    searcher = open_searcher(index)
    photo = read_photo(find_images([photos])[0])
    found = searcher.find([photo], "student", FIRST).results.ids[0].tolist()
    names = [searcher.index.items[item].name for item in found]
    (tmp_path / "p.csv").write_text(f"query,better,worse\n{photo.name},{names[3]},{names[1]}\n")
    spec = RankerSpec(str(tmp_path / "p.csv"), EmbedderOptions())
    again = open_searcher(index, ranker=spec).find([photo], "rerank", FIRST).results.ids[0].tolist()
    assert again == [found[3], found[1], found[0], found[2], *found[4:]]


def taught_by(index: Path, **ranker: object) -> None:
    """Note beside the student of an index which ranker taught it."""
    data = open_searcher(index).index.data
    run = {"export": {"key": OnnxEmbedder(data / "student.onnx").key}, "teacher": {"ranker": ranker}}
    (data / "run.json").write_text(json.dumps(run))


def test_an_index_knows_the_ranker_that_its_student_was_taught_by(index: Path, tmp_path: Path, teacher_file):
    judge = tmp_path / "p.csv"
    judge.write_text("query,better,worse\n0.png,1.png,2.png\n")
    taught_by(index, spec=str(judge), options={})
    assert open_searcher(index).modes == ["student", "rerank"]
    assert open_searcher(index, with_teacher=False).modes == ["student"]
    judge.unlink()
    gone = open_searcher(index)
    assert gone.modes == ["student"]
    said = f"{judge}, which taught its student, is not there. Put it right, or name another with --ranker."
    assert gone.why_not("rerank") == said
    taught_by(index, spec=str(teacher_file), options={}, orders_only=True)
    assert open_searcher(index).modes == ["student", "rerank"]
    taught_by(index, spec=3, options=[])  # of another version, or by another hand
    assert open_searcher(index).why_not("rerank") == open_searcher(index).teacher_missing


def test_an_address_is_named_and_not_asked_and_its_options_are_kept(index: Path, tmp_path: Path):
    url = "https://judge.example/v1/chat/completions"
    taught_by(index, spec=url, options={"prompt": "By colour.", "sheet": True})
    searcher = open_searcher(index)
    assert searcher.modes == ["student"]
    said = f"Its student was taught by {url}. Give --ranker {url} to ask it again."
    assert searcher.why_not("rerank") == said
    assert searcher.why_not("teacher") == searcher.teacher_missing
    words = ["search", index, tmp_path / "query.png", "--mode", "rerank"]
    told = CliRunner().invoke(app, list(map(str, words)), prog_name="retrieval")
    assert (told.exit_code, told.stderr.strip().endswith(said)) == (1, True)
    api = FastAPI()
    api.include_router(build_api(SharedSearcher(searcher)))
    answer = TestClient(api).get("/search?id=3&mode=rerank")
    assert (answer.status_code, answer.json()["detail"].endswith(said)) == (400, True)
    given = RankerSpec(url, EmbedderOptions(), tmp_path / "l.sqlite")
    wanted = open_ranker(url, "cpu", EmbedderOptions(prompt="By colour.", sheet=True)).key
    assert open_searcher(index, ranker=given).reranker._ranker.key == wanted
    others = RankerSpec(url, EmbedderOptions(prompt="By shape."), tmp_path / "m.sqlite")
    assert open_searcher(index, ranker=others).reranker._ranker.options.prompt == "By shape."


def test_a_photo_that_has_changed_is_shown_to_no_ranker(index: Path, photos: Path, tmp_path: Path):
    """Its answer would be kept as one about what was indexed."""
    ranker, ledger = Known(), Ledger(IN_MEMORY, "known")
    searcher = open_searcher(index)
    searcher.reranker = Reranker(ranker, BudgetedTeacher(ranker, ledger, 99))
    photo = read_photo(ImageFile(tmp_path / "query.png", "query.png"))
    for i in range(COUNT):
        picture(200 + i).save(photos / f"{i}.png")
    with ledger, pytest.raises(RetrievalError, match=r"png has changed since it was indexed\. Index again"):
        searcher.find([photo], "rerank", 3)
    assert ranker.asked == 0


def test_a_photo_that_is_gone_is_named(index: Path, photos: Path, tmp_path: Path):
    (tmp_path / "judge.py").write_text("def first(query, candidates):\n    return [0]\nfirst.key = '1'\n")
    spec = RankerSpec(f"{tmp_path / 'judge.py'}:first", EmbedderOptions(), tmp_path / "l.sqlite", 99)
    searcher = open_searcher(index, ranker=spec)
    photo = read_photo(ImageFile(tmp_path / "query.png", "query.png"))
    for file in photos.iterdir():
        file.unlink()
    with pytest.raises(RetrievalError, match="cannot be shown the query or a result"):
        searcher.find([photo], "rerank", 3)


def test_the_commands_say_the_price_first(index: Path, photos: Path, tmp_path: Path, teacher_file: Path):
    labels = tmp_path / "labels.csv"
    labels.write_text("path,label\n" + "".join(f"images/{i}.png,{i % 3}\n" for i in range(COUNT)))
    queries = tmp_path / "queries.csv"
    queries.write_text("path,label\n" + "".join(f"images/{i}.png,{i % 3}\n" for i in range(4)))

    def run(*words: object):
        return CliRunner().invoke(app, list(map(str, words)), prog_name="retrieval")

    server = RerankServer()
    with serving(server) as url:
        asked = ["--ranker", url, "--ledger", tmp_path / "l.sqlite", "--budget"]
        search = ["search", index, tmp_path / "query.png", "--mode", "rerank", "-k", 3, "--json", *asked]
        refused = run(*search, 0)
        assert refused.exit_code == 1
        assert "orders the first 50 results: up to 9 lists, of a budget of 0." in refused.stderr
        found = run(*search, 9)
        assert found.exit_code == 0, found.stderr
        results = json.loads(found.stdout)["queries"][0]["results"]
        assert [one["score"] for one in results] == [1, 0.5, 0.333333]
        assert sum(server.charged.values()) == 9
        evaluate = ["evaluate", index, "--queries", queries, "--labels", labels, *asked]
        poor = run(*evaluate, 44)
        assert (poor.exit_code, sum(server.charged.values())) == (1, 9)
        assert "4 searches need up to 36 lists, and 35 of the budget of 44 are left" in poor.stderr
        scored = run(*evaluate, 45)
        assert scored.exit_code == 0, scored.stderr
        paid = sum(server.charged.values())
        assert run(*evaluate, paid).stdout == scored.stdout, "what was paid is free"
        picture(98).save(tmp_path / "other.png")
        several = [
            "search",
            index,
            tmp_path / "query.png",
            tmp_path / "other.png",
            "--mode",
            "rerank",
            *asked,
        ]
        poor = run(*several, paid + 8)
        assert (poor.exit_code, sum(server.charged.values())) == (1, paid)
        assert "2 searches need up to 9 lists, and 8 of the budget of" in poor.stderr
        assert run(*several, paid + 9).exit_code == 0
        assert "up to 36 lists" in scored.stderr
        assert [line.split()[0] for line in scored.stdout.splitlines()[1:3]] == ["student", "rerank"]
    both = run("search", index, "x.png", "--ranker", "a:b", "--teacher", teacher_file)
    assert (both.exit_code, "do not go together" in both.stderr) == (2, True)


def test_orders_of_the_teacher_give_its_own_ranking(
    photos: Path, tmp_path: Path, student_file: Path, teacher_file: Path
):
    """As mode `rerank` by vectors, as far as the windows reach."""
    student, teacher = OnnxEmbedder(student_file), OnnxEmbedder(teacher_file)
    vectors = Searcher(build_index([photos], student, tmp_path / "idx", teacher), student, teacher)
    orders = open_searcher(tmp_path / "idx", ranker=RankerSpec(str(teacher_file), EmbedderOptions()))
    photo = read_photo(ImageFile(tmp_path / "query.png", "query.png"))
    first = vectors.find([photo], "student", FIRST).results.ids[0].tolist()
    truth = [i for i in vectors.find([photo], "teacher", COUNT).results.ids[0].tolist() if i in first]
    assert orders.find([photo], "rerank", 5).results.ids[0].tolist() == truth[:5]


def test_the_page_and_the_api_offer_it(index: Path, tmp_path: Path):
    (tmp_path / "judge.py").write_text(
        "def last(query, candidates):\n    return range(len(candidates))[::-1]\nlast.key = '1'\n"
    )
    spec = RankerSpec(f"{tmp_path / 'judge.py'}:last", EmbedderOptions(), tmp_path / "l.sqlite", 100)
    searcher = SharedSearcher(open_searcher(index, ranker=spec))
    api = FastAPI()
    api.include_router(build_api(searcher))
    client = TestClient(api)
    sent = {"image": (tmp_path / "query.png").read_bytes()}
    student, rerank = (
        client.post(f"/search?mode={mode}&k=50", files=sent).json()["results"]
        for mode in ("student", "rerank")
    )
    assert student[45]["id"] == rerank[4]["id"]
    by_id = client.get("/search?id=3&mode=rerank&k=3")
    assert by_id.status_code == 200, by_id.text
    assert 3 not in [one["id"] for one in by_id.json()["results"]]
    html = render_search(searcher.modes, [], None, alone=True, note=searcher.reranker.describe_price(1, 2.0))
    assert "selected>Re-rank" in html
    assert "up to 9 lists, at 0.02, of a budget of 100." in html
    page = SearchPage(searcher, price=2.0)
    shown = page.search({"modes": ["student", "rerank"], "k": 5, "item": 3})
    assert "costs 18,000.00" in shown["numbers"]  # a million searches, nine lists each, at 2 a thousand

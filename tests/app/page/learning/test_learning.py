"""Runs that a page watches, without a browser and without a student."""

import json
import os
import socket
from pathlib import Path
from threading import Event, Thread
from time import perf_counter, sleep

import httpx
import numpy as np
import pytest
from conftest import png
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.page.learning import learning as runs
from app.page.learning.learning import Inbox, Learning, Run
from app.page.learning.routes import build_learning
from app.server.app import SHUTDOWN_SECONDS, _Server, build_waiting
from app.server.guard import Rules
from distill.report.held_out import HeldOut
from distill.training.checkpoint import Progress
from index.errors import ImageError, RetrievalError, UsageError
from index.progress import progress, tell

LOCAL = {"base_url": "http://localhost"}


def lists(student: list[int]) -> HeldOut:
    """Six queries, for each of which the teacher finds 0 to 9 of 12 photos."""
    pixels = np.zeros((12, 8, 8, 3), np.uint8)
    teacher = np.tile(np.arange(10), (6, 1))
    return HeldOut(pixels[:6], pixels, teacher, np.tile(student, (6, 1)), start=0.25, ceiling=0.9)


@pytest.fixture
def learning(tmp_path: Path, monkeypatch) -> Learning:
    """A demo that makes nothing but its folder, once it is allowed to."""
    made = Learning(None, tmp_path / "demo")
    made.go, made.asked = Event(), []

    def make(images, out):
        made.asked.append((images, out))
        tell(step="the student")
        tell(lists=lists([*range(5, 10), 0, 1, 2, 3, 4]))
        with progress(2, "train", "step") as bar:
            for _ in range(2):
                tell(training=Progress([0.5], [(0, 1.0)]), steps=2)
                bar.update()
                made.go.wait(10)
        made.index = out / "index"
        return made.index

    monkeypatch.setattr(made, "_make", make)
    yield made
    made.go.set()


@pytest.fixture
def client(learning: Learning):
    with TestClient(build_waiting(learning, Rules(local=True)), **LOCAL) as opened:
        yield opened


def events(client: TestClient) -> list[tuple[str, object]]:
    told = client.get("/learn/events").text.strip().split("\n\n")
    pairs = [dict(line.split(": ", 1) for line in each.split("\n")) for each in told]
    return [(pair["event"], json.loads(pair["data"])) for pair in pairs]


def wait(run: Run) -> None:
    while not run.ended:
        run.wait(1)


def test_who_comes_late_is_told_all_of_it(learning, client):
    learning.go.set()
    learning.start()
    wait(learning.run)
    told = dict(events(client))
    assert list(told) == ["said", "charts", "strips", "end"]
    assert "the student" in told["said"]
    assert "Training: 2 of 2" in told["said"]
    assert told["charts"].count("<svg") == 2
    assert "start" in told["charts"]
    assert "ceiling" in told["charts"]
    assert told["strips"].count('class="strip"') == 5
    assert told["end"] == {"error": "", "live": False}


def test_what_fails_says_why_in_one_line(learning, client, monkeypatch):
    def fail(images, out):
        raise RetrievalError("The disk is full.")

    monkeypatch.setattr(learning, "_make", fail)
    learning.start()
    wait(learning.run)
    assert events(client)[-1] == ("end", {"error": "The disk is full.", "live": False})


def test_a_later_run_ends_the_one_before(learning, client, monkeypatch):
    monkeypatch.setattr(runs, "FEWEST", 2)
    learning.start()
    first = learning.run
    assert client.post("/learn/photos").json() == 1
    for place in range(2):
        assert client.put(f"/learn/photos/1/{place}?suffix=.png", content=png(place)).status_code == 200
    assert client.post("/learn/start/1").status_code == 200
    learning.go.set()
    wait(learning.run)
    assert first.error == "Stopped: another folder took its place."
    own = learning._out.with_name("demo-2")
    assert learning.asked[1:] == [(own / "photos", own)]
    assert sorted(each.name for each in (own / "photos").iterdir()) == ["0000.png", "0001.png"]
    assert client.get("/learn/ready").json() is False  # this app serves no index
    served = FastAPI()
    served.include_router(build_learning(learning, own / "index"))
    assert TestClient(served, **LOCAL).get("/learn/ready").json() is True


@pytest.mark.parametrize(
    ("files", "began"),
    [
        (["demo-2/photos/0000.png"], "demo-2"),
        (["demo-2/photos/0000.png", "demo-2/index/manifest.json"], "demo"),  # it has finished
        (["demo-2/sending/0000.png"], "demo"),  # it was not sent whole
        (["demo-2/photos/0000.png", "demo-3/photos/0000.png"], "demo-3"),
        (["demo-old/photos/0000.png"], "demo"),
    ],
)
def test_a_folder_that_was_sent_goes_on_when_the_demo_starts_again(learning, tmp_path, files, began):
    learning.go.set()
    for age, file in enumerate(reversed(files)):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
        os.utime((tmp_path / file).parent, (1e9 - age, 1e9 - age))
    learning.start()
    wait(learning.run)
    folder = tmp_path / began
    assert learning.asked == [(None if began == "demo" else folder / "photos", folder)]


def test_a_demo_that_is_stopped_ends_its_step_and_keeps_no_page_waiting(learning, monkeypatch):
    steps = []

    def make(images, out):
        with progress(1000, "train", "step") as bar:
            for step in range(1000):
                sleep(0.05)
                steps.append(step)
                bar.update()

    monkeypatch.setattr(learning, "_make", make)
    learning.start()
    app, listener = build_waiting(learning, Rules(local=True)), socket.create_server(("127.0.0.1", 0))
    server = _Server(app, lambda: app, learning)
    thread = Thread(target=server.run, args=([listener],))
    thread.start()
    with httpx.stream("GET", f"http://127.0.0.1:{listener.getsockname()[1]}/learn/events") as answer:
        lines = answer.iter_lines()
        next(lines)
        server.should_exit = True  # as a signal does
        start = perf_counter()
        told = [*lines]
    thread.join(10)
    assert perf_counter() - start < SHUTDOWN_SECONDS - 1
    assert len(steps) < 1000
    assert learning.run.error == "The demo has stopped. Start it again: it goes on where it was."
    assert learning.run.error in told[-2]


def test_load_balancers_find_it_alive_before_there_is_a_search(client):
    assert client.get("/livez").json() == {"status": "ok"}


def test_a_name_never_becomes_a_path(learning, client, tmp_path):
    client.post("/learn/photos")
    for place, suffix in (
        ("0", "/../../x.png"),
        ("0", ".png/../../x.png"),
        ("0", ".py"),
        ("0", ""),
        ("x", ".png"),
    ):
        answer = client.put(f"/learn/photos/1/{place}", params={"suffix": suffix}, content=png(0))
        assert answer.status_code in (400, 422), (place, suffix)
    assert client.put("/learn/photos/1/..%2F..%2Fx?suffix=.png", content=png(0)).status_code in (404, 422)
    assert [each for each in tmp_path.rglob("*") if each.is_file()] == []


def test_what_is_sent_has_limits(tmp_path, monkeypatch):
    taken = Inbox(tmp_path / "photos")
    for place in (-1, runs.MOST):
        with pytest.raises(UsageError, match="at most 2000 photos"):
            taken.take(place, ".png", png(0))
    with pytest.raises(ImageError):
        taken.take(0, ".png", b"no image")
    taken.take(0, ".png", png(0))
    with pytest.raises(UsageError, match="1 photos can be read; at least 40"):
        taken.require_enough()
    monkeypatch.setattr(runs, "MOST_BYTES", len(png(0)) + 1)
    with pytest.raises(UsageError, match="Send at most"):
        taken.take(1, ".png", png(1))
    assert [each.name for each in taken.folder.iterdir()] == ["0000.png"]


def test_a_folder_that_was_not_used_makes_room(learning, client, tmp_path):
    for number in (1, 2):
        assert client.post("/learn/photos").json() == number
        client.put(f"/learn/photos/{number}/0?suffix=.png", content=png(0))
    assert [each.name for each in tmp_path.iterdir()] == ["demo-2"]
    answer = client.post("/learn/start/2").json()
    assert answer["detail"] == "1 photos can be read; at least 40 are needed. Choose a folder with more."
    other = TestClient(client.app, **LOCAL)
    assert other.put("/learn/photos/2/1?suffix=.png", content=png(1)).status_code == 200


def test_two_pages_do_not_mix_their_photos(learning, client, tmp_path):
    for _ in range(2):
        client.post("/learn/photos")
    refused = client.put("/learn/photos/1/0?suffix=.png", content=png(0)), client.post("/learn/start/1")
    for answer in refused:
        assert answer.status_code == 400
        assert answer.json()["detail"] == "Another page has sent a folder since. Choose yours again."
    assert [each for each in tmp_path.rglob("*") if each.is_file()] == []


@pytest.mark.parametrize(
    "header",
    [{"sec-fetch-site": site} for site in ("cross-site", "same-site", "none")]
    + [{"origin": origin} for origin in ("https://demo.example", "http://localhost:8000", "null")],
)
def test_no_other_page_may_send(learning, client, header, tmp_path):
    for method, path in (("POST", "photos"), ("PUT", "photos/1/0?suffix=.png"), ("POST", "start/1")):
        assert client.request(method, f"/learn/{path}", headers=header).status_code == 403
    assert client.post("/learn/photos", headers={"host": "demo.example"}).status_code == 403
    assert list(tmp_path.iterdir()) == []

"""Asking with a price: what is stored, what is paid, what is said, whatever the teacher does."""

import json
import multiprocessing
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import picture
from fastapi import HTTPException, Request, Response
from teacher_server import EVERY, TeacherServer, ask_everything, read_request, serving

import index.teachers.client
import index.teachers.retry
from index.build.embed import embed_files
from index.build.embed_missing import ask_along
from index.embedders.onnx import OnnxEmbedder
from index.embedders.options import EmbedderOptions
from index.errors import BudgetError, CallError, RetrievalError, UnreachableError, UsageError
from index.images.decode import read_photo
from index.images.file import ImageFile
from index.images.sources import find_images
from index.io import content_digest
from index.parallel import RateLimit
from index.teachers.ask import ask_about
from index.teachers.client import BudgetedTeacher
from index.teachers.ledger import Ledger
from index.teachers.ledger_report import verify_ledger
from index.teachers.spec import TeacherSpec


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch):
    monkeypatch.setattr(index.teachers.retry, "SHORTEST", 0.002)
    monkeypatch.setattr(index.teachers.client, "POLL", 0.01)


@pytest.fixture
def teacher(teacher_file: Path) -> OnnxEmbedder:
    return OnnxEmbedder(teacher_file, "cpu")


def spec(url: str, tmp_path: Path, budget: int, **options) -> TeacherSpec:
    options = {"batch": 4, "concurrency": 3, "timeout": 5, **options}
    return TeacherSpec(url, EmbedderOptions(**options), tmp_path / "l.sqlite", budget)


def pool(tmp_path: Path, count: int) -> list[ImageFile]:
    root = tmp_path / "pool"
    root.mkdir()
    for i in range(count):
        picture(i, 16, 16).save(root / f"{i}.png")
    return find_images([root])


def ask(files, paid, wanted=10**6):
    asked = list(ask_about(files, paid, wanted))
    return (
        {digest for some in asked for _, digest in some.answered},
        {Path(failure.path).name: failure.reason for some in asked for failure in some.failures},
    )


def test_every_fault_is_survived_and_nothing_is_asked_twice(tmp_path, teacher):
    files, server = pool(tmp_path, 60), TeacherServer(teacher, share=0.3, seed=3)
    server.slow = 0.01
    with serving(server) as url:
        paid = spec(url, tmp_path, 200).open("cpu")
        answered, failures = ask(files, paid)
        assert len(answered) == len(paid.ledger) == paid.asked == 60
        assert not failures
        assert sum(server.charged.values()) == paid.ledger.spent == 60 + paid.lost
        calls = len(server.calls)
        assert ask(files, spec(url, tmp_path, 200).open("cpu"))[0] == answered
        assert len(server.calls) == calls
    photo = read_photo(files[5])
    expected = teacher.embed([teacher.prepare(photo)])
    np.testing.assert_allclose(paid.embed([paid.prepare(photo)]), expected, atol=1e-6)


@pytest.mark.parametrize("fault", EVERY)
@pytest.mark.parametrize("when", [0, 1, 3])
def test_each_fault_alone(tmp_path, teacher, fault, when):
    """First, while the length of the vectors is not known yet; second; and later."""
    files, server = pool(tmp_path, 12), TeacherServer(teacher)
    server.forced, server.slow = [""] * when + [fault], 0.01
    with serving(server) as url:
        paid = spec(url, tmp_path, 40, concurrency=1).open("cpu")
        assert len(ask(files, paid)[0]) == 12
    assert paid.dim == 12
    assert sum(server.charged.values()) == paid.ledger.spent


def test_the_budget_holds_however_the_calls_fail(tmp_path, teacher):
    files, server = pool(tmp_path, 40), TeacherServer(teacher, share=0.5, seed=4)
    server.slow = 0.01
    with serving(server) as url:
        paid = spec(url, tmp_path, 21).open("cpu")
        ask(files, paid)
        assert sum(server.charged.values()) <= paid.ledger.spent <= 21
        with pytest.raises(BudgetError, match=r"not asked \d+ of \d+ questions: 21 of the budget of 21"):
            paid.embed([paid.prepare(read_photo(file)) for file in files])
        assert ask(files, spec(url, tmp_path, 0).open("cpu"))[0]  # with none left the ledger still answers


def test_processes_share_ledger_and_budget(tmp_path, teacher):
    files, server = pool(tmp_path, 60), TeacherServer(teacher, share=0.2, seed=5)
    server.slow = 0.05
    with serving(server) as url:
        forks = multiprocessing.get_context("forkserver")
        both = [
            forks.Process(target=ask_everything, args=(list(files), spec(url, tmp_path, 33)))
            for _ in range(2)
        ]
        for process in both:
            process.start()
        for process in both:
            process.join(300)
    assert [process.exitcode for process in both] == [0, 0]
    with Ledger(tmp_path / "l.sqlite", f"{url}#") as ledger:
        assert sum(server.charged.values()) <= ledger.spent <= 33
        assert len(ledger) >= 20
        if len(ledger) == 33:
            assert max(server.charged.values()) == 1  # neither asked for what the other had


def test_threads_that_want_the_same_image_pay_once(tmp_path, teacher):
    files, server = pool(tmp_path, 4), TeacherServer(teacher)
    server.delay = 0.05
    with serving(server) as url:
        paid = spec(url, tmp_path, 10).open("cpu")
        questions = [paid.prepare(read_photo(file)) for file in files]
        threads = [threading.Thread(target=paid.embed, args=(questions,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sum(server.charged.values()) == paid.ledger.spent == 4


def test_what_another_machine_is_asking_about_is_waited_for(tmp_path, teacher, monkeypatch, capsys):
    """It may have been killed there, which cannot be known here: then its time runs out."""
    monkeypatch.setattr(index.teachers.client, "SILENT", 0.05)
    files, server = pool(tmp_path, 1), TeacherServer(teacher)
    with serving(server) as url:
        paid = spec(url, tmp_path, 9).open("cpu")
        here, paid.ledger._owner = paid.ledger._owner, "elsewhere:1:1"
        paid.ledger.reserve([read_photo(files[0]).digest], 9, 0.5)
        paid.ledger._owner = here
        assert len(ask(files, paid)[0]) == 1
    said = capsys.readouterr().err
    assert said.count("1 image asked about by another process") == 1
    assert "1 image in flight when an earlier run ended; counted as spent" in said
    assert paid.ledger.spent == 2


def test_an_image_that_is_refused_is_found_and_named(tmp_path, teacher):
    """The endpoint refuses a whole call for one image; the others are answered."""
    files, server = pool(tmp_path, 10), TeacherServer(teacher)
    bad = read_photo(files[7]).digest
    refuse_one(server, bad, 422)
    with serving(server) as url:
        paid = spec(url, tmp_path, 100).open("cpu")
        answered, failures = ask(files, paid)
    assert len(answered) == 9
    assert list(failures) == [files[7].path.name]
    assert "HTTP 422" in failures[files[7].path.name]
    with pytest.raises(RetrievalError, match="HTTP 422"):  # and is not asked about again
        paid.prepare(read_photo(files[7]))


@pytest.mark.parametrize("answer", [np.nan, 0.0])
def test_nonsense_is_refused_named_and_not_stored(tmp_path, teacher, answer):
    files, server = pool(tmp_path, 30), TeacherServer(teacher)
    server._embed = lambda data: np.full((len(data), 12), answer, np.float32)
    with serving(server) as url:
        paid = spec(url, tmp_path, 1000).open("cpu")
        with pytest.raises(RetrievalError, match=r"vector (that is not finite|of zeros).*, for \d+\.png"):
            ask(files, paid)
        assert len(paid.ledger) == 0
        assert sum(server.charged.values()) == paid.ledger.lost == 12  # not the whole budget


def test_vectors_of_a_new_length_each_time_do_not_eat_the_budget(tmp_path, teacher):
    files, server, lengths = pool(tmp_path, 30), TeacherServer(teacher), iter(range(1, 1000))
    server._embed = lambda data: np.ones((len(data), next(lengths)), np.float32)
    with serving(server) as url:
        paid = spec(url, tmp_path, 1000).open("cpu")
        with pytest.raises(RetrievalError, match=r"answered with \d+ numbers, then \d+"):
            ask(files, paid)
    assert (paid.ledger.spent, paid.dim) == (13, 0)


def test_vectors_of_another_length_than_before_are_refused(tmp_path, teacher):
    files, server = pool(tmp_path, 20), TeacherServer(teacher)
    with serving(server) as url:
        ask(files[:6], spec(url, tmp_path, 1000).open("cpu"))
        server.share, server.faults = 1.0, ("dimension",)
        paid = spec(url, tmp_path, 1000).open("cpu")
        with pytest.raises(RetrievalError, match="answered with 11 numbers, not 12"):
            ask(files, paid)
        assert len(paid.ledger) == 6


def test_no_network_is_one_line(tmp_path):
    with pytest.raises(UnreachableError, match="cannot be reached") as caught:
        ask(pool(tmp_path, 3), spec("http://127.0.0.1:9/v1", tmp_path, 9).open("cpu"))
    assert "\n" not in str(caught.value)
    with Ledger(tmp_path / "l.sqlite", "http://127.0.0.1:9/v1#") as ledger:
        assert ledger.spent == 0


def test_a_wrong_key_ends_it_at_once(tmp_path, teacher):
    server = TeacherServer(teacher)
    server.key = "right"
    with serving(server) as url:
        with pytest.raises(CallError, match="HTTP 401"):
            ask(pool(tmp_path, 20), spec(url, tmp_path, 9).open("cpu"))
        assert len(server.calls) == 1
    assert not server.charged


def test_a_teacher_that_breaks_down_keeps_what_was_paid(tmp_path, teacher):
    files, server = pool(tmp_path, 40), TeacherServer(teacher)
    server.forced = [""] * 5 + ["500"] * 1000
    with serving(server) as url:
        paid = spec(url, tmp_path, 100).open("cpu")
        with pytest.raises(RetrievalError, match=r"HTTP 500.* \d+ answers kept in .*; run again"):
            ask(files, paid)
        assert len(paid.ledger) == paid.ledger.spent == sum(server.charged.values()) > 0


def refuse_one(server: TeacherServer, bad: str, status: int) -> None:
    """Fail whatever call has one image in it."""
    real = server._embed

    def embed(data):
        if bad in map(content_digest, data):
            raise HTTPException(status)
        return real(data)

    server._embed = embed


@pytest.mark.parametrize("place", [2, 9, 17])
def test_an_image_that_breaks_the_server_does_not_end_the_run(tmp_path, teacher, place):
    """With one lane there is no other whose success says that the teacher itself is well."""
    files, server = pool(tmp_path, 34), TeacherServer(teacher)
    refuse_one(server, read_photo(files[place]).digest, 500)
    with serving(server) as url:
        paid = spec(url, tmp_path, 100, batch=16, concurrency=1).open("cpu")
        answered, failures = ask(files, paid)
    assert len(answered) == 33
    assert list(failures) == [files[place].path.name]


def test_an_image_that_is_paid_for_in_vain_costs_few_others(tmp_path, teacher):
    files, server = pool(tmp_path, 66), TeacherServer(teacher)
    refuse_one(server, read_photo(files[40]).digest, 502)
    with serving(server) as url:
        paid = spec(url, tmp_path, 1000, batch=32, concurrency=1).open("cpu")
        answered, failures = ask(files, paid)
    assert len(answered) == 65
    assert list(failures) == [files[40].path.name]
    assert sum(server.charged.values()) == paid.ledger.spent <= 65 + 2 * 32  # not all of a call, eight times


def test_calls_too_large_for_the_time_do_not_eat_the_budget(tmp_path, teacher):
    """A call of more than ten images takes the teacher longer than we wait, and is charged."""
    files, server = pool(tmp_path, 100), TeacherServer(teacher)
    real = server._embed

    def embed(data):
        if len(data) > 10:
            raise HTTPException(504)
        return real(data)

    server._embed = embed
    with serving(server) as url:
        paid = spec(url, tmp_path, 250, batch=32, concurrency=3).open("cpu")
        ask(files[-1:], paid)  # else each thread may first ask about one image, of its 32
        assert len(ask(files, paid)[0]) == 100
    assert max(map(len, server.calls)) == 32
    assert paid.ledger.spent <= 100 + 3 * 32 + 3 * 11


def test_calls_grow_again_after_trouble(tmp_path, teacher):
    files, server = pool(tmp_path, 80), TeacherServer(teacher)
    server.forced = ["", "", "drop"]
    with serving(server) as url:
        ask(files, spec(url, tmp_path, 200, batch=8, concurrency=1).open("cpu"))
    sizes = list(map(len, server.calls))
    assert sizes[:4] == [1, 1, 6, 1]
    assert max(sizes[4:]) > 2


@pytest.mark.parametrize(("most", "failed"), [(3, [8, 4, 4]), (5, [8, 6, 6])])
def test_an_endpoint_that_drops_larger_calls_is_not_asked_so_for_ever(tmp_path, teacher, most, failed):
    files, server = pool(tmp_path, 250), TeacherServer(teacher)
    server._choose = lambda: "drop" if len(server.calls[-1]) > most else ""
    with serving(server) as url:
        paid = spec(url, tmp_path, 1000, batch=32, concurrency=1).open("cpu")
        assert len(ask(files, paid)[0]) == 250
    sizes = list(map(len, server.calls))
    assert [size for size in sizes if size > most] == failed
    assert sum(server.charged.values()) == paid.ledger.spent == 250 + sum(failed)
    assert sizes.count(most) > 5


def test_answers_that_are_none_do_not_eat_the_budget(tmp_path, teacher):
    """They come as success, and are charged for as such."""
    files, server = pool(tmp_path, 30), TeacherServer(teacher)
    server.script = 200, {}, b'{"error": "no such model"}'
    with serving(server) as url:
        paid = spec(url, tmp_path, 1000).open("cpu")
        with pytest.raises(
            RetrievalError, match=r"12 calls were of no use. The last: .*no such model.*\.png\."
        ):
            ask(files, paid)
    assert paid.ledger.spent == len(server.calls) == 12


def test_retry_after_is_honoured_by_all_and_too_long_is_said(tmp_path, teacher):
    files, server = pool(tmp_path, 8), TeacherServer(teacher)
    server.script = 429, {"Retry-After": "7200"}, b""
    with serving(server) as url, pytest.raises(RetrievalError, match="wants to be left alone for 7200 s"):
        ask(files, spec(url, tmp_path, 100).open("cpu"))
    assert len(server.calls) == 1


def test_a_rest_that_one_lane_is_told_of_is_taken_by_all():
    pace = RateLimit(None)
    pace.hold(0.2)
    start = time.monotonic()
    with ThreadPoolExecutor(3) as lanes:
        ends = list(lanes.map(lambda _: pace.wait(1, threading.Event()) or time.monotonic(), range(3)))
    assert min(ends) - start >= 0.2


class Waits(threading.Event):
    """Writes down how long it was waited for, and does not wait."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def wait(self, timeout=None):
        self.seconds.append(timeout)
        return self.is_set()


def test_pauses_grow_and_are_left_to_chance(tmp_path, teacher, monkeypatch):
    monkeypatch.setattr(index.teachers.retry, "SHORTEST", 0.5)
    (file,), server, waits = pool(tmp_path, 1), TeacherServer(teacher), Waits()
    server.forced = ["500"] * 7
    with serving(server) as url:
        paid = spec(url, tmp_path, 9).open("cpu")
        paid.ask([paid.prepare(read_photo(file))], waits)
    assert len(paid.ledger) == 1
    pauses = [seconds for seconds in waits.seconds if seconds]
    assert len(set(pauses)) == 7
    assert all(0 < pause <= min(30, 0.5 * 2**turn) for turn, pause in enumerate(pauses, 1))


def test_the_rate_is_a_limit(tmp_path, teacher):
    files, server = pool(tmp_path, 12), TeacherServer(teacher)
    with serving(server) as url:
        start = time.monotonic()
        ask(files, spec(url, tmp_path, 100, rate=20).open("cpu"))
        assert time.monotonic() - start > 0.4  # 12 at 20 a second, less the last call's turn


@pytest.fixture
def small_disk(tmp_path):
    """A disk of its own, of which 40 MB are free."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(place)]
    if sys.platform != "linux" or os.geteuid() or subprocess.run(mount, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_disk_that_fills_up_loses_nothing(small_disk, tmp_path, teacher):
    """First there is room to ask, then only for what was asked, then for nothing at all."""
    files, server = pool(tmp_path, 12), TeacherServer(teacher)
    with serving(server) as url:
        paid = spec(url, small_disk, 100).open("cpu")
        assert len(ask(files[:4], paid)[0]) == 4
        (small_disk / "filler").write_bytes(bytes(12_000_000))
        with pytest.raises(RetrievalError, match=r"less than 32 MB of free disk.*what was paid for is kept"):
            ask(files, paid)
        assert len(server.calls) == 3
        with (
            (small_disk / "filler").open("ab", buffering=0) as filler,
            pytest.raises(OSError, match="No space left"),
        ):
            while True:
                filler.write(bytes(1_000_000))
        rows = np.ones((500, 12), np.float32)
        with pytest.raises(RetrievalError, match=r"could not be written: .*full.*What it holds is kept"):
            for start in range(0, 10**6, 500):
                paid.ledger.add([f"{start + i:032x}" for i in range(500)], rows)
        kept = len(paid.ledger)
        (small_disk / "filler").unlink()
        assert not verify_ledger(small_disk / "l.sqlite")
        assert len(ask(files, paid)[0]) == 12
        assert len(paid.ledger) == kept + 8
        assert max(server.charged.values()) == 1


def test_a_full_disk_stops_before_anything_is_asked(tmp_path, teacher, monkeypatch):
    files, server = pool(tmp_path, 4), TeacherServer(teacher)
    usage = type("Usage", (), {"free": 1000})
    with serving(server) as url:
        paid = spec(url, tmp_path, 100).open("cpu")
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
        with pytest.raises(RetrievalError, match=r"less than 32 MB of free disk.*what was paid for is kept"):
            ask(files, paid)
    assert not server.calls


def test_a_ledger_that_cannot_be_written(tmp_path, teacher, monkeypatch):
    files, server = pool(tmp_path, 4), TeacherServer(teacher)
    monkeypatch.setattr("index.teachers.ledger.PATIENCE", 0.1)
    with serving(server) as url:
        paid = spec(url, tmp_path, 100).open("cpu")
        other = sqlite3.connect(tmp_path / "l.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(RetrievalError, match=r"l\.sqlite could not be written: database is locked"):
            ask(files, paid)
    assert not server.calls


def test_a_ledger_of_another_teacher(tmp_path, teacher):
    Ledger(tmp_path / "l.sqlite", "someone else").close()
    with pytest.raises(UsageError, match=r"holds the answers of another teacher: someone else"):
        spec("http://127.0.0.1:9/v1", tmp_path, 1).open("cpu")


class Wrong(OnnxEmbedder):
    """A model that gives too few answers."""

    def embed(self, batch):
        return super().embed(batch)[:-1]


def test_too_few_answers(tmp_path, teacher_file, folder):
    model = Wrong(teacher_file, "cpu")
    with Ledger(tmp_path / "l.sqlite", model.key) as ledger:
        with pytest.raises(CallError, match=r"gave \d+ answers to \d+ images"):
            ask(find_images([folder]), BudgetedTeacher(model, ledger, 10))
        assert len(ledger) == 0


def answer_as(server: TeacherServer, change) -> None:
    """Change the list of answers of each call."""
    write = server._write

    def write_changed(request, vectors, encoding, fault):
        entries = json.loads(write(request, vectors, encoding, fault).body)["data"]
        return Response(json.dumps({"data": change(entries)}), media_type="application/json")

    server._write = write_changed


@pytest.mark.parametrize(
    ("change", "wasted", "said"),
    [
        (lambda entries: [{**entry, "index": 0} for entry in entries], 0, "their order counts"),
        (lambda entries: [{"embedding": entry["embedding"]} for entry in entries], 0, "their order counts"),
        (lambda entries: [{**entry, "index": entry["index"] + 1} for entry in entries], 0, ""),
        (lambda entries: entries[:1], 8, "about 1 a call from now on"),
        (lambda entries: entries[:16], 32, "about 16 a call from now on"),
    ],
    ids=["index 0", "no index", "from one", "the first only", "sixteen at most"],
)
def test_endpoints_that_answer_otherwise_cost_a_few_answers(tmp_path, teacher, capsys, change, wasted, said):
    """The lesson is paid for once, by one thread, and kept for the next run."""
    # More than all threads begin with: the first groups may go on by eight, and only a fresh one tries 32.
    files, server = pool(tmp_path, 240), TeacherServer(teacher)
    files, later = files[:200], files[200:]
    answer_as(server, change)
    with serving(server) as url:
        paid = spec(url, tmp_path, 1000, batch=32, concurrency=4).open("cpu")
        answered, failures = ask(files, paid)
        assert len(answered) == 200
        assert not failures
        assert 200 <= sum(server.charged.values()) == paid.ledger.spent <= 200 + wasted
        photo = read_photo(files[77])
        expected = teacher.embed([teacher.prepare(photo)])
        np.testing.assert_allclose(paid.embed([paid.prepare(photo)]), expected, atol=1e-6)
        told = capsys.readouterr().err
        again = spec(url, tmp_path, 1000, batch=32, concurrency=4).open("cpu")
        assert again.calls.batch == paid.calls.batch
        assert len(ask(later, again)[0]) == 40
        assert again.lost == 0
        assert again.name not in capsys.readouterr().err
    assert told.count("their order counts") + told.count("a call from now on") == bool(said)
    assert said in told


def test_no_vector_is_taken_for_one_of_another_image(tmp_path, teacher):
    """Though the endpoint leaves one out, and numbers those behind it as if it were not there."""
    files, server = pool(tmp_path, 40), TeacherServer(teacher)
    bad = content_digest(files[20].read()[0])

    def change(entries):
        pairs = zip(entries, server.calls[-1], strict=True)
        kept = [entry for entry, digest in pairs if digest != bad]
        return [{**entry, "index": i} for i, entry in enumerate(kept)]

    answer_as(server, change)
    with serving(server) as url:
        paid = spec(url, tmp_path, 200, batch=16, concurrency=1).open("cpu")
        answered, failures = ask(files, paid)
        assert len(answered) == 39
        assert list(failures) == [files[20].path.name]
        photos = [read_photo(file) for file in files if file != files[20]]
        expected = teacher.embed([teacher.prepare(photo) for photo in photos])
        rows = paid.embed([paid.prepare(photo) for photo in photos])
    np.testing.assert_allclose(rows, expected, atol=1e-6)
    assert sum(server.charged.values()) == paid.ledger.spent <= 39 + 16 + 15 + 4


def test_an_image_whose_answers_cannot_be_read_is_paid_for_a_few_times_and_not_again(tmp_path, teacher):
    files, server = pool(tmp_path, 4), TeacherServer(teacher)
    with serving(server) as url:
        paid = spec(url, tmp_path, 100).open("cpu")
        ask(files[:3], paid)
        question = paid.prepare(read_photo(files[3]))
        server.script = 200, {}, b"The second one."
        for _ in range(2):
            with pytest.raises(RetrievalError, match=r"no list of embeddings .*, 4 times"):
                paid.embed([question])
    assert paid.ledger.spent == len(server.calls) == 3 + 4


def test_an_image_that_cost_nothing_is_asked_about_again_later(tmp_path, teacher):
    """As in a server, whose teacher may be away for a while."""
    files, server = pool(tmp_path, 4), TeacherServer(teacher)
    with serving(server) as url:
        paid = spec(url, tmp_path, 100).open("cpu")
        ask(files[:3], paid)
        question = paid.prepare(read_photo(files[3]))
        server.forced = ["500"] * index.teachers.retry.ATTEMPTS
        with pytest.raises(RetrievalError, match="HTTP 500"):
            paid.embed([question])
        assert paid.embed([question]).shape == (1, 12)
    assert paid.ledger.spent == 4


def test_what_one_process_has_learnt_is_not_forgotten_by_another(tmp_path, teacher):
    files, server = pool(tmp_path, 6), TeacherServer(teacher)
    with serving(server) as url:
        first = spec(url, tmp_path, 100).open("cpu")
        first.ledger.learn({"batch": 3})
        one, other = (spec(url, tmp_path, 100).open("cpu") for _ in range(2))
        one._teacher.take_fewer(2)
        ask(files[:3], one)
        other._teacher._learn("ordered", 1, "does not number its answers.")
        ask(files[3:], other)
    assert first.ledger.lessons == {"batch": 2, "ordered": 1}


@pytest.mark.parametrize("nothing", [{"embedding": None}, {"embedding": []}, {"error": "no face"}])
@pytest.mark.parametrize("alone", [False, True])
def test_no_vector_for_one_image_costs_that_image_alone(tmp_path, teacher, nothing, alone):
    files, server = pool(tmp_path, 20), TeacherServer(teacher)
    bad = content_digest(files[0 if alone else 12].read()[0])

    def change(entries):
        return [
            {"index": entry["index"], **nothing} if digest == bad else entry
            for entry, digest in zip(entries, server.calls[-1], strict=True)
        ]

    answer_as(server, change)
    with serving(server) as url:
        answered, failures = ask(files, spec(url, tmp_path, 100, concurrency=1).open("cpu"))
    assert len(answered) == 19
    assert len(failures) == 1
    assert server.charged[bad] == sum(server.charged.values()) - 19 == 4


def ask_all(files, paid):
    """Ask about all files, as a run does that embeds them."""
    ask_along(embed_files(files, {}, paid=paid), paid, len(files), lambda part: None)


@pytest.mark.parametrize("fault", ["nan", "dimension", "500", "drop"])
def test_a_faulty_answer_to_the_probe_says_nothing_of_the_model(tmp_path, teacher, fault):
    files, server = pool(tmp_path, 12), TeacherServer(teacher)
    with serving(server) as url:
        ask(files[:6], spec(url, tmp_path, 20).open("cpu"))
        server.forced = [fault]
        again = spec(url, tmp_path, 20).open("cpu")
        ask_all(files, again)
        assert server.forced == []
        assert len(again.ledger) == 12


@pytest.mark.parametrize(
    ("options", "budget", "noticed"), [({}, 14, True), ({"probe": False}, 14, False), ({}, 12, False)]
)
def test_a_model_that_was_replaced_is_noticed(tmp_path, teacher, options, budget, noticed):
    """For one answer, where the budget has one to spare."""
    files, server = pool(tmp_path, 12), TeacherServer(teacher)
    with serving(server) as url:
        ask(files[:6], spec(url, tmp_path, 20).open("cpu"))
        same = spec(url, tmp_path, budget, **options).open("cpu")
        ask_all(files[:9], same)
        probed = same.ledger.lost
        assert same.ledger.spent == 9 + probed
        assert probed == (options == {} and budget > 9)
        same.ledger.close()
        real = server._embed
        server._embed = lambda data: real(data)[:, ::-1].copy()
        changed = spec(url, tmp_path, budget, **options).open("cpu")
        if noticed:
            with pytest.raises(
                RetrievalError, match=r"answers otherwise about 0\.png than before .*--ledger"
            ):
                ask_all(files, changed)
            assert (len(changed.ledger), changed.ledger.spent) == (9, 11)
        elif budget == 14:
            ask_all(files, changed)
            assert len(changed.ledger) == 12


@pytest.mark.parametrize("probe", [True, False])
def test_weights_that_a_callable_reads_and_that_changed_are_noticed(tmp_path, probe):
    """Its key covers code alone."""
    code = (
        "import numpy as np\nfrom pathlib import Path\nHERE = Path(__file__).parent\n"
        "def f(images):\n    w = np.load(HERE / 'w.npy')\n"
        "    return [np.asarray(image).mean(axis=(0, 1)) @ w for image in images]\n"
    )
    (tmp_path / "reading.py").write_text(code)
    files, weights = pool(tmp_path, 12), np.eye(3)
    for some in (6, 12):
        np.save(tmp_path / "w.npy", weights)
        paid = spec(f"{tmp_path}/reading.py:f", tmp_path, 20, probe=probe).open("cpu")
        if some == 12 and probe:
            with pytest.raises(RetrievalError, match=r"answers otherwise about 0\.png than before"):
                ask_all(files, paid)
        else:
            ask_all(files[:some], paid)
            assert paid.ledger.spent == some
        weights = -weights


@pytest.mark.parametrize(("most", "status"), [(1, 400), (1, 422), (4, 413)])
def test_an_endpoint_that_refuses_large_calls_is_soon_asked_small_ones(tmp_path, teacher, most, status):
    """In later runs from the start; one image that is refused by itself teaches nothing."""
    refused: list[int] = []

    class Small(TeacherServer):
        async def answer(self, request: Request):
            images, _ = await read_request(request)
            if len(images) > most or bad in map(content_digest, images):
                refused.append(len(images))
                return Response("no", status)
            return await super().answer(request)

    files, server = pool(tmp_path, 40), Small(teacher)
    bad = content_digest(files[20].read()[0])
    with serving(server) as url:
        paid = spec(url, tmp_path, 60, batch=16, concurrency=1).open("cpu")
        ask(files[:35], paid)
        assert (len(paid.ledger), paid.ledger.spent) == (34, 34)
        assert sum(refused) <= 40
        refused.clear()
        paid.ledger.close()
        again = spec(url, tmp_path, 60, batch=16, concurrency=1).open("cpu")
        ask(files[35:], again)
        assert (len(again.ledger), refused) == (39, [])

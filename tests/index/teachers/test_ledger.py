import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.errors import RetrievalError, UsageError
from index.teachers.ledger import IN_MEMORY, Ledger, default_ledger, is_gone


@settings(max_examples=25, deadline=None)
@given(batches=st.lists(st.sets(st.integers(0, 40), max_size=12), max_size=6), dim=st.integers(1, 9))
def test_every_answer_is_kept_to_the_bit_and_the_first_one_counts(tmp_path_factory, batches, dim):
    path = tmp_path_factory.mktemp("ledger") / "l.sqlite"
    expected: dict[str, np.ndarray] = {}
    for turn, batch in enumerate(batches):
        digests = [f"{i:032x}" for i in sorted(batch)]
        vectors = np.random.default_rng(turn).normal(size=(len(digests), dim)).astype(np.float32)
        with Ledger(path, "t") as ledger:  # opened again: what was added is on disk
            ledger.add(digests, vectors)
        for digest, vector in zip(digests, vectors, strict=True):
            expected.setdefault(digest, vector)
    with Ledger(path, "t") as ledger:
        assert len(ledger) == len(expected)
        answers = ledger.answers([*expected, "unknown"])
        assert answers.keys() == expected.keys() == ledger.known([*expected, "unknown"])
        for digest, vector in expected.items():
            np.testing.assert_array_equal(answers[digest], vector)


def test_more_digests_than_a_statement_holds(tmp_path, unit_rows):
    digests = [f"{i:032x}" for i in range(1700)]
    with Ledger(tmp_path / "l.sqlite", "t") as ledger:
        ledger.add(digests, unit_rows(1700, 4))
        assert ledger.known(digests) == set(digests)
        assert len(ledger.answers(digests)) == 1700


def test_two_connections_share_one_file(tmp_path, unit_rows):
    with Ledger(tmp_path / "l.sqlite", "t") as one, Ledger(tmp_path / "l.sqlite", "t") as two:
        one.add(["a"], unit_rows(1, 4))
        two.add(["b"], unit_rows(1, 4))
        assert len(one) == len(two) == 2


def test_a_ledger_belongs_to_one_teacher(tmp_path):
    Ledger(tmp_path / "l.sqlite", "one").close()
    with pytest.raises(UsageError, match="answers of another teacher"):
        Ledger(tmp_path / "l.sqlite", "two")


def test_what_is_no_ledger_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "letter.txt"
    path.write_text("dear" * 100)
    with pytest.raises(UsageError, match="cannot be used as a ledger"):
        Ledger(path, "t")
    assert path.read_text() == "dear" * 100


def test_a_database_of_another_program_is_refused_and_left_alone(tmp_path):
    """It has no ledger's tables, or none at all and a version of its own."""
    for name, statement in (("a", "CREATE TABLE places (url)"), ("b", "PRAGMA user_version = 9")):
        db = sqlite3.connect(tmp_path / name)
        db.execute(statement)
        db.commit()
        db.close()
        before = (tmp_path / name).read_bytes()
        with pytest.raises(UsageError, match="is not a ledger of this version"):
            Ledger(tmp_path / name, "t")
        assert (tmp_path / name).read_bytes() == before


def test_a_ledger_that_another_process_is_just_making_is_waited_for(tmp_path):
    """SQLite itself would wait for a lock, but not for this one."""
    maker = sqlite3.connect(tmp_path / "l.sqlite", isolation_level=None, check_same_thread=False)
    maker.execute("BEGIN IMMEDIATE")
    done = threading.Timer(0.2, maker.execute, ("ROLLBACK",))
    done.start()
    with Ledger(tmp_path / "l.sqlite", "t") as ledger:
        assert len(ledger) == 0
    done.join()


def test_an_answer_that_lost_bytes_is_not_used(tmp_path, unit_rows):
    with Ledger(tmp_path / "l.sqlite", "t") as ledger:
        ledger.add(["a", "b"], unit_rows(2, 4))
        ledger._db.execute("UPDATE answers SET vector = substr(vector, 1, 10) WHERE digest = 'a'")
        assert ledger.answers(["b"]).keys() == {"b"}
        with pytest.raises(RetrievalError, match=r"l\.sqlite is damaged: see `retrieval ledger verify"):
            ledger.answers(["a", "b"])


def test_the_digest_names_the_answers_used(tmp_path, unit_rows):
    with Ledger(tmp_path / "l.sqlite", "t") as ledger:
        ledger.add(["a", "b", "c"], unit_rows(3, 4))
        assert ledger.digest(["a", "b"]) == ledger.digest(["b", "a"]) != ledger.digest(["a", "c"])


def test_each_teacher_has_a_file_of_its_own():
    assert default_ledger("one") == default_ledger("one") != default_ledger("two")


def test_the_budget_is_reserved_before_it_is_spent(tmp_path, unit_rows):
    with Ledger(tmp_path / "l.sqlite", "t") as one, Ledger(tmp_path / "l.sqlite", "t") as two:
        first = one.reserve(["a", "b"], 3, 60)
        assert (set(first.calls), first.busy, first.denied) == ({"a", "b"}, set(), [])
        second = two.reserve(["b", "c", "d"], 3, 60)
        assert (set(second.calls), second.busy, second.denied) == ({"c"}, {"b"}, ["d"])
        assert one.spent == 3
        one.release([first.calls["a"]])  # it cost nothing
        two.lose([second.calls["c"]])  # it cost something, and brought nothing
        one.add(["b"], unit_rows(1, 4), first.calls)
        assert (one.spent, one.lost, len(one)) == (2, 1, 1)
        assert set(two.reserve(["b", "c", "d"], 3, 60).calls) == {"c"}


def test_what_was_in_flight_when_a_process_died_is_spent(tmp_path):
    path = tmp_path / "l.sqlite"
    script = (
        "import os, signal, sys; from pathlib import Path; from index.teachers.ledger import Ledger;"
        "Ledger(Path(sys.argv[1]), 't').reserve(['a', 'b'], 9, 60); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    with Ledger(path, "t") as ledger:
        again = ledger.reserve(["a", "b", "c"], 4, 60)
        assert ledger.spent == 4
        assert (set(again.calls), again.denied) == ({"a", "b"}, ["c"])


def test_a_process_is_known_by_its_birth_too(tmp_path, capsys):
    """Its number may be used again, in a container even by the very next one that asks."""
    with Ledger(tmp_path / "l.sqlite", "t") as ledger:
        host, number, born = ledger._owner.rsplit(":", 2)
        ledger._owner = f"{host}:{number}:{int(born) - 1000}"
        ledger.reserve(["a"], 9, 60)
        ledger._owner = f"elsewhere:{number}:{int(born) - 1000}"
        ledger.reserve(["b"], 9, 60)
        ledger._owner = f"{host}:{number}:{born}"
        ledger.reserve(["c"], 9, 60)
        again = ledger.reserve(["a", "b", "c"], 9, 60)
        assert (set(again.calls), again.busy) == ({"a"}, {"b", "c"})
        assert ledger.spent == 4
    assert capsys.readouterr().err.count("1 image in flight when an earlier run ended") == 1


@pytest.mark.skipif(os.name != "posix", reason="only there do the dead linger")
def test_a_killed_process_that_nobody_has_looked_after_is_gone():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    owner = f"{socket.gethostname()}:{child.pid}:{psutil.Process(child.pid).create_time():.0f}"
    assert not is_gone(owner)
    child.kill()
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert is_gone(owner)
    child.wait()
    assert is_gone(owner)


def test_what_took_too_long_is_spent_even_if_its_process_lives(tmp_path):
    with Ledger(tmp_path / "l.sqlite", "t") as ledger:
        ledger.reserve(["a"], 9, 0.01)
        time.sleep(0.02)
        assert set(ledger.reserve(["a"], 9, 60).calls) == {"a"}
        assert ledger.spent == 2


def test_a_ledger_in_memory_needs_no_disk(monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 0}))
    with Ledger(IN_MEMORY, "t") as ledger:
        assert ledger.reserve(["a"], 9, 60).calls


def test_a_file_that_was_sent_in_another_form_is_found_by_both(tmp_path, unit_rows):
    with Ledger(tmp_path / "l.sqlite", "t") as ledger:
        ledger.add(["sent"], unit_rows(1, 4), sources={"sent": "file"})
        assert ledger.known(["sent", "file", "other"]) == {"sent", "file"}
        assert len(ledger) == 1


def test_two_lengths_do_not_go_together(tmp_path, unit_rows):
    with Ledger(tmp_path / "l.sqlite", "t") as ledger:
        ledger.add(["a"], unit_rows(1, 4))
        with pytest.raises(RetrievalError, match="answers of length 4, not 5"):
            ledger.add(["b"], unit_rows(1, 5))
        assert len(ledger) == 1


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_ledger_that_is_read_only(tmp_path):
    Ledger(tmp_path / "l.sqlite", "t").close()
    (tmp_path / "l.sqlite").chmod(0o400)
    with pytest.raises(UsageError, match="cannot be used as a ledger"):
        Ledger(tmp_path / "l.sqlite", "t")


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be used as a ledger"):
        Ledger(tmp_path / "file" / "l.sqlite", "t")

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.errors import UsageError
from index.ledger import Ledger, default_ledger


@settings(max_examples=25, deadline=None)
@given(batches=st.lists(st.sets(st.integers(0, 40), max_size=12), max_size=6), dim=st.integers(1, 9))
def test_every_answer_is_kept_to_the_bit_and_the_first_one_counts(tmp_path_factory, batches, dim):
    path = tmp_path_factory.mktemp("ledger") / "l.sqlite"
    expected: dict[str, np.ndarray] = {}
    for turn, batch in enumerate(batches):
        digests = [f"{i:032x}" for i in sorted(batch)]
        vectors = np.random.default_rng(turn).normal(size=(len(digests), dim)).astype(np.float32)
        with Ledger(path, "t") as ledger:  # opened anew: what was added is on disk
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


def test_the_digest_names_the_answers_used(tmp_path, unit_rows):
    with Ledger(tmp_path / "l.sqlite", "t") as ledger:
        ledger.add(["a", "b", "c"], unit_rows(3, 4))
        assert ledger.digest(["a", "b"]) == ledger.digest(["b", "a"]) != ledger.digest(["a", "c"])


def test_each_teacher_has_a_file_of_its_own():
    assert default_ledger("one") == default_ledger("one") != default_ledger("two")

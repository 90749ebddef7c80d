"""What `retrieval ledger` tells."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from index.embedders.registry import open_embedder
from index.errors import RetrievalError, UsageError
from index.teachers.ledger import Ledger
from index.teachers.ledger_report import export_ledger, read_account, verify_ledger


@pytest.fixture
def path(tmp_path: Path, unit_rows) -> Path:
    """Three answers, one failed call and one in flight."""
    with Ledger(tmp_path / "l.sqlite", "t") as ledger:
        calls = ledger.reserve(["a", "b", "c"], 10, 60).calls
        ledger.add(["a", "b", "c"], 2 * unit_rows(3, 4), calls, {"c": "file of c"}, seconds=1.5)
        ledger.lose(ledger.reserve(["d"], 10, 60).calls.values())
        ledger.reserve(["e"], 10, 60)
    return tmp_path / "l.sqlite"


def damage(path: Path, statement: str, *values: object) -> None:
    with sqlite3.connect(path) as db:
        db.execute(statement, values)
    db.close()


def test_the_account_adds_up(path):
    account = read_account(path)
    assert (account.teacher, account.dim, account.answers, account.lost, account.in_flight) == (
        "t",
        4,
        3,
        1,
        1,
    )
    assert account.spent == 5
    assert account.rate == pytest.approx(2)
    assert account.first <= account.last
    assert "failed     1" in str(account)


def test_an_export_is_a_teacher(path, tmp_path, unit_rows):
    for name in ("v.npz", "v.parquet"):
        assert export_ledger(path, tmp_path / name) == 3
        model = open_embedder(tmp_path / name)
        assert model.dim == 4
        rows = model.embed([model._vectors[model._rows[digest]] for digest in ("a", "b", "file of c")])
        np.testing.assert_allclose(rows, unit_rows(3, 4), atol=1e-6)
        assert np.abs(model._vectors).max() > np.abs(rows).max()  # as they were answered


def test_all_is_well_until_a_bit_flips(path):
    assert verify_ledger(path) == []
    (blob,) = sqlite3.connect(path).execute("SELECT vector FROM answers WHERE digest = 'b'").fetchone()
    damage(path, "UPDATE answers SET vector = ? WHERE digest = 'b'", bytes([blob[0] ^ 1]) + blob[1:])
    assert verify_ledger(path) == ["b: the checksum does not fit"]


def test_a_damaged_answer_is_not_exported(path, tmp_path):
    damage(path, "UPDATE answers SET vector = substr(vector, 1, 10) WHERE digest = 'b'")
    for name in ("v.npz", "v.parquet"):
        with pytest.raises(RetrievalError, match="is damaged: see `retrieval ledger verify"):
            export_ledger(path, tmp_path / name)
        assert not (tmp_path / name).exists()


def test_looking_changes_nothing(path):
    before = path.read_bytes()
    read_account(path), verify_ledger(path)
    assert path.read_bytes() == before


def test_what_is_no_ledger(tmp_path, path):
    (tmp_path / "text").write_text("text" * 2000)
    sqlite3.connect(tmp_path / "other.sqlite").execute("CREATE TABLE a (b)").connection.commit()
    for name, complaint in (
        ("none", "does not exist"),
        ("text", "is not a ledger, or is damaged"),
        ("other.sqlite", "is not a ledger of this version"),
    ):
        with pytest.raises(UsageError, match=complaint):
            read_account(tmp_path / name)
    with pytest.raises(UsageError, match="holds no answer yet"):
        Ledger(tmp_path / "new.sqlite", "t").close()
        export_ledger(tmp_path / "new.sqlite", tmp_path / "v.npz")

"""A teacher over HTTP that fails, and runs that are killed: nothing is paid twice, no budget is passed."""

import random
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import picture
from forked import FORKS
from teacher_server import TeacherServer, serving

from distill.options import Options
from distill.pipeline import distill_by_name
from index.embedders.onnx import OnnxEmbedder
from index.embedders.options import EmbedderOptions
from index.images.decode import read_photo
from index.images.sources import find_images
from index.progress import count
from index.teachers.ledger_report import read_account, verify_ledger
from index.teachers.spec import TeacherSpec

BATCH, LANES, IMAGES = 2, 3, 48
OPTIONS = Options(
    budget=140, student="test_efficientnet", weights="none", size=32, dim=6, device="cpu", steps=6
)
# A fork of one process that has imported torch: a start takes no time, and kills hit the work.
FORKED = ["distill.pipeline", "index.embedders.http"]


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    root = tmp_path / "pool"
    root.mkdir()
    for i in range(IMAGES):
        picture(i).save(root / f"{i}.png")
    return root


@pytest.fixture
def teacher(teacher_file: Path) -> OnnxEmbedder:
    return OnnxEmbedder(teacher_file, "cpu")


def spec_of(url: str, ledger: Path) -> TeacherSpec:
    # Without the probe, which asks again about one image a run, on purpose.
    options = EmbedderOptions(batch=BATCH, concurrency=LANES, timeout=5, probe=False)
    return TeacherSpec(url, options, ledger)


def start(pool: Path, spec: TeacherSpec, out: Path, options: Options = OPTIONS):
    process = FORKS.Process(target=distill_by_name, args=([pool], spec, out, options, [options.budget]))
    process.start()
    return process


def stored(ledger: Path) -> tuple[set[str], int]:
    """Digests of the answers, and how many images are in flight by the ledger's account."""
    if not ledger.is_file():
        return set(), 0
    db = sqlite3.connect(ledger)
    try:
        answers = {digest for (digest,) in db.execute("SELECT digest FROM answers")}
        return answers, db.execute("SELECT count(*) FROM calls WHERE until > 0").fetchone()[0]
    except sqlite3.OperationalError:  # killed before there were tables
        return set(), 0
    finally:
        db.close()


@pytest.mark.slow
def test_ten_kills_and_faults_change_nothing_but_the_bill(pool, tmp_path, teacher):
    with serving(TeacherServer(teacher)) as url:
        undisturbed = distill_by_name(
            [pool], spec_of(url, tmp_path / "calm.sqlite"), tmp_path / "calm", OPTIONS, [OPTIONS.budget]
        )

    server, ledger, out = TeacherServer(teacher, share=0.2, seed=1), tmp_path / "l.sqlite", tmp_path / "out"
    server.delay = 0.15
    moments, kept = random.Random(0), []
    with serving(server) as url:
        spec = spec_of(url, ledger)
        for _ in range(10):
            process = start(pool, spec, out)
            calls = len(server.calls) + moments.randrange(1, 6)
            while process.is_alive() and len(server.calls) < calls:
                process.join(0.02)
            process.join(moments.uniform(0, 0.3))
            process.kill()
            process.join()
            answers, flying = stored(ledger)
            assert flying <= BATCH * LANES
            kept.append((len(server.calls), answers))
        process = start(pool, spec, out)
        process.join(300)
        assert process.exitcode == 0

    for asked, answers in kept:  # what had reached the ledger by then was never asked for again
        assert not answers & {digest for call in server.calls[asked:] for digest in call}
    assert kept[0][1] != kept[-1][1], "no kill came while it was asking"
    account = read_account(ledger)
    assert account.answers == IMAGES
    assert sum(server.charged.values()) <= account.spent <= OPTIONS.budget
    assert account.lost > 0
    assert not verify_ledger(ledger)

    assert undisturbed.run["teacher"]["dim"] == 12
    card = (out / "README.md").read_text()
    assert f"{count(account.lost, 'failed call')}, counted as spent" in card
    one, other = OnnxEmbedder(undisturbed.folder / "student.onnx"), OnnxEmbedder(out / "student.onnx")
    inputs = [one.prepare(read_photo(file)) for file in find_images([pool])]
    np.testing.assert_array_equal(one.embed(inputs), other.embed(inputs))


@pytest.mark.slow
def test_two_runs_on_one_ledger_keep_the_budget_together(pool, tmp_path, teacher):
    server, ledger = TeacherServer(teacher, share=0.2, seed=2), tmp_path / "l.sqlite"
    server.delay = 0.05
    options = replace(OPTIONS, budget=30)
    with serving(server) as url:
        both = [start(pool, spec_of(url, ledger), tmp_path / name, options) for name in ("one", "two")]
        for process in both:
            process.join(300)
    assert [process.exitcode for process in both] == [0, 0]
    account = read_account(ledger)
    assert sum(server.charged.values()) <= account.spent <= 30
    assert account.answers >= 20
    assert account.in_flight == 0

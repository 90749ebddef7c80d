"""Teachers on the command line: what is said, what is asked, what it costs."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import picture, write_embedder
from teacher_server import TeacherServer, serving
from typer.testing import CliRunner

from app.cli import app
from app.cli.distill import parse_budgets, read_targets
from app.page.search.columns import search_column
from app.page.search.query import Query, SearchRequest
from distill.options import Target
from index.embedders.onnx import OnnxEmbedder
from index.embedders.vectors_file import write_vectors
from index.errors import UsageError
from index.images.sources import find_images
from index.search import open_searcher
from index.teachers.spec import TeacherSpec


@pytest.fixture
def server(teacher_file: Path) -> TeacherServer:
    return TeacherServer(OnnxEmbedder(teacher_file, "cpu"))


def retrieval(*arguments: object):
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_a_dry_run_counts_the_answers_about_query_photos(folder, tmp_path, teacher_file):
    photos = tmp_path / "snapshots"
    photos.mkdir()
    for i in range(20, 26):
        picture(i).save(photos / f"{i}.png")
    (photos / "known.png").write_bytes((folder / "1.png").read_bytes())
    asked = ["distill", folder, "--teacher", teacher_file, "--out", tmp_path / "s", "--dry-run"]
    asked += ["--ledger", tmp_path / "l.sqlite", "--queries", photos]
    assert "images            18\n" in retrieval(*asked, "--budget", 20).output
    assert "queries to make   16\n" in retrieval(*asked, "--budget", 20).output  # 12, and 4 of a fifth
    assert "queries to make   10\n" in retrieval(*asked, "--budget", 10).output  # 2 of them


def test_a_dry_run_asks_nothing(folder, tmp_path, server):
    with serving(server) as url:
        done = retrieval(
            "distill", folder, "--teacher", url, "--out", tmp_path / "s", "--budget", "5,8", "--price", 1500,
            "--teacher-rate", 2, "--ledger", tmp_path / "l.sqlite", "--dry-run",
        )  # fmt: skip
    assert done.exit_code == 0, done.output
    said = dict(re.split("  +", line, maxsplit=1) for line in done.stdout.splitlines())
    assert (said["images"], said["already answered"], said["queries to make"]) == ("12", "0", "8")
    assert said["time to ask"] == "4 s, at 2 images a second"
    assert said["money"] == "12.00, at 1500 a thousand"
    assert not server.calls
    assert not (tmp_path / "s").exists()


def test_budgets_on_the_command_line():
    assert parse_budgets("500") == [500]
    assert parse_budgets("500,100,250,100") == [100, 250, 500]
    with pytest.raises(UsageError, match="--budget must be a number or several, such as 100,250,500"):
        parse_budgets("many")


def test_targets_on_the_command_line():
    assert read_targets(None, None, None) == []
    assert read_targets("2, 0.5,1", None, None) == [Target("ms", value) for value in (0.5, 1, 2)]
    assert read_targets(None, "500000,0.3M", None) == [Target("parameters", value) for value in (0.3, 0.5)]
    with pytest.raises(UsageError, match=r"--target-ms must be a number, or several as 0\.5,1,2, not 'fast'"):
        read_targets("1,fast", None, None)
    with pytest.raises(UsageError, match="--target-ms must be a number"):
        read_targets("1\n2", None, None)
    with pytest.raises(UsageError, match=r"--target-parameters must be a number as 500000 or 0\.5M"):
        read_targets(None, "many", None)
    with pytest.raises(UsageError, match="Give one of"):
        read_targets("1", "0.3M", None)


@pytest.mark.parametrize("command", ["distill", "index"])
def test_a_dry_run_loads_no_torch(command, folder, teacher_file, tmp_path):
    model = ["--model", "none.onnx"] if command == "index" else []
    arguments = [command, folder, "--teacher", teacher_file, *model, "--out", tmp_path / "s", "--dry-run"]
    code = (
        f"import sys; from app.cli import main; sys.argv = ['retrieval', *{list(map(str, arguments))}]\n"
        "try: main()\nfinally: print({'torch', 'timm'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert "queries to make   12" in done.stdout, done.stderr
    assert done.stdout.splitlines()[-1] == "set()"
    assert not (tmp_path / "s").exists()


def test_index_search_and_ledger_of_a_paid_teacher(folder, tmp_path, server):
    student = write_embedder(tmp_path / "student.onnx")
    ledger, idx = tmp_path / "l.sqlite", tmp_path / "idx"
    with serving(server) as url:
        asks = ["index", folder, "--model", student, "--teacher", url, "--out", idx, "--ledger", ledger]
        asks += ["--teacher-dialect", "multipart", "--teacher-batch", 5]
        done = retrieval(*asks)
        assert done.exit_code == 1
        assert "12 images to be asked about" in done.output
        assert not server.calls
        done = retrieval(*asks, "--budget", 12)
        assert done.exit_code == 0, done.output
        assert "Teacher 127.0.0.1: vectors of 12 numbers." in done.output
        done = retrieval(*asks, "--ledger", tmp_path / "new.sqlite", "--budget", 12, "--update")
        assert done.exit_code == 0 and "numbers" not in done.output  # there was nothing to ask
        picture(50).save(tmp_path / "new.png")
        done = retrieval("search", idx, tmp_path / "new.png", "--mode", "teacher")
        assert done.exit_code == 1
        assert f"Give --teacher {url} to ask it again" in done.output
        again = ["--mode", "teacher", "--teacher", url, "--ledger", ledger]
        done = retrieval("search", idx, tmp_path / "new.png", *again)
        assert done.exit_code == 1
        assert "Give a larger --budget" in done.output
        done = retrieval("search", idx, tmp_path / "new.png", folder / "0.png", *again, "--budget", 13)
        assert done.exit_code == 0, done.output
    assert sum(server.charged.values()) == 13
    account = json.loads(retrieval("ledger", "--json", ledger).stdout)
    assert (account["answers"], account["spent"], account["dim"]) == (13, 13, 12)
    assert retrieval("ledger", "verify", ledger).stdout.strip() == "All is well."
    assert "13 answers" in retrieval("ledger", "export", ledger, tmp_path / "v.parquet").stdout
    done = retrieval(
        "index", folder, "--model", student, "--teacher", tmp_path / "v.parquet", "--out", tmp_path / "i"
    )
    assert "12 images, 0 refused" in done.output


def test_a_vectors_file_that_lacks_half(folder, tmp_path):
    """Nothing is trained before that is said; with --allow-missing the rest teaches."""
    names = [file.name for file in find_images([folder])]
    rows = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    write_vectors(tmp_path / "v.npz", 5, [(names[:6], rows)])
    asks = ["distill", folder, "--teacher", tmp_path / "v.npz", "--out", tmp_path / "s"]
    asks += ["--student", "test_efficientnet", "--weights", "none", "--size", 32, "--dim", 4, "--steps", 2]
    asks += ["--ledger", tmp_path / "l.sqlite"]
    for dry in ([], ["--dry-run"]):
        done = retrieval(*asks, *dry)
        assert done.exit_code == 2
        assert f"6 of 12 images without a usable vector in v.npz: {names[6]}, " in done.output
        assert "Give --allow-missing" in done.output
    assert not (tmp_path / "s").exists()
    assert "images            6\n" in retrieval(*asks, "--dry-run", "--allow-missing").output
    done = retrieval(*asks, "--allow-missing", "--price", 2000)
    assert done.exit_code == 0, done.output
    assert "Left out: 6 of 12 images" in done.output
    card = (tmp_path / "s" / "README.md").read_text()
    assert "12.00 in all, at 2000 a thousand" in card
    assert "break-even | cheaper after 6 images, in money" in card
    run = json.loads((tmp_path / "s" / "run.json").read_text())
    assert run["queried"] == 6
    assert run["skipped"] == len(names) - 6
    assert {Path(one["path"]).name for one in run["unreadable"]} == {Path(name).name for name in names[6:]}


def test_the_page_goes_on_without_a_teacher_that_does_not_answer(folder, tmp_path, server):
    student = write_embedder(tmp_path / "student.onnx")
    picture(50).save(tmp_path / "new.png")
    new = Query.of_bytes((tmp_path / "new.png").read_bytes(), "new.png")
    with serving(server) as url:
        retrieval("index", folder, "--model", student, "--teacher", url, "--out", tmp_path / "idx",
                  "--ledger", tmp_path / "l.sqlite", "--budget", 12)  # fmt: skip
    again = TeacherSpec(url, ledger=tmp_path / "l.sqlite")
    request = SearchRequest(("student", "teacher"), 3)
    old = Query.of_bytes(find_images([folder])[0].path.read_bytes(), "old.png")
    assert search_column(open_searcher(tmp_path / "idx", again), old, "teacher", request).missing == ""
    for budget, reason in ((0, "not asked 1 of 1 questions"), (99, "cannot be reached")):
        searcher = open_searcher(tmp_path / "idx", replace(again, budget=budget))
        student, teacher = (search_column(searcher, new, mode, request) for mode in request.modes)
        assert len(student.ids) == 3
        assert teacher.found is None
        assert reason in teacher.missing


def test_the_key_is_no_option(folder, tmp_path):
    assert retrieval("distill", folder, "--teacher-key", "secret").exit_code == 2
    assert "key" not in " ".join(
        word for word in retrieval("distill", "--help").output.split() if word[0] == "-"
    )


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--teacher-mean", "a,b,c"], "--teacher-mean takes three numbers"),
        (["--teacher-dialect", "french"], "--teacher-dialect must be one of infinity, jina, multipart"),
        (["--price", "-1"], "--price must be 0 or more"),
    ],
)
def test_wrong_options_are_one_line(folder, tmp_path, teacher_file, options, complaint):
    done = retrieval("distill", folder, "--teacher", teacher_file, "--out", tmp_path / "s", *options)
    assert done.exit_code == 2
    assert complaint in done.output

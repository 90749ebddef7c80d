"""torchrun: several processes learn what one would."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import picture

from distill.model.backbone import create_backbone
from distill.training.device import count_processes
from index.embedders.onnx import OnnxEmbedder
from index.teachers.ledger import Ledger


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (1, 1)),
        ({"LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "2"}, (2, 1)),
        ({"LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "12"}, (4, 3)),
    ],
)
def test_processes_and_machines_are_counted(environment, expected):
    assert count_processes(environment) == expected


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    folder = tmp_path / "pool"
    folder.mkdir()
    for i in range(40):
        picture(i).save(folder / f"{i}.png")
    torch.manual_seed(0)
    torch.save(create_backbone("test_efficientnet", "none").trunk.state_dict(), tmp_path / "w.pth")
    return folder


def distill(
    launcher: list[str], pool: Path, teacher: Path, out: Path, budget: str = "24"
) -> subprocess.CompletedProcess[str]:
    command = [
        *launcher, "-m", "retrieval", "distill", str(pool), "--teacher", str(teacher), "--budget", budget,
        "--out", str(out), "--ledger", str(out.with_suffix(".sqlite")), "--student", "test_efficientnet",
        "--weights", str(pool.parent / "w.pth"), "--size", "32", "--dim", "6", "--steps", "12",
        "--device", "cpu",
    ]  # fmt: skip
    root = Path(__file__).parents[3]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.slow
def test_several_processes_make_the_student_of_one(pool, teacher_file, tmp_path):
    """Three shares of a batch of 32, unlike two, are not of one size: the padding must not count."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "3", "--standalone"]
    runs = {"one": [sys.executable], "several": torchrun}
    for name, launcher in runs.items():
        done = distill(launcher, pool, teacher_file, tmp_path / name)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("student.onnx") == 1, "one process speaks"
    one, several = (json.loads((tmp_path / name / "run.json").read_text()) for name in runs)
    assert several["training"]["loss"] == pytest.approx(one["training"]["loss"], abs=1e-4)
    assert several["training"]["agreement"] == one["training"]["agreement"]
    with Ledger(tmp_path / "several.sqlite", several["teacher"]["key"]) as ledger:
        assert ledger.spent == 24, "one process asks"
    images = list(np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8))
    first, second = (
        OnnxEmbedder(tmp_path / name / "student.onnx", "cpu").embed(images) for name in ("one", "several")
    )
    assert (first * second).sum(axis=1) == pytest.approx(1, abs=1e-4)


@pytest.mark.slow
def test_a_sweep_side_by_side_makes_the_students_of_one_after_the_other(pool, teacher_file, tmp_path):
    """Three budgets for two processes: one has two of them."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    for name, launcher in {"turns": [sys.executable], "beside": torchrun}.items():
        done = distill(launcher, pool, teacher_file, tmp_path / name, budget="16,20,24")
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("student.onnx") == 1, "one process speaks"
    for folder in ("budget-16", "budget-20", "."):
        turns, beside = (
            json.loads((tmp_path / name / folder / "run.json").read_text()) for name in ("turns", "beside")
        )
        assert beside["ledger_digest"] == turns["ledger_digest"], "the same answers"
        assert beside["asked_now"] == turns["asked_now"]
        assert beside["training"]["loss"] == turns["training"]["loss"]
        images = list(np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8))
        one, other = (
            OnnxEmbedder(tmp_path / name / folder / "student.onnx", "cpu").embed(images)
            for name in ("turns", "beside")
        )
        assert np.array_equal(one, other)
    measured = [[{**point, "ms": 0} for point in run["curve"]] for run in (beside, turns)]  # times differ
    assert measured[0] == measured[1]
    assert (tmp_path / "beside" / "report.html").is_file()
    with Ledger(tmp_path / "beside.sqlite", beside["teacher"]["key"]) as ledger:
        assert ledger.spent == 24, "one process asks"

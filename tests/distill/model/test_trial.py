"""What a student is tried out for before anything is asked."""

from dataclasses import replace

import numpy as np
import pytest

from distill.model import trial
from distill.options import Options
from distill.pipeline import distill_by_name
from index.embedders.registry import open_embedder
from index.errors import UsageError
from index.teachers.spec import TeacherSpec


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.slow
def test_a_network_of_a_fixed_side_is_refused_before_anything_is_asked(folder, tmp_path):
    asked = []

    def teacher(images):
        asked.extend(images)
        return np.ones((len(images), 4))

    teacher.key = "ones"
    spec = TeacherSpec(ledger=tmp_path / "l.sqlite", budget=8, opened=open_embedder(teacher))
    name = "vit_tiny_patch16_224"
    options = Options(budget=8, student=name, weights="none", size=64, dim=6, device="cpu", steps=1)
    line = rf"^{name} cannot be a student of 64 pixels: .*\b64\b.* --size\.$"
    with pytest.raises(UsageError, match=line):
        distill_by_name([folder], spec, tmp_path / "s", options, [8])
    assert asked == []


@pytest.mark.parametrize(
    ("code", "reason"),
    [("import os; os.kill(os.getpid(), 11)", "torch ended its process with signal 11"), ("1 / 0", "Zero")],
)
def test_a_network_that_ends_its_process_is_one_line(monkeypatch, code, reason):
    monkeypatch.setattr(trial, "CODE", code)
    with pytest.raises(UsageError, match=reason):
        trial.try_out("resnet18", 64, 6, None, "cpu")


def test_what_was_tried_once_is_remembered_for_that_alone(monkeypatch, capsys):
    monkeypatch.setattr(trial, "CODE", "pass")
    trial.try_out("resnet18", 64, 6, None, "cpu")
    assert "Trying out resnet18" in capsys.readouterr().err
    monkeypatch.setattr(trial, "CODE", "1 / 0")
    trial.try_out("resnet18", 64, 6, None, "cpu")
    trial.try_out("tf_efficientnet_lite0", 64, 6, None, "cpu")
    assert capsys.readouterr().err == ""
    for other in (("resnet18", 96, 6, None), ("resnet18", 64, 6, 2), ("resnet34", 64, 6, None)):
        with pytest.raises(UsageError):
            trial.try_out(*other, "cpu")


def test_it_trains_and_exports(monkeypatch):
    monkeypatch.setattr(trial, "Recipe", lambda: replace(Options().recipe, batch=4))
    trial.run("test_resnet", 64, 6, None, "cpu")

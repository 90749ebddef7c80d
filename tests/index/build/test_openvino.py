"""A student that OpenVINO runs."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import write_embedder

from index.build import openvino
from index.build.openvino import OpenVinoSession, choose_runtime
from index.embedders.onnx import OnnxEmbedder
from index.errors import UsageError


@pytest.fixture
def student(tmp_path) -> OnnxEmbedder:
    return OnnxEmbedder(write_embedder(tmp_path / "student.onnx"), "cpu", 1)


def test_it_answers_as_onnx_runtime_does_in_many_threads(student):
    session = OpenVinoSession(student.data)
    batches = np.random.default_rng(0).integers(0, 256, (12, 3, 32, 32, 3), dtype=np.uint8)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda batch: session.run(["embeddings"], {"images": batch})[0], batches))
    for batch, rows in zip(batches, found, strict=True):
        assert (rows * student.embed(list(batch))).sum(axis=1) == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize(("seconds", "chosen"), [((2, 1), True), ((1, 1), False), ((1, 2), False)])
def test_it_runs_a_student_where_it_is_faster(student, monkeypatch, seconds, chosen):
    monkeypatch.setattr(openvino, "time_in_turns", lambda works, rounds: np.array(seconds))
    said = choose_runtime(student)
    assert said.startswith("Embedded by OpenVINO, 2.0 times as fast") == chosen
    assert isinstance(student.session, OpenVinoSession) == chosen


def test_it_runs_no_student_whose_vectors_it_changes(student, monkeypatch):
    class Wrong(OpenVinoSession):
        def run(self, outputs, feed):
            return [-rows for rows in super().run(outputs, feed)]

    monkeypatch.setattr(openvino, "OpenVinoSession", Wrong)
    monkeypatch.setattr(openvino, "time_in_turns", lambda works, rounds: np.array((2.0, 1.0)))
    assert "changes what this student answers" in choose_runtime(student)
    assert not isinstance(student.session, Wrong)


def test_it_must_be_installed(student, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UsageError, match="openvino"):
        choose_runtime(student)

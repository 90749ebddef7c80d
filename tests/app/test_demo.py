import os
import shutil
from pathlib import Path

import pytest

from app import demo
from app.demo import Row, format_table, make_demo
from index.build.pipeline import build_index
from index.embedders.onnx import OnnxEmbedder
from index.images.sources import find_images
from index.search import Searcher


@pytest.mark.slow
def test_the_whole_story(tmp_path: Path, capsys):
    teacher, student = make_demo(None, tmp_path)
    assert (teacher.name, teacher.dim, teacher.agreement) == ("teacher", 3840, 1)
    assert (student.name, student.dim) == ("student", 256)
    assert student.parameters < teacher.parameters / 2
    assert student.milliseconds < teacher.milliseconds / 2
    assert teacher.mean_average_precision > 0.6
    assert student.mean_average_precision > 0.6
    assert student.agreement > 0.4
    assert "overlap@10" in capsys.readouterr().out
    assert (tmp_path / "index" / "manifest.json").is_file()


def test_other_photos_have_a_budget_of_their_own(folder: Path, tmp_path: Path, teacher_file, monkeypatch):
    asked: list[str] = []

    def stop(files, teacher, ledger, out, options):
        asked.append(str(ledger.path))
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "distill", stop)
    for photos in (folder, tmp_path / os.fsdecode(b"caf\xe9"), folder):  # as Latin-1 writes it
        if photos != folder:
            shutil.copytree(folder, photos)
        with pytest.raises(KeyboardInterrupt):
            make_demo(photos, tmp_path / "out", teacher_file.parent)
    assert asked[0] == asked[2] != asked[1]


def test_speed_is_measured_on_photos_that_can_be_read(
    folder: Path, tmp_path: Path, student_file, teacher_file, monkeypatch
):
    models = OnnxEmbedder(student_file), OnnxEmbedder(teacher_file)
    searcher = Searcher(build_index([folder], models[0], tmp_path / "idx", models[1]), *models)
    (folder / "0.png").write_bytes(b"")
    timed: list[str] = []

    def stop(models, photos):
        timed.extend(photo.name for photo in photos)
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "milliseconds_per_image", stop)
    with pytest.raises(KeyboardInterrupt):
        demo._measure(searcher, find_images([folder]), None)
    assert len(timed) == demo.TIMED
    assert "0.png" not in timed


def test_the_table_shows_a_dash_where_nothing_is_labelled():
    table = format_table([Row("student", 256, 3_700_000, 14.8, 12.34, None, 0.5)])
    assert table.splitlines()[1].split() == ["student", "256", "3.70M", "14.8", "12.3", "-", "50.0"]

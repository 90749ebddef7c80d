from pathlib import Path

import pytest

from app.demo import Row, format_table, make_demo


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


def test_the_table_shows_a_dash_where_nothing_is_labelled():
    table = format_table([Row("student", 256, 3_700_000, 14.8, 12.34, None, 0.5)])
    assert table.splitlines()[1].split() == ["student", "256", "3.70M", "14.8", "12.3", "-", "50.0"]

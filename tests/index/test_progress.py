import pytest

from index.progress import printable, progress, say


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a photo, été 日本 🙂.jpg", "a photo, été 日本 🙂.jpg"),
        ("red\x1b[31m.jpg", r"red\x1b[31m.jpg"),
        ("two\nlines\r.jpg", r"two\nlines\r.jpg"),
        ("right\u202eto left", r"right\u202eto left"),
        ("half \udcff", r"half \udcff"),
    ],
)
def test_nothing_in_a_name_steers_the_terminal(text, shown, capsys):
    assert printable(text) == shown
    say(text)
    assert capsys.readouterr().err.strip() == shown


def test_bars_and_lines_leave_standard_output_to_the_results(capsys):
    with progress(3, "index") as bar:
        bar.update(3)
        say("a line")
    assert capsys.readouterr().out == ""

import pytest

from index.progress import Stage, bars, printable, progress, say, tell, watched


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


@pytest.mark.parametrize("shown", [True, False])
def test_who_watches_is_told_of_every_bar(shown):
    told = []
    with bars(shown), watched(lambda **facts: told.append(facts)):
        with progress(3, "index") as bar:
            bar.update()
            bar.update(2)
        tell(step="done")
    tell(step="unheard")
    assert told == [{"stage": Stage("index", 1, 3)}, {"stage": Stage("index", 3, 3)}, {"step": "done"}]


def test_what_a_watcher_raises_ends_the_work():
    def end(**facts):
        raise KeyError

    with pytest.raises(KeyError), watched(end), progress(3, "index") as bar:
        bar.update()

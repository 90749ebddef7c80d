"""What `retrieval --help` and its like show."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import app
from app.cli.groups import ORDER
from app.cli.options import read_options, shorten
from index.embedders.options import HELP, EmbedderOptions
from index.errors import UsageError

COMMANDS = [*ORDER, *(f"index {name}" for name in ("info", "verify", "compact"))]
COMMANDS += [f"ledger {name}" for name in ("show", "export", "verify")]


def retrieval(*arguments: object):
    return CliRunner().invoke(app, list(map(str, arguments)), prog_name="retrieval", terminal_width=80)


def test_commands_are_listed_in_the_order_of_use():
    lines = retrieval("--help").output.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in lines] == ORDER
    assert "..." not in "".join(lines)


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "ledger"])
def test_each_command_shows_an_example(command):
    assert f"Example: retrieval {command}" in " ".join(retrieval(*command.split(), "--help").output.split())


def test_the_help_of_search_fits_one_screen():
    assert len(retrieval("search", "--help").output.splitlines()) <= 40


def test_the_version_is_printed():
    done = retrieval("--version")
    assert (done.exit_code, done.output.count(".")) == (0, 2)


def test_nothing_asked_for_is_the_help_alone():
    done = retrieval()
    assert done.exit_code == 2
    assert "retrieval: ." not in done.output


def test_a_typing_error_is_one_sentence():
    assert "Did you mean 'search'? See retrieval --help." in retrieval("serach").output


def test_help_loads_nothing_heavy():
    code = "import sys; from app.cli import app; print(*{'numpy', 'PIL', 'rich', 'tqdm'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_every_option_of_a_teacher_can_be_given_in_a_short_and_in_a_long_form():
    long = [
        "--teacher-batch",
        "5",
        "--teacher-mean=0.1,0.2,0.3",
        "--allow-missing",
        "-k",
        "3",
        "--",
        "--teacher-x",
    ]
    options = [f"--teacher-option {text}" for text in ("batch=5", "mean=0.1,0.2,0.3", "allow_missing=true")]
    assert shorten(long) == [*" ".join(options).split(), "-k", "3", "--", "--teacher-x"]
    given = read_options(["batch=5", "mean=0.1,0.2,0.3", "allow_missing=true", "rate=0.5"])
    assert given == EmbedderOptions(batch=5, mean=(0.1, 0.2, 0.3), allow_missing=True, rate=0.5)


def test_the_table_of_options_is_what_help_prints():
    printed = retrieval("search", "--teacher-option", "help")
    assert printed.exit_code == 0
    table = (Path(__file__).parents[3] / "docs" / "teachers.md").read_text()
    assert HELP.keys() == EmbedderOptions.__dataclass_fields__.keys()
    for name, text in HELP.items():
        kind, meaning = text.split(": ", 1)
        assert f"| `{name}` | {kind} | {meaning} |" in table
        assert f"{name:14} {text}" in printed.output


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("batch", "takes KEY=VALUE"),
        ("colour=red", "has no key 'colour'. Keys: model, dialect, batch, "),
        ("batch=many", "--teacher-batch takes a whole number, not 'many'"),
        ("allow_missing=perhaps", "true or false"),
        ("mean=1,x,3", "three numbers"),
    ],
)
def test_a_wrong_option_of_a_teacher_says_what_is_right(option, complaint):
    with pytest.raises(UsageError, match=complaint):
        read_options([option])


@pytest.mark.parametrize(("option", "value"), [("--port", 80211), ("--price", -3)])
def test_the_server_refuses_what_it_cannot_use(option, value, tmp_path, folder, student_file):
    retrieval("index", folder, "--model", student_file, "--out", tmp_path / "idx")
    done = retrieval("serve", tmp_path / "idx", option, value)
    assert done.exit_code == 2
    assert f"{option} must be" in done.output

"""Ground truth comes from a file that anyone may have made: every fault is one line."""

import json
from pathlib import Path

import numpy as np
import pytest

from index.errors import UsageError
from index.evaluation.revisited import EASY, HARD, JUNK, NEGATIVE, read_ground_truth

TRUTH = {
    "imlist": [f"db{i}" for i in range(6)],
    "qimlist": ["q0", "q1"],
    "gnd": [
        {"bbx": [0, 0, 47.8, 40.0], "easy": [0], "hard": [1], "junk": [2]},
        {"bbx": [4, 4, 44, 36], "easy": [], "hard": [3], "junk": []},
    ],
}


def write(path: Path, truth: object) -> Path:
    path.write_text(json.dumps(truth))
    return path


def test_ids_become_grades(tmp_path):
    truth = read_ground_truth(write(tmp_path / "gnd.json", TRUTH))
    assert (truth.database, truth.queries) == (TRUTH["imlist"], TRUTH["qimlist"])
    assert truth.boxes == [(0, 0, 47.8, 40), (4, 4, 44, 36)]
    np.testing.assert_array_equal(
        truth.grades, [[EASY, HARD, JUNK, *[NEGATIVE] * 3], [*[NEGATIVE] * 3, HARD, *[NEGATIVE] * 2]]
    )


def changed(**change: object) -> dict:
    return {**TRUTH, **change}


def entry(**change: object) -> dict:
    return changed(gnd=[{**TRUTH["gnd"][0], **change}, TRUTH["gnd"][1]])


@pytest.mark.parametrize(
    ("truth", "complaint"),
    [
        ([], "needs the keys imlist, qimlist and gnd"),
        (changed(imlist=[]), "imlist must be a list of names"),
        (changed(qimlist=["q0", 1]), "qimlist must be a list of names"),
        (changed(imlist=["a"] * 6), "imlist has a name twice"),
        (changed(gnd=[]), "one entry for each name in qimlist"),
        (changed(gnd=[{}, {}]), "query q0: it needs the keys bbx, easy, hard and junk"),
        (entry(bbx=[1, 2, 3]), "query q0: bbx must be four numbers"),
        (entry(bbx=[0, 0, float("nan"), 1]), "bbx must be four numbers"),
        (entry(bbx=[0, 0, 10**400, 1]), "bbx must be four numbers"),
        (entry(bbx=[0, 0, True, 1]), "bbx must be four numbers"),
        (entry(bbx=[5, 0, 4, 9]), "bbx must be left, top, right, bottom"),
        (entry(easy=[6]), "easy must be ids from 0 to 5"),
        (entry(easy=[-1]), "easy must be ids from 0 to 5"),
        (entry(hard=[True]), "hard must be ids"),
        (entry(junk=[0]), "id 0 is listed twice"),
    ],
)
def test_what_is_not_ground_truth_is_refused(tmp_path, truth, complaint):
    with pytest.raises(UsageError, match=complaint):
        read_ground_truth(write(tmp_path / "gnd.json", truth))


@pytest.mark.parametrize("text", ["no JSON", "[" * 100_000, "\xff\xfe"])
def test_what_is_not_json_is_refused(tmp_path, text):
    (tmp_path / "gnd.json").write_text(text, encoding="latin-1")
    with pytest.raises(UsageError, match="is not revisited ground truth"):
        read_ground_truth(tmp_path / "gnd.json")
    with pytest.raises(UsageError, match="cannot be read"):
        read_ground_truth(tmp_path / "none.json")


@pytest.mark.parametrize("name", ["gnd.pkl", "gnd.json"])
def test_a_pickle_is_never_loaded_and_the_way_out_is_told(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x80\x04.")
    with pytest.raises(UsageError, match="is a pickle, which can run programs and is never loaded") as error:
        read_ground_truth(tmp_path / name)
    assert "\n" not in str(error.value)

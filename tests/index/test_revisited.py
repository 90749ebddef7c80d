"""The revisited protocol against hand-made rankings and against a plain copy of the published procedure."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import picture
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import average_precision_score

from index.embedder import OnnxEmbedder
from index.errors import ImageError, UsageError
from index.images import decode, read_photo, with_pixels
from index.metrics import revisited_average_precision, revisited_precision_at_k
from index.multiscale import MultiScale, at_scales
from index.pipeline import build_index
from index.rankings import Options
from index.revisited import (
    EASY,
    HARD,
    JUNK,
    NEGATIVE,
    crop_query,
    evaluate_revisited,
    read_ground_truth,
    score_grades,
)
from index.search import Searcher


def line(text: str) -> tuple[np.ndarray, np.ndarray]:
    """A ranking as text: + relevant, j junk, anything else negative."""
    return np.array([[c == "+" for c in text]]), np.array([[c == "j" for c in text]])


@pytest.mark.parametrize(
    ("ranking", "precision"),
    [
        ("+", 1.0),
        ("++--", 1.0),
        ("-+", (0 / 1 + 1 / 2) / 2),
        ("+-+", ((1 + 1) / 2 + (1 / 2 + 2 / 3) / 2) / 2),
        ("--+", (0 / 2 + 1 / 3) / 2),
        ("jj+-", 1.0),
        ("+j-j+", ((1 + 1) / 2 + (1 / 2 + 2 / 3) / 2) / 2),
    ],
)
def test_the_area_is_made_of_trapezoids_without_junk(ranking, precision):
    assert revisited_average_precision(*line(ranking))[0] == pytest.approx(precision)


def test_it_is_not_scikit_learns():
    relevant, junk = line("-+-+")
    theirs = average_precision_score(relevant[0], -np.arange(4))
    assert theirs == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert revisited_average_precision(relevant, junk)[0] < theirs


@pytest.mark.parametrize(
    ("ranking", "k", "precision"),
    [
        ("+---", 10, 1.0),  # the only relevant item is found: nothing more is asked for
        ("-+--", 10, 0.5),
        ("-+--", 1, 0.0),
        ("++-+-", 5, 0.75),
        ("++-+-", 2, 1.0),
        ("jj+j-+", 5, 2 / 3),
    ],
)
def test_precision_at_k_looks_no_further_than_the_last_relevant(ranking, k, precision):
    assert revisited_precision_at_k(*line(ranking), k)[0] == pytest.approx(precision)


def test_a_query_with_nothing_relevant_counts_for_nothing():
    assert np.isnan(revisited_average_precision(*line("--j"))[0])
    assert np.isnan(revisited_precision_at_k(*line("--j"), 5)[0])


def published_map(ranks: np.ndarray, truth: dict[str, list[int]], k: int) -> tuple[float, float]:
    """The steps of revisitop's `compute_map` for one query, one after the other."""
    positions = sorted(int(np.flatnonzero(ranks == i)[0]) for i in truth["ok"])
    junk = sorted(int(np.flatnonzero(ranks == i)[0]) for i in truth["junk"])
    moved = [position - sum(other < position for other in junk) for position in positions]
    ap = 0.0
    for j, rank in enumerate(moved):
        before = 1.0 if rank == 0 else j / rank
        ap += (before + (j + 1) / (rank + 1)) / (2 * len(moved))
    places = [position + 1 for position in moved]
    kq = min(max(places), k)
    return ap, sum(place <= kq for place in places) / kq


@given(st.lists(st.sampled_from([NEGATIVE, EASY, HARD, JUNK]), min_size=1, max_size=30), st.randoms())
def test_the_three_protocols_are_the_published_ones(grades, random):
    grades = np.array(grades, np.uint8)
    ranking = np.array(random.sample(range(len(grades)), len(grades)))
    found = score_grades(grades[ranking][None])
    easy, hard, junk = ([int(i) for i in np.flatnonzero(grades == grade)] for grade in (EASY, HARD, JUNK))
    for name, truth in {
        "E": {"ok": easy, "junk": junk + hard},
        "M": {"ok": easy + hard, "junk": junk},
        "H": {"ok": hard, "junk": junk + easy},
    }.items():
        if not truth["ok"]:
            assert np.isnan(found[f"mAP {name}"][0])
            continue
        for k in (1, 5, 10):
            ap, precision = published_map(ranking, truth, k)
            assert found[f"mAP {name}"][0] == pytest.approx(ap)
            assert found[f"mP@{k} {name}"][0] == pytest.approx(precision)


@given(st.lists(st.sampled_from("+-"), min_size=1, max_size=20), st.lists(st.integers(0, 20), max_size=8))
def test_junk_changes_nothing_wherever_it_stands(ranking, places):
    clean = "".join(ranking)
    for place in places:
        ranking.insert(place, "j")
    for score in (revisited_average_precision, lambda *x: revisited_precision_at_k(*x, 5)):
        np.testing.assert_allclose(score(*line("".join(ranking))), score(*line(clean)), equal_nan=True)


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


@pytest.fixture
def scene(tmp_path: Path, student_file: Path, teacher_file: Path) -> tuple[Searcher, Path]:
    for folder, prefix, count in (("db", "db", 6), ("queries", "q", 2)):
        (tmp_path / folder).mkdir()
        for i in range(count):
            picture(3 * i if prefix == "q" else i).save(tmp_path / folder / f"{prefix}{i}.png")
    picture(9).save(tmp_path / "db" / "another.png")
    student, teacher = OnnxEmbedder(student_file), OnnxEmbedder(teacher_file)
    index = build_index([tmp_path / "db"], student, tmp_path / "idx", teacher)
    return Searcher(index, student, teacher), tmp_path


def test_from_files_to_scores(scene):
    searcher, folder = scene
    truth = read_ground_truth(write(folder / "gnd.json", TRUTH))
    scores = evaluate_revisited(searcher, truth, folder / "queries", Options())
    assert list(scores) == ["student", "teacher"]
    row = scores["student"]
    assert (row["queries"], row["database"]) == (2, 6)
    assert (row["queries E"], row["queries M"], row["queries H"]) == (1, 2, 2)
    # Query 0 is picture 0, whose copy is in the database as easy.
    assert row["mAP E"] == row["mP@1 E"] == 1
    assert all(0 <= row[f"{name} {p}"] <= 1 for name in ("mAP", "mP@1", "mP@10") for p in "EMH")
    assert scores["teacher"]["overlap@10"] == pytest.approx(1)
    again = evaluate_revisited(searcher, truth, folder / "queries", Options(scales=(1, 0.7071, 0.5)))
    assert again["student"]["mAP E"] == 1


def test_the_query_is_cropped_before_anything_else(tmp_path):
    wide = Image.new("RGB", (3000, 1500), "blue")
    wide.paste("red", (1000, 0, 2000, 1500))
    wide.save(tmp_path / "a.png")
    photo = decode((tmp_path / "a.png").read_bytes(), "a.png")
    crop = crop_query(photo, (1000, 0, 2000, 1500))
    assert crop.image.size == (round(1000 * 1024 / 3000), 512)  # as much smaller as the whole would be
    assert np.asarray(crop.image).reshape(-1, 3)[:, 2].max() < 5
    small = with_pixels(photo, wide.resize((300, 150)))
    assert crop_query(small, (0, 0, 100, 150)).image.size == (100, 150)  # never enlarged
    with pytest.raises(ImageError, match="does not fit an image of 300 x 150"):
        crop_query(small, (0, 0, 1000, 150))


def test_several_scales_are_the_mean_of_their_vectors(student_file, folder):
    model = OnnxEmbedder(student_file)
    assert at_scales(model, [1.0]) is model
    from index.images import find_images

    photo = read_photo(find_images([folder])[0])
    several = MultiScale(model, [1.0, 0.5])
    half = with_pixels(
        photo, photo.image.resize((photo.width // 2, photo.height // 2), Image.Resampling.BILINEAR)
    )
    expected = model.embed([model.prepare(photo)])[0] + model.embed([model.prepare(half)])[0]
    expected /= np.linalg.norm(expected)
    np.testing.assert_allclose(several.embed([several.prepare(photo)])[0], expected, atol=1e-6)


def changed(**change: object) -> dict:
    return {**TRUTH, **change}


def entry(**change: object) -> dict:
    return changed(gnd=[{**TRUTH["gnd"][0], **change}, TRUTH["gnd"][1]])


@pytest.mark.parametrize(
    ("truth", "complaint"),
    [
        ([], "needs the keys imlist, qimlist and gnd"),
        (changed(imlist=[]), "imlist must be a list of names"),
        (changed(imlist=["a"] * 6), "imlist has a name twice"),
        (changed(gnd=[]), "one entry for each name in qimlist"),
        (entry(bbx=[1, 2, 3]), "query q0: bbx must be four numbers"),
        (entry(bbx=[5, 0, 4, 9]), "bbx must be left, top, right, bottom"),
        (entry(easy=[6]), "easy must be ids from 0 to 5"),
        (entry(hard=[True]), "hard must be ids"),
        (entry(junk=[0]), "id 0 is listed twice"),
    ],
)
def test_what_is_not_ground_truth_is_refused(tmp_path, truth, complaint):
    with pytest.raises(UsageError, match=complaint):
        read_ground_truth(write(tmp_path / "gnd.json", truth))


def test_a_pickle_is_never_loaded(tmp_path):
    (tmp_path / "gnd.pkl").write_bytes(b"\x80\x04.")
    with pytest.raises(UsageError, match="is a pickle, which can run programs and is never loaded"):
        read_ground_truth(tmp_path / "gnd.pkl")
    with pytest.raises(UsageError, match="cannot be read"):
        read_ground_truth(tmp_path / "none.json")


def test_missing_images_are_counted_and_the_first_is_named(scene):
    searcher, folder = scene
    truth = read_ground_truth(write(folder / "gnd.json", changed(imlist=[*TRUTH["imlist"][:4], "x1", "x2"])))
    with pytest.raises(UsageError, match=r"2 of 6 database images are not in .*The first: x1"):
        evaluate_revisited(searcher, truth, folder / "queries", Options())
    (folder / "queries" / "q1.png").unlink()
    truth = read_ground_truth(write(folder / "gnd.json", TRUTH))
    with pytest.raises(UsageError, match=r"1 of 2 queries are not in .*The first: q1"):
        evaluate_revisited(searcher, truth, folder / "queries", Options())

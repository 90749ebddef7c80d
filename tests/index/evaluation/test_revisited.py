"""The revisited protocol against hand-made rankings and against a plain copy of the published procedure."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import picture
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import average_precision_score

from index.build.pipeline import build_index
from index.embedders.onnx import OnnxEmbedder
from index.errors import ImageError, RetrievalError, UsageError
from index.evaluation.metrics import revisited_average_precision, revisited_precision_at_k
from index.evaluation.rankings import Options
from index.evaluation.revisited import (
    EASY,
    HARD,
    JUNK,
    NEGATIVE,
    GroundTruth,
    crop_query,
    evaluate_revisited,
    score_grades,
)
from index.images.decode import Photo, read_photo, with_pixels
from index.images.file import ImageFile
from index.search import Searcher


def photo_of(image: Image.Image) -> Photo:
    return Photo("a photo", b"", "", image, *image.size)


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


@given(st.integers(1, 12), st.integers(0, 12))
def test_a_perfect_ranking_scores_one(relevant, others):
    for score in (revisited_average_precision, lambda *x: revisited_precision_at_k(*x, 5)):
        assert score(*line("+" * relevant + "-" * others))[0] == 1


@given(st.lists(st.sampled_from("+-"), min_size=1, max_size=20), st.lists(st.integers(0, 20), max_size=8))
def test_junk_changes_nothing_wherever_it_stands(ranking, places):
    clean = "".join(ranking)
    for place in places:
        ranking.insert(place, "j")
    for score in (revisited_average_precision, lambda *x: revisited_precision_at_k(*x, 5)):
        np.testing.assert_allclose(score(*line("".join(ranking))), score(*line(clean)), equal_nan=True)


TRUTH = GroundTruth(
    database=[f"db{i}" for i in range(6)],
    queries=["q0", "q1"],
    boxes=[(0, 0, 47.8, 40), (4, 4, 44, 36)],
    grades=np.array(
        [
            [EASY, HARD, JUNK, NEGATIVE, NEGATIVE, NEGATIVE],
            [NEGATIVE, NEGATIVE, JUNK, HARD, NEGATIVE, NEGATIVE],
        ],
        np.uint8,
    ),
)


@pytest.fixture
def scene(tmp_path: Path, student_file: Path, teacher_file: Path) -> tuple[Searcher, Path]:
    """Two queries, in a folder below, against six of seven images. Query i is picture 3 i."""
    for folder, prefix, count in (("db", "db", 6), ("queries/deep", "q", 2)):
        (tmp_path / folder).mkdir(parents=True)
        for i in range(count):
            picture(3 * i if prefix == "q" else i).save(tmp_path / folder / f"{prefix}{i}.png")
    picture(9).save(tmp_path / "db" / "another.png")
    student, teacher = OnnxEmbedder(student_file), OnnxEmbedder(teacher_file)
    index = build_index([tmp_path / "db"], student, tmp_path / "idx", teacher)
    return Searcher(index, student, teacher), tmp_path


def test_figures_are_those_of_an_independent_computation(scene):
    searcher, root = scene
    scores = evaluate_revisited(searcher, TRUTH, root / "queries", Options())
    assert list(scores) == ["student", "teacher", "rerank"]
    names = [Path(item.name).stem for item in searcher.index.items]
    database = [names.index(name) for name in TRUTH.database]
    for mode in ("student", "teacher"):
        row = scores[mode]
        model, gallery = searcher.models[mode], searcher.index.vectors(mode)[database]
        found = []
        for i, (box, grades) in enumerate(zip(TRUTH.boxes, TRUTH.grades, strict=True)):
            whole = read_photo(ImageFile(root / "queries" / "deep" / f"q{i}.png", ""))
            crop = with_pixels(whole, whole.image.crop(box))
            ranks = np.argsort(-(gallery @ model.embed([model.prepare(crop)])[0]), kind="stable")
            ids = {"ok": np.isin(grades, (EASY, HARD)), "junk": grades == JUNK}
            found.append(published_map(ranks, {key: np.flatnonzero(which) for key, which in ids.items()}, 5))
        assert (row["mAP M"], row["mP@5 M"]) == pytest.approx(tuple(np.mean(found, axis=0)))
        assert (row["queries"], row["database"]) == (2, 6)
        assert (row["queries E"], row["queries M"], row["queries H"]) == (1, 2, 2)
    assert scores["student"]["mAP E"] == 1  # query 0 is picture 0 whole, and so is the first image
    assert scores["teacher"]["overlap@10"] == scores["teacher"]["RBO"] == pytest.approx(1)


def test_whitening_changes_the_ranking_not_the_protocol(scene):
    searcher, root = scene
    plain = evaluate_revisited(searcher, TRUTH, root / "queries", Options())["student"]
    row = evaluate_revisited(searcher, TRUTH, root / "queries", Options(whiten=0.5))["student"]
    assert row.keys() == plain.keys()
    assert row["mAP E"] == 1


def test_a_query_is_cropped_then_shrunk_as_much_as_the_whole_would_be():
    whole = photo_of(Image.effect_noise((3000, 1500), 90).convert("RGB"))
    crop = crop_query(whole, (999.6, 0, 2000.4, 1500)).image
    expected = whole.image.crop((1000, 0, 2000, 1500)).resize((341, 512), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(np.asarray(crop), np.asarray(expected))
    small = photo_of(whole.image.resize((300, 150)))
    assert crop_query(small, (0, 0, 100, 150)).image.size == (100, 150)  # never enlarged
    assert crop_query(whole, (0, 0, 1, 1)).image.size == (1, 1)


@pytest.mark.parametrize(
    "box", [(0, 0, 400, 150), (-40, 0, 100, 150), (305, 0, 310, 150), (1.1, 0, 1.2, 150)]
)
def test_a_box_outside_of_the_image_is_refused(box):
    with pytest.raises(ImageError, match="does not fit an image of 300 x 150 pixels"):
        crop_query(photo_of(picture(0, 300, 150)), box)


def test_missing_and_ambiguous_images_are_counted_and_the_first_is_named(scene):
    searcher, root = scene

    def refused(**change: object) -> str:
        with pytest.raises(UsageError) as error:
            evaluate_revisited(searcher, replace(TRUTH, **change), root / "queries", Options())
        return str(error.value)

    assert "2 of 6 database images are not in" in refused(database=[*TRUTH.database[:4], "x1", "x2"])
    assert "the first: x1." in refused(database=[*TRUTH.database[:4], "x1", "x2"])
    assert "1 of 2 queries are not in" in refused(queries=["q0", "q7"])
    picture(3).save(root / "queries" / "q1.bmp")
    assert "1 of 2 queries are in" in (line := refused())
    assert "more than once, the first: q1" in line
    with pytest.raises(UsageError, match="--queries is the folder of the queries"):
        evaluate_revisited(searcher, TRUTH, root / "gnd.json", Options())


def test_a_query_that_cannot_be_used_ends_the_evaluation_by_name(scene):
    searcher, root = scene
    with pytest.raises(RetrievalError, match=r"Query .*q0\.png: its box .* does not fit"):
        evaluate_revisited(
            searcher, replace(TRUTH, boxes=[(0, 0, 480, 400)] * 2), root / "queries", Options()
        )
    (root / "queries" / "deep" / "q0.png").write_text("text")
    with pytest.raises(RetrievalError, match=r"Query .*q0\.png: not an image"):
        evaluate_revisited(searcher, TRUTH, root / "queries", Options())

import io
import re
from pathlib import Path

import gradio as gr
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import picture

from app.page.disagreements.logic import DEPTH, Agreements, compute_agreements, find_disagreements
from app.page.disagreements.tab import (
    HTML,
    build_disagreements_tab,
    render_cases,
    render_disagreements,
    render_spread,
)
from index.build.pipeline import build_index
from index.embedders.onnx import OnnxEmbedder
from index.errors import UsageError
from index.evaluation.metrics import overlap_at_k, rank_biased_overlap
from index.search import Searcher


@pytest.fixture
def searcher(folder: Path, tmp_path: Path, student_file: Path, teacher_file: Path) -> Searcher:
    """Thirty pictures, searched without the models: stored vectors must do."""
    for i in range(12, 30):
        picture(i).save(folder / "more" / f"{i}.png")
    student = OnnxEmbedder(student_file)
    return Searcher(build_index([folder], student, tmp_path / "idx", OnnxEmbedder(teacher_file)), student)


def quiet(share: float) -> None:
    pass


def test_the_worst_agreement_comes_first(searcher: Searcher):
    shares = []
    found = compute_agreements(searcher, shares.append)
    assert sorted(found.items) == list(range(30))
    lists = []
    for space in ("student", "teacher"):
        vectors = np.asarray(searcher.index.vectors(space))
        similarity = vectors @ vectors.T
        np.fill_diagonal(similarity, -np.inf)
        lists.append(np.argsort(-similarity, axis=1, kind="stable")[:, :DEPTH])
    np.testing.assert_allclose(found.overlap, overlap_at_k(*lists)[found.items])
    np.testing.assert_allclose(found.rbo, rank_biased_overlap(*lists)[found.items])
    keys = list(zip(found.overlap, found.rbo, strict=True))
    assert keys == sorted(keys)
    assert shares[-1] == 1


def test_a_large_gallery_is_sampled(searcher: Searcher, monkeypatch):
    monkeypatch.setattr("app.page.disagreements.logic.CHUNK", 3)
    found = compute_agreements(searcher, quiet, most=7)
    assert len(found) == len(set(found.items.tolist())) == 7


def test_it_is_kept_with_the_index_until_the_index_is_another(
    searcher, folder, student_file, teacher_file, monkeypatch
):
    first = find_disagreements(searcher, quiet)
    kept = list(searcher.index.data.glob("agreement-*"))
    assert len(kept) == 1
    with monkeypatch.context() as patch:
        patch.setattr(
            "app.page.disagreements.logic.compute_agreements", lambda *_: pytest.fail("It was kept.")
        )
        again = find_disagreements(searcher, quiet)
    np.testing.assert_array_equal(again.items, first.items)
    np.testing.assert_array_equal(again.rbo, first.rbo)
    (folder / "0.png").unlink()
    student = OnnxEmbedder(student_file)
    index = build_index([folder], student, searcher.index.path, OnnxEmbedder(teacher_file))
    assert not kept[0].exists()
    assert len(find_disagreements(Searcher(index, student), quiet)) == 29
    assert len(list(index.data.glob("*agreement-*"))) == 1


def parquet(**columns) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not parquet",
        parquet(item=[0]),
        parquet(item=[30], overlap=[0.5], rbo=[0.5]),
        parquet(item=[-1], overlap=[0.5], rbo=[0.5]),
        parquet(item=[0.0], overlap=[0.5], rbo=[0.5]),
        parquet(item=pa.array([], pa.int64()), overlap=[], rbo=[]),
        parquet(item=["0"], overlap=["0"], rbo=["0"]),
        parquet(item=[0], overlap=[None], rbo=[0.5]),
    ],
)
def test_a_broken_file_is_computed_again(searcher: Searcher, content: bytes):
    first = find_disagreements(searcher, quiet)
    file = next(searcher.index.data.glob("agreement-*"))
    file.write_bytes(content)
    np.testing.assert_array_equal(find_disagreements(searcher, quiet).items, first.items)
    assert pq.read_table(file).num_rows == 30


def test_an_index_that_cannot_be_written_is_no_reason_to_fail(searcher: Searcher, monkeypatch):
    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("app.page.kept.pq.write_table", refuse)
    assert len(find_disagreements(searcher, quiet)) == 30
    assert not list(searcher.index.data.glob("*agreement-*"))


def test_without_a_teacher_there_is_nothing_to_compare(folder, tmp_path, student_file):
    student = OnnxEmbedder(student_file)
    alone = Searcher(build_index([folder], student, tmp_path / "alone"), student)
    with pytest.raises(UsageError, match="without a teacher"):
        compute_agreements(alone, quiet)


def test_judgements_are_kept_by_index(searcher: Searcher, folder: Path, tmp_path: Path):
    models = searcher.models["student"], OnnxEmbedder(tmp_path / "teacher.onnx")
    other = Searcher(build_index([folder], models[0], tmp_path / "other", models[1]), models[0])
    with gr.Blocks() as page:
        for each in (searcher, searcher, other):
            build_disagreements_tab(each)
    html = [block.value for block in page.blocks.values() if isinstance(block, gr.HTML)]
    first, again, apart = (re.search(r'data-of="(\w{32})"', each)[1] for each in html)
    assert first == again != apart


FOUR = Agreements(np.array([3, 1, 0, 2]), np.array([0.0, 0.1, 0.1, 0.9]), np.array([0.0, 0.1, 0.2, 0.9]))


def test_they_are_narrowed_by_name_and_by_overlap():
    names = ["a/3", "b/1", "a/0", "a/2"]
    assert FOUR.select(names, "", 1).items.tolist() == [3, 1, 0, 2]
    assert FOUR.select(names, "a/", 1).items.tolist() == [3, 0, 2]
    assert FOUR.select(names, "a/", 0.1).items.tolist() == [3, 0]
    assert FOUR.select(names, "A/", 1).items.tolist() == []


def test_they_check_themselves():
    with pytest.raises(ValueError, match="worst agreement must come first"):
        Agreements(np.array([0, 1]), np.array([0.2, 0.1]), np.zeros(2))
    with pytest.raises(ValueError, match="between 0 and 1"):
        Agreements(np.array([0, 1]), np.array([0.2, np.nan]), np.zeros(2))
    with pytest.raises(ValueError, match="do not fit"):
        Agreements(np.array([0, 1]), np.zeros(1), np.zeros(2))


def test_pages_hold_twelve_and_end_where_the_photos_end(searcher: Searcher):
    every = compute_agreements(searcher, quiet)
    first = render_disagreements(searcher, every, "", 1, 0)
    assert first.count("<li data-name=") == 12
    digests = [searcher.index.items[item].digest for item in every.items.tolist()]
    assert first.index(f'href="?id={digests[0]}"') < first.index(f'href="?id={digests[11]}"')
    last = render_disagreements(searcher, every, "", 1, 99)
    assert "30 photos, page 3 of 3" in last
    assert last.count("<li data-name=") == 6
    assert "No photo matches" in render_disagreements(searcher, every, "nowhere/", 1, 0)
    assert 'data-page="-1" disabled' in HTML.pager(30, 0, 3)
    assert 'data-page="3" disabled' in HTML.pager(30, 2, 3)


def test_a_case_shows_what_both_find_and_marks_what_they_share(searcher: Searcher):
    every = compute_agreements(searcher, quiet)
    html = render_cases(searcher, Agreements(every.items[:1], every.overlap[:1], every.rbo[:1]))
    item = int(every.items[0])
    lists = [searcher.search_items([item], mode, 5).ids[0].tolist() for mode in ("student", "teacher")]
    shown = [f'src="thumbs/{searcher.index.items[i].digest}"' for i in [item, *lists[0], *lists[1]]]
    places = []
    for picture_of in shown:
        places.append(html.index(picture_of, places[-1] + 1 if places else 0))
    assert html.count('class="both"') == 2 * len(set(lists[0]) & set(lists[1]))


def test_the_spread_counts_every_photo(searcher: Searcher):
    html = render_spread(FOUR, searcher.index)
    assert "1 at 0 %, 2 at 10 %, 0 at 20 %" in html
    assert "1 at 90 %" in html
    assert "of 30 photos, at random" in html

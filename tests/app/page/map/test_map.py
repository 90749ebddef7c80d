from base64 import b64decode
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from conftest import picture, write_embedder
from PIL import Image

from app.page.map import logic
from app.page.map.logic import colour_by, find_map, sketch
from app.page.map.tab import build_map_tab
from index.build.pipeline import build_index
from index.embedders.onnx import OnnxEmbedder
from index.search import Searcher
from index.stores.options import IndexOptions

CROWDS, EACH = 3, 10


@pytest.fixture
def searcher(tmp_path: Path) -> Searcher:
    """Three crowds of pictures that are nearly the same, in folders."""
    rng = np.random.default_rng(0)
    rows = ["path,shop"]
    for crowd in range(CROWDS):
        (tmp_path / "images" / f"{crowd}").mkdir(parents=True)
        base = np.asarray(picture(crowd))
        for i in range(EACH):
            noisy = np.clip(base + rng.normal(0, 3, base.shape), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(tmp_path / "images" / f"{crowd}" / f"{i}.png")
            rows.append(f"{crowd}/{i}.png,{'North' if i % 2 else 'South'}")
    (tmp_path / "shops.csv").write_text("\n".join(rows))
    student = OnnxEmbedder(write_embedder(tmp_path / "student.onnx", seed=1))
    teacher = OnnxEmbedder(write_embedder(tmp_path / "teacher.onnx", dim=12, side=64, seed=2))
    options = IndexOptions(metadata=tmp_path / "shops.csv")
    index = build_index([tmp_path / "images"], student, tmp_path / "idx", teacher, options=options)
    return Searcher(index, student, teacher)


def test_what_is_alike_lies_together_in_both_maps_and_they_are_kept(searcher: Searcher, monkeypatch):
    found = find_map(searcher)
    crowd = np.arange(CROWDS * EACH) // EACH
    assert list(found.places) == ["student", "teacher"]
    for places in found.places.values():
        assert places.shape == (CROWDS * EACH, 2)
        assert ((places >= 0) & (places <= 1)).all()
        apart = np.linalg.norm(places[:, None] - places, axis=2) + 9 * np.eye(len(places))
        assert (crowd[apart.argmin(axis=1)] == crowd).mean() > 0.9
    moved = np.linalg.norm(found.places["student"] - found.places["teacher"], axis=1)
    assert np.median(moved) < 0.25  # one lies on the other
    monkeypatch.setattr(logic, "TSNE", None)
    again = find_map(searcher)
    for name, places in found.places.items():
        np.testing.assert_array_equal(again.places[name], places)


def test_a_sketch_is_there_at_once_even_of_few(tmp_path: Path):
    (tmp_path / "images").mkdir()
    picture(0).save(tmp_path / "images" / "0.png")
    student = OnnxEmbedder(write_embedder(tmp_path / "student.onnx"))
    one = Searcher(build_index([tmp_path / "images"], student, tmp_path / "idx"), student)
    assert sketch(one).places["student"].tolist() == [[0.5, 0.5]]
    assert find_map(one).places["student"].tolist() == [[0.5, 0.5]]


def test_a_large_gallery_is_sampled(searcher: Searcher, monkeypatch):
    monkeypatch.setattr(logic, "MOST", 20)
    items = sketch(searcher).items
    assert len(set(items.tolist())) == 20
    assert (np.diff(items) > 0).all()


def test_colours_are_of_folders_and_columns_the_rest_together(searcher: Searcher, monkeypatch):
    items = np.array([0, 1, 10, 29])
    colours = colour_by(searcher, items)
    assert {name: codes.tolist() for name, (_, codes) in colours.items()} == {
        "folder": [0, 0, 1, 2], "shop": [0, 1, 0, 1],
    }  # fmt: skip
    monkeypatch.setattr(logic, "COLOURS", 1)
    assert colour_by(searcher, items)["folder"][1].tolist() == [0, 0, 1, 1]


def test_photos_are_named_by_content_for_an_id_is_another_photo_once_the_index_is_written_again(searcher):
    with gr.Blocks() as page:
        build_map_tab(searcher)
    answer = next(block for block in page.blocks.values() if isinstance(block, gr.HTML)).photo_map({})
    assert b64decode(answer["digests"]).hex() == "".join(item.digest for item in searcher.index.items)

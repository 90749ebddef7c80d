from pathlib import Path
from types import SimpleNamespace

import numpy as np
from conftest import picture, write_embedder
from PIL import Image

from app.page.search.columns import SearchColumn
from app.page.search.strength import Scale, measure_scale, measure_scales
from app.page.search.views import render_column
from index.build.pipeline import build_index
from index.embedders.onnx import OnnxEmbedder
from index.search import Found, Results, Searcher
from index.stores.records import Item


def test_similarities_are_named_by_the_scale():
    scale = Scale(strong=0.95, likely=0.81, weak=0.71)
    assert [scale.name(value) for value in (0.95, 0.94, 0.8, 0.7, -1)] == [
        "strong", "likely", "weak", "far", "far",
    ]  # fmt: skip
    odd = Scale(strong=0.95, likely=0.5, weak=0.71)  # many have no neighbour: chance decides
    assert [odd.name(value) for value in (0.72, 0.6)] == ["likely", "far"]


def test_the_scale_is_that_of_the_gallery(tmp_path: Path):
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for i in range(30):  # thirty pairs of pictures that are nearly the same
        base = np.asarray(picture(i))
        for j in range(2):
            noisy = np.clip(base + rng.normal(0, 3, base.shape), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(tmp_path / "images" / f"{i}-{j}.png")
    student = OnnxEmbedder(write_embedder(tmp_path / "student.onnx"))
    searcher = Searcher(build_index([tmp_path / "images"], student, tmp_path / "idx"), student)
    scale = measure_scale(searcher, "student")
    assert scale.strong > scale.likely > scale.weak > 0
    assert measure_scale(searcher, "teacher") is None
    assert measure_scales(searcher, {}) == {"student": scale}


def test_a_list_that_begins_far_away_says_so():
    items = [Item(f"/{i}.jpg", f"{i}.jpg", "d", 1, 2, 2, 0) for i in range(2)]
    found = Found(Results(np.array([[0, 1]]), np.array([[0.6, 0.5]], np.float32)), 0.1, 0.1)
    column, index = SearchColumn("student", found), SimpleNamespace(items=items)
    far = render_column(column, index, scale=Scale(0.95, 0.81, 0.71))
    assert "Nothing close" in far
    assert far.count('class="card far"') == 2
    near = render_column(column, index, scale=Scale(0.6, 0.55, 0.4))
    assert "Nothing close" not in near
    assert 'class="card strong"' in near
    assert "similarity 0.500, weak match" in near
    assert 'class="card"' in render_column(column, index)

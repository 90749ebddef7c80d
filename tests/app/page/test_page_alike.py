"""Near-duplicates on the page, in a real browser."""

from collections.abc import Iterator

import numpy as np
import pytest
from conftest import picture, write_embedder
from page_tools import ids, needs_chromium, settle, start_server
from PIL import Image

from index.build.pipeline import build_index
from index.embedders.onnx import OnnxEmbedder

pytestmark = needs_chromium
NEAR = 3


@pytest.fixture(scope="module")
def page_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running page of sixty pictures, and three that are nearly the first of them."""
    root = tmp_path_factory.mktemp("page")
    (root / "images").mkdir()
    for i in range(60):
        picture(i).save(root / "images" / f"{i:02}.png")
    first = np.asarray(picture(0)).astype(np.int16)
    for i in range(NEAR):
        Image.fromarray(np.clip(first + i + 1, 0, 255).astype(np.uint8)).save(root / "images" / f"00-{i}.png")
    build_index([root / "images"], OnnxEmbedder(write_embedder(root / "student.onnx", dim=32)), root / "idx")
    process, address = start_server(root / "idx")
    yield address
    process.kill()
    process.wait(10)


def visible(tab) -> list[bool]:
    every = tab.eval_on_selector_all("#first .card", "cards => cards.map(card => card.checkVisibility())")
    return every[: NEAR + 1]


def test_near_duplicates_fold_under_the_best_of_them_and_unfold(open_tab):
    tab = open_tab("?id=0&mode=student")  # the first picture finds the three
    settle(tab)
    for _ in range(20):  # the scale is measured beside the first searches
        if tab.query_selector(".alike"):
            break
        tab.reload()
        settle(tab)
    assert tab.inner_text("#first .alike") == f"+{NEAR - 1}"
    assert visible(tab) == [True, False, False, True]
    tab.click("#first .alike")
    assert visible(tab) == [True, True, True, True]
    assert tab.get_attribute("#first .alike", "aria-expanded") == "true"
    tab.focus("#first .hit")
    tab.keyboard.press("+")
    assert visible(tab) == [True, False, False, True]
    tab.keyboard.press("ArrowRight")  # over what is folded
    assert tab.evaluate("Number(document.activeElement.closest('.card').dataset.id)") == ids(tab)[NEAR]


def test_more_and_less_like_a_result(open_tab):
    tab = open_tab("?id=20&mode=student")
    settle(tab)
    first, second = ids(tab)[:2]
    digest = tab.locator("#first .card").first.get_attribute("data-digest")
    tab.hover("#first .card")
    tab.click("#first .card .vote[data-vote='unlike']")
    settle(tab)
    assert first not in ids(tab)
    assert f"unlike={digest}" in tab.url
    tab.focus(f"#first .card[data-id='{second}'] .hit")
    tab.keyboard.press("m")
    settle(tab)
    moved = ids(tab)
    assert {first, second}.isdisjoint(moved)
    tab.reload()
    settle(tab)
    assert ids(tab) == moved
    while chip := tab.query_selector(".chips button"):
        chip.click()
        settle(tab)
    assert ids(tab)[:2] == [first, second]
    assert "like=" not in tab.url

"""The page under a finger, in a small window and at 200 %, in a real browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import picture
from page_tools import ids, needs_chromium, open_fresh, settle
from PIL import Image

pytestmark = needs_chromium

HELD, LYING, ZOOMED = (390, 844), (740, 360), (720, 450)


@pytest.fixture(scope="module")
def touched(browser) -> Iterator:
    """A profile of a phone."""
    with browser.new_context(has_touch=True, is_mobile=True) as opened:
        yield opened


@pytest.fixture
def phone(touched, page_site: str) -> Iterator:
    """Opens the page as a phone does."""
    opened = []

    def open_at(path: str = "?id=10", size: tuple[int, int] = HELD):
        tab = open_fresh(touched, page_site, size)
        tab.goto(f"{page_site}/{path}")
        tab.wait_for_selector(".search .example", state="attached", timeout=60_000)
        if path:
            settle(tab)
        opened.append(tab)
        return tab

    yield open_at
    for tab in opened:
        tab.close()


def test_the_first_result_is_seen_at_once(phone, open_tab):
    assert phone().locator("#first .hit").first.bounding_box()["y"] <= 0.45 * HELD[1]
    lying = phone(size=LYING).locator("#first .hit").first.bounding_box()["y"]
    assert lying <= LYING[1] - 24
    zoomed = open_tab("?id=10", ZOOMED)  # a window of 1440 by 900 at 200 %
    settle(zoomed)
    assert zoomed.locator("#first .hit").first.bounding_box()["y"] <= ZOOMED[1] - 100


SMALL = """() => [...document.querySelectorAll('button, a, select, summary, input, label.button')]
  .filter(each => each.checkVisibility({visibilityProperty: true, opacityProperty: true}))
  .filter(each => !each.matches('.skip, .file, input[type=range]'))
  .map(each => [each.className || each.tagName, each.getBoundingClientRect()])
  .filter(([, box]) => box.width && (box.width < 44 || box.height < 44)).map(([name]) => name)"""


def test_what_is_tapped_is_large_enough(phone):
    tab = phone()
    assert tab.evaluate(SMALL) == []
    tab.tap(".menu")
    assert tab.evaluate(SMALL) == []
    tab.tap(".part")
    assert tab.is_visible(".turn-left")
    assert tab.evaluate(SMALL) == []
    tab.locator("#first .hit").first.tap()
    tab.wait_for_selector(".large[open] .about h2")
    assert tab.evaluate(SMALL) == []


def test_a_tap_looks_and_a_button_searches(phone):
    tab = phone()
    before, digest = tab.url, tab.locator("#first .card").nth(1).get_attribute("data-digest")
    tab.locator("#first .hit").nth(1).tap()
    tab.wait_for_selector(".large[open] .about h2")
    assert tab.url == before
    assert tab.is_visible(".pair canvas")  # the query, beside it
    tab.tap(".use")
    tab.wait_for_url(f"**/?id={digest}&*")
    settle(tab)


def test_the_camera_is_the_phones_own(phone, page_root: Path):
    tab = phone("")
    with tab.expect_file_chooser() as chosen:
        tab.tap(".camera")
    assert chosen.value.element.get_attribute("capture") == "environment"
    chosen.value.set_files(page_root / "query.png")
    settle(tab)
    assert len(ids(tab)) == 12


def test_without_the_right_to_a_camera_a_photo_is_chosen(open_tab):
    tab = open_tab()
    tab.evaluate("() => Object.defineProperty(navigator, 'mediaDevices', {value: undefined})")  # plain http
    with tab.expect_file_chooser():
        tab.click(".camera")


def test_query_and_headings_stay_in_sight(phone, open_tab):
    tab = phone("?id=10&k=48")
    tab.evaluate("scrollTo(0, 900)")
    tab.wait_for_function("scrollY > 500")
    row, heading = tab.locator(".ask").bounding_box(), tab.locator(".mode").first.bounding_box()
    assert row["y"] == 0
    assert heading["y"] == pytest.approx(row["height"], abs=2)
    desk = open_tab("?id=10&k=48", (1100, 500))
    settle(desk)
    desk.evaluate("scrollTo(0, 900)")
    desk.wait_for_function("scrollY > 500")
    assert desk.locator(".ask").bounding_box()["y"] == pytest.approx(16, abs=1)
    assert desk.locator(".mode").last.bounding_box()["y"] == 0


def mosaic(seed: int) -> Image.Image:
    """A photo of six megapixels with detail everywhere."""
    whole = Image.new("RGB", (3000, 2000))
    for i in range(60):
        whole.paste(picture(100 * seed + i, 300, 334), (300 * (i % 10), 334 * (i // 10)))
    return whole


SIZES = """() => { const ask = fetch; window.sent = []; window.fetch = (...asked) => {
  const parts = asked[1]?.body instanceof FormData ? [...asked[1].body.values()] : [];
  window.sent.push(...parts.filter(part => part.size).map(part => part.size));
  return ask(...asked);
}; }"""


@pytest.mark.slow
def test_a_large_photo_travels_small_and_finds_the_same(open_tab, page_site: str, tmp_path: Path):
    tab = open_tab()
    tab.evaluate(SIZES)
    shares = []
    for seed in range(4):
        path = tmp_path / f"{seed}.jpg"
        mosaic(seed).save(path, quality=97)
        assert path.stat().st_size > 400_000
        tab.set_input_files(".search .file", path)
        settle(tab)
        assert 0 < tab.evaluate("window.sent.pop()") < path.stat().st_size / 2
        assert tab.inner_text(".caption") == path.name
        files = {"image": {"name": path.name, "mimeType": "image/jpeg", "buffer": path.read_bytes()}}
        for column, mode in (("first", "student"), ("second", "teacher")):
            whole = tab.request.post(f"{page_site}/search?k=10&mode={mode}", multipart=files).json()
            found = [hit["id"] for hit in whole["results"]]
            shares.append(len({*ids(tab, column)[:10]} & {*found}) / 10)
    assert sum(shares) / len(shares) >= 0.98


def test_the_first_of_several_files_is_searched_with_and_it_is_said(open_tab, page_root: Path):
    tab = open_tab()
    tab.evaluate("() => { document.querySelector('.search .file').multiple = true; }")
    tab.set_input_files(".search .file", [page_root / "query.png", page_root / "images" / "00.png"])
    settle(tab)
    assert tab.inner_text(".caption") == "query.png"
    assert "the first of 2" in tab.inner_text(".complaint")

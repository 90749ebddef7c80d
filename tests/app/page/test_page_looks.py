"""How the page looks in a real browser, at every width, light and dark, and to screen readers."""

import re
from pathlib import Path

import pytest
from conftest import picture
from page_tools import DESKTOP, PHONE, needs_chromium, open_part, settle, upload

import app.page.page

pytestmark = needs_chromium


@pytest.mark.parametrize("name", ["page.css", "tabs.css"])
def test_no_style_is_lost_on_the_way(browser, name: str):
    """Gradio sends what the browser makes of each rule.

    Of a border with a variable, one side of which is set again, that is nothing.
    """
    tab = browser.new_page()
    lost = tab.evaluate(
        "text => { const sheet = new CSSStyleSheet(); sheet.replaceSync(text);"
        "return [...sheet.cssRules].map(rule => rule.cssText).filter(text => text.includes(': ;')); }",
        Path(app.page.page.__file__).with_name(name).read_text(),
    )
    tab.close()
    assert lost == []


def test_it_fits_every_width(open_tab):
    tab = open_tab("?id=10")
    settle(tab)
    for width in (1920, 1440, 1280, 1100, 1024, 900, 768, 721, 640, 480, 360):
        tab.set_viewport_size({"width": width, "height": 800})
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
        for part in (".timings", ".figures", ".bar-of-tools", ".facts", ".ask"):
            assert tab.eval_on_selector(part, "each => each.scrollWidth <= each.clientWidth"), (part, width)


def test_a_wide_screen_is_used(open_tab):
    tab = open_tab("?id=10", (2560, 1440))
    settle(tab)
    cards = tab.locator("#first .card")
    first, last = cards.first.bounding_box(), cards.last.bounding_box()
    assert first["width"] >= 178
    assert last["y"] + last["height"] < 1440  # all twelve at a glance
    assert tab.locator(".columns").bounding_box()["width"] > 1600


@pytest.mark.parametrize(("size", "look"), [((2000, 300), "wide"), ((300, 2000), "tall")])
def test_odd_shapes_and_long_names_leave_room_on_a_phone(open_tab, tmp_path: Path, size, look: str):
    photo = tmp_path / f"{'long ' * 45}.png"
    picture(3, *size).save(photo)
    tab = open_tab(size=PHONE)
    upload(tab, photo)
    tab.wait_for_function("document.querySelector('.frame canvas').width !== 400")
    assert tab.locator(".ask").bounding_box()["height"] <= 110
    assert tab.locator(".caption").bounding_box()["height"] <= 24
    open_part(tab)
    frame = tab.locator(".frame").bounding_box()
    assert frame["width"] > 300 if look == "wide" else frame["height"] <= 0.46 * PHONE[1]
    assert tab.get_attribute(".caption", "title") == photo.name
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("size", [(360, 560), (740, 360), DESKTOP])
def test_the_large_view_shows_its_buttons_at_once(open_tab, size):
    tab = open_tab("?id=10", size)
    settle(tab)
    tab.locator("#first .open").first.click()
    tab.wait_for_selector(".large[open] .about h2")
    for part in (".use", ".next", ".large .close"):
        place = tab.locator(part).bounding_box()
        assert place["y"] >= 0
        assert place["y"] + place["height"] <= size[1]
    picture, button = tab.locator(".large img").bounding_box(), tab.locator(".use").bounding_box()
    assert picture["height"] > 0.4 * size[1]
    assert picture["y"] + picture["height"] <= button["y"] or picture["x"] + picture["width"] <= button["x"]


def test_a_finger_is_not_told_of_the_mouse(browser, page_site: str):
    with browser.new_context(has_touch=True, is_mobile=True, viewport={"width": 360, "height": 740}) as phone:
        tab = phone.new_page()
        tab.goto(page_site)
        tab.wait_for_selector(".search .example")
        assert tab.inner_text(".invite p").strip() == "Student and teacher search side by side."


@pytest.mark.parametrize(("size", "theme"), [(PHONE, "dark"), ((768, 1024), "light"), (DESKTOP, "dark")])
def test_cells_are_squares_side_by_side(open_tab, size, theme: str):
    tab = open_tab("?id=10", size, theme)
    settle(tab)
    cells = tab.eval_on_selector_all(
        "#first .hit, #second .hit", "hits => hits.map(hit => [hit.clientWidth, hit.clientHeight])"
    )
    assert {abs(width - height) <= 1 for width, height in cells} == {True}
    lefts = [tab.locator(f"#{column} .hit").first.bounding_box() for column in ("first", "second")]
    assert lefts[0]["y"] == lefts[1]["y"]
    assert lefts[0]["x"] + lefts[0]["width"] < lefts[1]["x"]
    ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in re.findall(r"\d+", ground)[:3]) > 384) == (theme == "light")


def looks() -> list:
    """Four sizes, light and dark, of which one is looked at every time."""
    sizes, quick = (DESKTOP, (768, 1024), PHONE, (740, 360)), [(PHONE, "dark")]
    every = [(size, theme) for theme in ("light", "dark") for size in sizes]
    return [pytest.param(*each, marks=[] if each in quick else pytest.mark.slow) for each in every]


@pytest.mark.parametrize(("size", "theme"), looks())
def test_axe_finds_nothing_serious(open_tab, tmp_path: Path, size, theme: str):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()

    def serious(tab) -> list[str]:
        found = axe.run(tab).response["violations"]
        return [
            f"{each['id']}: {each['nodes'][0]['target']}"
            for each in found
            if each["impact"] in ("moderate", "serious", "critical")
        ]

    tab = open_tab(size=size, theme=theme)
    assert serious(tab) == []
    tab.locator(".example").first.click()
    settle(tab)
    assert serious(tab) == []
    if tab.is_visible(".menu"):
        for button in (".chip", ".part", ".menu"):
            tab.click(button)
        assert serious(tab) == []
    tab.click(".ladder")
    settle(tab)
    assert serious(tab) == []
    tab.click(".two")
    (tmp_path / "notes.pdf").write_bytes(b"%PDF")
    upload(tab, tmp_path / "notes.pdf")
    assert tab.is_visible(".again")
    assert serious(tab) == []
    tab.locator("#first .open").first.click()
    tab.wait_for_selector(".large[open] .about h2")
    assert serious(tab) == []
    tab.keyboard.press("Escape")
    tab.get_by_role("tab", name="API").click()
    tab.wait_for_selector("#api .copy")
    assert serious(tab) == []

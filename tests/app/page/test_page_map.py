"""The map of all photos, in a real browser."""

import pytest
from page_tools import at_a_desk, needs_chromium

pytestmark = needs_chromium
ASKED = "document.querySelector('#map .state').textContent"


def open_map(open_tab, **look):
    tab = open_tab("?tab=map", **look)
    tab.wait_for_selector("#map .by option[value='agreement']", state="attached", timeout=30_000)
    tab.wait_for_function(f"!{ASKED}", timeout=60_000)
    return tab


DRAWN_IN = """ink => {
    const canvas = document.querySelector('#map canvas'), {width, height} = canvas;
    const pixels = canvas.getContext('2d').getImageData(0, 0, width, height).data;
    return Array.from({length: width * height}, (_, i) => 4 * i)
        .some(at => ink.every((part, i) => pixels[at + i] === part));
}"""
BLUE = [0x3F, 0x6F, 0xD6]  # of the first value of a column; no share of agreement has it


@pytest.mark.slow
def test_points_glide_between_the_models_and_take_the_colours_of_a_column(open_tab):
    tab = open_map(open_tab)
    assert tab.input_value("#map .by") == "agreement"
    assert not tab.evaluate(DRAWN_IN, BLUE)
    tab.select_option("#map .by", "column.shop")
    assert sorted(tab.inner_text("#map .legend").split()) == ["North", "South"]
    tab.wait_for_function(DRAWN_IN, arg=BLUE)  # a frame is painted later
    by_shop = tab.evaluate("document.querySelector('#map canvas').toDataURL()")
    tab.click("#map [data-space='teacher']")
    tab.wait_for_function(
        "before => document.querySelector('#map canvas').toDataURL() !== before", arg=by_shop
    )
    tab.wait_for_timeout(1500)
    assert tab.get_attribute("#map [data-space='teacher']", "aria-pressed") == "true"


def test_a_point_leads_to_its_search_and_a_loop_lists_photos(open_tab):
    tab = open_map(open_tab)
    box = tab.locator("#map canvas").bounding_box()
    tab.click("#map .select")
    left, top, right, bottom = 12, 12, box["width"] - 12, box["height"] - 12  # within its round corners
    tab.mouse.move(box["x"] + left, box["y"] + top)
    tab.mouse.down()
    for x, y in ((right, top), (right, bottom), (left, bottom)):
        tab.mouse.move(box["x"] + x, box["y"] + y, steps=3)
    tab.mouse.up()
    assert tab.inner_text("#map .chosen p").startswith("30 photos, on which the two have ")
    assert tab.locator("#map .chosen img").count() == 30
    tab.locator("#map .chosen a").nth(4).click()
    tab.wait_for_selector("#first .card")
    assert "id=" in tab.url
    assert "tab=map" not in tab.url


@pytest.mark.slow
def test_a_lost_answer_is_asked_for_again(open_tab):
    tab = open_tab()
    tab.context.set_offline(True)
    tab.get_by_role("tab", name="Map").click()
    tab.wait_for_function(f"{ASKED}.includes('Trying again')")
    tab.context.set_offline(False)
    tab.complaints.clear()  # of the browser, about the network
    tab.wait_for_function(f"!{ASKED}", timeout=60_000)


@at_a_desk
def test_axe_finds_nothing_on_the_map(open_tab, look):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    tab = open_map(open_tab, size=look[0], theme=look[1])
    found = axe.run(tab).response["violations"]
    assert [each["id"] for each in found if each["impact"] in ("moderate", "serious", "critical")] == []
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")

"""Why a result matches, in a real browser."""

import pytest
from page_tools import at_a_desk, needs_chromium, settle

pytestmark = needs_chromium
LIGHT = """(canvas, [x, y]) => {
  const pixel = canvas.getContext('2d').getImageData(x * canvas.width, y * canvas.height, 1, 1).data;
  return [pixel[0], pixel[3]];
}"""


@at_a_desk
def test_a_button_lights_what_the_match_rests_on(open_tab, look):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    tab = open_tab("?id=10", *look)
    settle(tab)
    asked = []
    tab.on(
        "request", lambda each: asked.append(each.post_data or "") if "component_server" in each.url else None
    )
    tab.locator("#first .open").first.evaluate("button => button.click()")
    tab.wait_for_selector(".large[open] .about h2")
    assert tab.locator(".heat:visible").count() == 0
    assert not [each for each in asked if '"why"' in each]  # never by itself
    with tab.expect_response(lambda each: '"why"' in (each.request.post_data or "")) as answered:
        tab.locator(".why").press("Enter")
    answer = answered.value.json()
    tab.wait_for_selector(".heat:visible")
    assert tab.get_attribute(".why", "aria-pressed") == "true"
    assert "a teacher would be asked 100 times" in tab.inner_text(".because")
    for i, heat in enumerate(tab.locator(".heat").all()):
        assert heat.get_attribute("aria-label") == answer["said"][i]
        cells = [
            (value, row, column)
            for row, line in enumerate(answer["maps"][i])
            for column, value in enumerate(line)
        ]
        (hot, *most), (cold, *least) = max(cells), min(cells)
        bright, dark = ([(each[1] + 0.5) / 7, (each[0] + 0.5) / 7] for each in (most, least))
        (red, thin), (night, thick) = heat.evaluate(LIGHT, bright), heat.evaluate(LIGHT, dark)
        assert red > night + 80 * (hot - cold)
        assert thin < thick
        picture, over = (each.bounding_box() for each in (heat.locator("xpath=../*[1]"), heat))
        assert over == pytest.approx(picture, abs=1)
        sizes = heat.evaluate("each => [each.width, each.height, each.parentElement.firstChild]"
                              ".map(each => each.nodeType ? [each.naturalWidth || each.width, "
                              "each.naturalHeight || each.height] : each)")  # fmt: skip
        assert sizes[:2] == sizes[2]
    found = axe.run(tab).response["violations"]
    assert [each["id"] for each in found if each["impact"] != "minor"] == []
    tab.click(".large .next")
    assert tab.locator(".heat:visible").count() == 0
    assert tab.get_attribute(".why", "aria-pressed") == "false"
    tab.click(".why")
    tab.wait_for_selector(".heat:visible")
    tab.click(".why")
    assert tab.locator(".heat:visible").count() == 0
    assert tab.inner_text(".because") == ""


def test_a_lost_server_leaves_no_map(open_tab):
    tab = open_tab("?id=10")
    settle(tab)
    tab.locator("#first .open").first.click()
    tab.wait_for_selector(".large[open] .about h2")
    tab.context.set_offline(True)
    tab.click(".why")
    tab.wait_for_selector(".because .error")
    assert tab.inner_text(".because") == "Can't reach the server. Try again."
    assert tab.get_attribute(".why", "aria-pressed") == "false"
    tab.context.set_offline(False)
    tab.complaints.clear()  # of the browser, about the network

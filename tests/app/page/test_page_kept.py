"""Nothing is lost, in a real browser: by an error, by Back, by looking at another tab."""

import csv
import json
from io import StringIO
from pathlib import Path

import pytest
from page_tools import ids, needs_chromium, settle, upload

pytestmark = needs_chromium


def test_an_error_keeps_results_filters_and_query_and_offers_to_try_again(open_tab, tmp_path: Path):
    (tmp_path / "notes.pdf").write_bytes(b"%PDF-1.7 a document")
    tab = open_tab("?id=2&prefix=more/")
    settle(tab)
    before, drawn, url = ids(tab), "document.querySelector('.frame canvas').toDataURL()", tab.url
    asked, caption = tab.evaluate(drawn), tab.inner_text(".caption")
    upload(tab, tmp_path / "notes.pdf")
    assert "Can't open notes.pdf" in tab.inner_text(".complaint")
    assert ids(tab) == before
    assert (tab.url, tab.inner_text(".caption")) == (url, caption)
    assert tab.input_value(".prefix") == "more/"
    tab.wait_for_function(f"asked => {drawn} === asked", arg=asked)
    tab.click(".again")
    settle(tab)
    assert "Can't open notes.pdf" in tab.inner_text(".complaint")
    digest = tab.locator("#first .card").first.get_attribute("data-digest")
    tab.locator("#first .hit").first.click()  # and the page goes on
    tab.wait_for_url(f"**/?id={digest}&*")
    settle(tab)
    assert tab.inner_text(".complaint") == ""


def test_a_connection_that_comes_back_is_tried_again(open_tab):
    tab = open_tab("?id=2")
    settle(tab)
    before, digest = ids(tab), tab.locator("#first .card").first.get_attribute("data-digest")
    mode = tab.locator("[data-column='0'] .mode-of")
    tab.context.set_offline(True)
    mode.select_option("rerank")
    tab.wait_for_selector(".again")
    assert mode.input_value() == "student"  # whose results are on show
    tab.context.set_offline(False)
    tab.click(".again")
    tab.wait_for_url("**mode=rerank,teacher*")
    mode.select_option("student")
    tab.wait_for_url("**mode=student,teacher*")
    settle(tab)
    tab.context.set_offline(True)
    tab.locator("#first .hit").first.click()
    tab.wait_for_selector(".again")
    assert "Can't reach the server" in tab.inner_text(".complaint")
    assert ids(tab) == before
    tab.context.set_offline(False)
    tab.click(".again")
    tab.wait_for_url(f"**/?id={digest}&*")
    settle(tab)
    assert tab.inner_text(".complaint") == ""
    assert any("ERR_INTERNET_DISCONNECTED" in each for each in tab.complaints)  # of the browser
    tab.complaints.clear()


def test_a_photo_that_the_server_forgot_is_fetched_again(open_tab):
    tab = open_tab()
    fetched = []

    def answer(route):
        asked = json.loads(route.request.post_data)
        if not isinstance(asked["data"], dict) or not asked["data"].get("address"):
            route.continue_()
            return
        fetched.append(asked["data"].pop("address"))
        response = route.fetch(post_data=json.dumps({**asked, "data": {**asked["data"], "item": 3}}))
        route.fulfill(json={**response.json(), "sent": "0" * 32, "item": ""})  # which it does not know

    tab.route(lambda url: "component_server" in url, answer)
    tab.fill(".address", "https://shop.example/a.jpg")
    tab.press(".address", "Enter")
    settle(tab)
    assert tab.inner_text(".complaint") == ""
    assert len(ids(tab, "second")) == 12
    assert fetched == ["https://shop.example/a.jpg"] * 2


def test_a_tab_is_in_the_address_and_back_returns_with_filter_and_page(open_tab):
    tab = open_tab("?tab=disagreements")
    tab.wait_for_selector(".cases a")
    tab.locator("#disagreements").get_by_label("Name starts with").fill("more/")
    tab.wait_for_function("document.querySelector('.pager').innerText.includes('20 photos')")
    tab.get_by_role("button", name="Next").click()
    tab.wait_for_function("document.querySelector('.pager').innerText.includes('page 2 of 2')")
    shown = tab.locator(".cases a").first.get_attribute("href")
    tab.evaluate("() => { window.same = true; }")
    tab.locator(".cases a").first.click()
    tab.wait_for_url(f"**/*id={shown.removeprefix('?id=')}&*")
    settle(tab)
    assert tab.is_visible(".columns")
    assert tab.evaluate("window.same")  # without loading the page again
    tab.go_back()
    tab.wait_for_selector(".cases a")
    assert "page 2 of 2" in tab.inner_text(".pager")
    assert tab.locator(".cases a").first.get_attribute("href") == shown
    again = open_tab(tab.url.split("/", 3)[3])
    again.wait_for_selector(".cases a")
    assert again.locator(".cases a").first.get_attribute("href") == shown
    assert again.locator("#disagreements .prefix").input_value() == "more/"


def test_disagreements_are_judged_by_key_kept_and_saved(open_tab):
    tab = open_tab("?tab=disagreements")
    tab.wait_for_selector(".cases a")
    names = tab.eval_on_selector_all(".cases li", "all => all.map(each => each.dataset.name)")
    assert not tab.is_visible(".judged")
    for key in "j1j23":  # the first, one is passed over, two more
        tab.keyboard.press(key)
    assert tab.inner_text(".judged p") == "3 judged: student right 1, teacher right 1, both fine 1."
    assert tab.locator(".cases [aria-pressed=true]").all_inner_texts() == [
        "Student right",
        "Teacher right",
        "Both fine",
    ]
    tab.keyboard.press("k")
    tab.keyboard.press("3")  # again: taken back
    assert tab.inner_text(".judged p").startswith("2 judged")
    tab.reload()
    tab.wait_for_selector(".cases [aria-pressed=true]")
    with tab.expect_download() as saved:
        tab.get_by_role("button", name="List to ask about").click()
    assert saved.value.path().read_text() == f"{names[2]}\n"
    with tab.expect_download() as saved:
        tab.get_by_role("button", name="Export as CSV").click()
    rows = list(csv.DictReader(StringIO(saved.value.path().read_text())))
    assert [(row["name"], row["right"]) for row in rows] == [(names[0], "student"), (names[2], "teacher")]
    assert all(0 <= float(row["overlap"]) <= 1 for row in rows)
    tab.get_by_role("button", name="Forget all").click()
    assert not tab.is_visible(".judged")


def test_judgements_last_as_long_as_the_page_where_the_browser_keeps_nothing(open_tab):
    tab = open_tab()
    tab.add_init_script(
        "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('denied'); }})"
    )
    tab.goto(f"{tab.url.split('?')[0]}?tab=disagreements")
    tab.wait_for_selector(".cases a")
    for key in "j1j2":
        tab.keyboard.press(key)
    assert tab.inner_text(".judged p") == "2 judged: student right 1, teacher right 1, both fine 0."
    tab.get_by_role("button", name="Forget all").click()
    assert not tab.is_visible(".judged")


def test_another_tab_leaves_the_search_as_it_was(open_tab):
    tab = open_tab("?id=3&mode=student,teacher&view=ladder&k=24")
    settle(tab)
    before = ids(tab)
    tab.get_by_role("tab", name="API").click()
    tab.wait_for_url("**tab=api*")
    tab.go_back()
    tab.wait_for_selector("#first .card")
    assert ids(tab) == before
    assert "tab=" not in tab.url


def test_a_photo_of_ones_own_has_an_address_for_as_long_as_it_is_known(open_tab, page_root: Path):
    tab = open_tab()
    upload(tab, page_root / "query.png")
    assert "sent=" in tab.url
    again = open_tab(tab.url.split("/", 3)[3])
    settle(again)
    assert ids(again) == ids(tab)
    assert again.inner_text(".caption") == "query.png"
    again.wait_for_function("document.querySelector('.frame canvas').width === 160")
    gone = open_tab("?sent=0123456789abcdef0123456789abcdef")
    settle(gone)
    assert "not known any more" in gone.inner_text(".complaint")


def test_few_stops_lead_to_the_first_result(open_tab):
    tab = open_tab("?id=5")
    settle(tab)

    def stops(skip: bool) -> int:
        tab.evaluate("() => { document.activeElement.blur(); scrollTo(0, 0); }")
        for count in range(1, 40):
            tab.keyboard.press("Tab")
            name = tab.evaluate("document.activeElement.className")
            if skip and name == "skip":
                tab.keyboard.press("Enter")
                name = tab.evaluate("document.activeElement.className")
            if name == "hit":
                return count
        raise AssertionError("The first result was not reached.")

    assert stops(skip=True) <= 8
    assert tab.evaluate("document.activeElement.closest('.card').dataset.id") == str(ids(tab)[0])
    tab.reload()
    settle(tab)
    assert stops(skip=False) <= 8
    tab.focus(".turn-left")  # a group of buttons is one stop
    tab.keyboard.press("ArrowRight")
    assert tab.evaluate("document.activeElement.className") == "turn-right"


@pytest.mark.slow
def test_the_ladder_joins_twins(open_tab):
    tab = open_tab("?id=6")
    settle(tab)
    tab.click(".ladder")
    tab.wait_for_url("**view=ladder*")
    first, second = ids(tab), ids(tab, "second")
    twins = [item for item in first if item in second]
    rungs = tab.locator(".rungs path")
    assert [int(each.get_attribute("data-id")) for each in rungs.all()] == twins
    svg = tab.locator(".rungs").bounding_box()
    for item in twins:
        ends = tab.locator(f".rungs path[data-id='{item}']").bounding_box()
        middles = []
        for column in ("first", "second"):
            box = tab.locator(f"#{column} .card[data-id='{item}'] .hit").bounding_box()
            middles.append(box["y"] + box["height"] / 2)
        assert abs(ends["y"] - min(middles)) < 8
        assert abs(ends["height"] - (max(middles) - min(middles))) < 12
    left = tab.locator("#first .hit").first.bounding_box()
    assert left["x"] + left["width"] <= svg["x"] + 1
    tab.hover(f"#first .card[data-id='{twins[0]}'] .hit")
    assert tab.locator(".rungs path.lit").count() == 1
    again = open_tab(tab.url.split("/", 3)[3])
    settle(again)
    assert again.locator(".rungs path").count() == len(twins)
    tab.click(".two")
    tab.wait_for_function("!location.search.includes('view')")
    assert not tab.is_visible(".rungs")

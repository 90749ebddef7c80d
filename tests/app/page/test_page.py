"""The page in a real browser: Debian's or any other Chromium."""

import csv
import json
import re
from base64 import b64encode
from io import StringIO
from pathlib import Path

import pytest
from conftest import picture
from page_tools import (
    COUNT,
    LOOKS,
    PHONE,
    at_a_desk,
    both_looks,
    delay_answers,
    focused,
    ids,
    needs_chromium,
    on_a_phone,
    open_menu,
    open_part,
    settle,
    upload,
)

pytestmark = needs_chromium


# Queries


@at_a_desk
def test_a_photo_brings_both_columns_with_their_numbers(open_tab, page_root: Path, look):
    tab = open_tab("", *look)
    assert f"{COUNT} images" in tab.inner_text(".heading")
    upload(tab, page_root / "query.png")
    first, second = ids(tab), ids(tab, "second")
    assert len(set(first)) == len(set(second)) == 12
    assert tab.locator("#first .rank").all_inner_texts() == [str(rank) for rank in range(1, 13)]
    scores = [float(text) for text in tab.locator("#first .score").all_inner_texts()]
    assert scores == sorted(scores, reverse=True)
    assert tab.inner_text(".facts div:first-child dd") == f"{len(set(first) & set(second))} of 12"
    numbers = tab.text_content(".numbers")
    for word in ("in common", "order agrees", "decode", "embed", "search", "32", "48", "1,500.00"):
        assert word in numbers
    for here, there, column in ((first, second, "first"), (second, first, "second")):
        marks = tab.eval_on_selector_all(
            f"#{column} .mark", "marks => marks.map(mark => [mark.className, mark.textContent])"
        )
        for rank, (item, (kind, text)) in enumerate(zip(here, marks, strict=True)):
            shift = there.index(item) - rank if item in there else None
            expected = "only" if shift is None else "same" if not shift else "up" if shift > 0 else "down"
            assert kind == f"mark {expected}"
            assert not shift or re.sub(r"\D", "", text) == str(abs(shift))
    tab.wait_for_function(
        "[...document.querySelectorAll('img[loading=eager]')].every(image => image.naturalWidth > 0)"
    )


@on_a_phone
def test_a_click_searches_on_and_the_address_follows(open_tab, page_root: Path, look):
    tab = open_tab("", *look)
    upload(tab, page_root / "query.png")
    assert "id=" not in tab.url
    item, digest = ids(tab)[2], tab.locator("#first .card").nth(2).get_attribute("data-digest")
    tab.locator("#first .hit").nth(2).click()
    tab.wait_for_url(f"**/?id={digest}&mode=student,teacher&k=12")
    settle(tab)
    assert item not in ids(tab) + ids(tab, "second")
    tab.go_back()
    tab.wait_for_function("document.querySelector('.caption').textContent === 'query.png'")
    tab.go_forward()
    tab.wait_for_url(f"**/?id={digest}*")
    settle(tab)


@at_a_desk
def test_a_slow_answer_is_waited_for_with_a_sign_and_nothing_jumps(open_tab, look):
    tab = open_tab("", *look)
    delay_answers(tab, 1.5)
    tab.locator(".example").first.click()
    tab.wait_for_selector(".busy:visible")
    assert tab.locator("#first .blank li").count() == 12
    assert tab.locator(".share button:disabled").count() == 3
    assert not tab.is_visible(".more")
    tab.wait_for_selector("#first .card")
    assert not tab.is_visible(".busy")
    assert tab.is_visible("#second .waiting")
    assert tab.inner_text(".facts div:first-child dd") == "-"
    places = (
        "() => ['.facts', '.timings', '#first .card'].map(each => document.querySelector(each).offsetTop)"
    )
    before = tab.evaluate(places)
    settle(tab)
    assert re.fullmatch(r"\d+ of 12", tab.inner_text(".facts div:first-child dd"))
    assert tab.evaluate(places) == before
    assert tab.is_enabled(".save[data-format=csv]")
    drawn = "document.querySelector('.frame canvas').toDataURL()"
    asked = tab.evaluate(drawn)
    tab.locator("#first .hit").first.click()  # the results before stay, and look it
    tab.wait_for_selector(".busy:visible")
    tab.wait_for_function(f"before => {drawn} !== before", arg=asked)  # what was clicked on is shown at once
    tab.wait_for_function("getComputedStyle(document.querySelector('#first')).opacity === '0.45'")
    assert tab.is_visible(".busy")
    settle(tab)


DROP = """([kind, data]) => {
  const file = new File([Uint8Array.from(atob(data), c => c.charCodeAt(0))], 'mine.png', {type: 'image/png'});
  const transfer = new DataTransfer();
  transfer.items.add(file);
  const event = kind === 'paste'
    ? new ClipboardEvent('paste', {clipboardData: transfer, bubbles: true, cancelable: true})
    : new DragEvent(kind, {dataTransfer: transfer, bubbles: true, cancelable: true});
  document.body.dispatchEvent(event);
}"""


@pytest.mark.parametrize(("kind", "look"), [("drop", LOOKS[0]), ("paste", LOOKS[1])])
def test_a_photo_is_dropped_or_pasted_anywhere(open_tab, page_root: Path, kind: str, look):
    tab = open_tab("", *look)
    data = b64encode((page_root / "query.png").read_bytes()).decode()
    if kind == "drop":
        tab.evaluate(DROP, ["dragenter", data])
        assert tab.is_visible(".over")
    tab.evaluate(DROP, [kind, data])
    settle(tab)
    assert not tab.is_visible(".over")
    assert len(ids(tab)) == 12
    assert tab.inner_text(".caption") == "mine.png"


PASTE = """address => {
  const clipboardData = new DataTransfer();
  clipboardData.setData('text/plain', address);
  document.body.dispatchEvent(new ClipboardEvent('paste', {clipboardData, bubbles: true, cancelable: true}));
}"""


def test_an_address_is_pasted_anywhere(open_tab, page_site: str):
    tab = open_tab()
    tab.evaluate(PASTE, "no address")
    tab.evaluate(PASTE, f"{page_site}/thumbs/0")
    tab.wait_for_selector(".complaint .error")
    assert "private network" in tab.inner_text(".complaint")


@at_a_desk
def test_the_camera_takes_a_photo(open_tab, look):
    tab = open_tab("", *look)
    tab.evaluate(
        "() => { const media = navigator.mediaDevices, ask = media.getUserMedia.bind(media), all = [];"
        "window.streams = all; media.getUserMedia = async wanted => all[all.push(await ask(wanted)) - 1];"
        "for (const _ of [1, 2]) document.querySelector('.camera').click(); }"
    )
    tab.wait_for_function("document.querySelector('video').videoWidth > 0")
    tab.evaluate("Object.defineProperty(document.querySelector('video'), 'videoWidth', {configurable: true})")
    tab.click(".shoot")  # before there is a picture
    assert tab.is_visible(".lens")
    tab.evaluate("() => { delete document.querySelector('video').videoWidth; }")
    tab.click(".shoot")
    settle(tab)
    assert len(ids(tab, "second")) == 12
    assert tab.evaluate("document.querySelector('video').srcObject") is None
    assert tab.evaluate("streams.map(each => each.active)") == [False]


def test_examples_are_searched_with_and_addresses_within_are_refused(open_tab, page_site: str):
    tab = open_tab()
    tab.locator(".example").nth(1).click()
    settle(tab)
    assert re.search(r"\?id=\w{32}&", tab.url)
    tab.fill(".address", f"{page_site}/thumbs/0")
    tab.press(".address", "Enter")
    tab.wait_for_selector(".complaint .error")
    assert "private network" in tab.inner_text(".complaint")


def test_what_the_browser_cannot_draw_the_server_does(open_tab, tmp_path: Path):
    picture(3, 60, 90).save(tmp_path / "scan.tif")
    tab = open_tab()
    upload(tab, tmp_path / "scan.tif")
    tab.wait_for_function("document.querySelector('.frame canvas').height === 90")


# Crop and rotate


@both_looks
def test_a_part_is_searched_with_while_it_is_drawn(open_tab, look):
    tab = open_tab("?id=4", *look)
    settle(tab)
    whole = ids(tab)
    tab.wait_for_function("document.querySelector('.frame canvas').width === 96")  # it has been drawn
    if tab.is_visible(".part"):  # on a thumbnail no box is drawn
        thumbnail = tab.locator(".frame").bounding_box()
        tab.mouse.move(thumbnail["x"] + 10, thumbnail["y"] + 10)
        tab.mouse.down()
        tab.mouse.move(thumbnail["x"] + 60, thumbnail["y"] + 60)
        tab.mouse.up()
        assert tab.locator(".picture.cut").count() == 0
    open_part(tab)
    frame = tab.locator(".frame").bounding_box()
    left, top = frame["x"] + 0.1 * frame["width"], frame["y"] + 0.1 * frame["height"]
    tab.mouse.move(left, top)
    tab.mouse.down()
    tab.mouse.move(left + 0.4 * frame["width"], top + 0.5 * frame["height"], steps=4)
    tab.wait_for_function(
        "old => [...document.querySelectorAll('#first .card')].map(card => card.dataset.id).join() !== old",
        arg=",".join(map(str, whole)),
    )
    tab.mouse.up()
    tab.wait_for_url("**box=*")
    settle(tab)
    box = [float(edge) for edge in re.search(r"box=([\d.,]+)", tab.url)[1].split(",")]
    assert box == pytest.approx([0.1, 0.1, 0.5, 0.6], abs=0.02)
    assert 4 not in ids(tab) + ids(tab, "second")
    cut = ids(tab)
    places = [button.bounding_box() for button in tab.locator(".tools button:visible").all()]
    for i, one in enumerate(places):
        for other in places[:i]:
            aside = one["x"] >= other["x"] + other["width"] or other["x"] >= one["x"] + one["width"]
            below = one["y"] >= other["y"] + other["height"] or other["y"] >= one["y"] + one["height"]
            assert aside or below

    again = open_tab(tab.url.split("/", 3)[3], *look)  # the address restores it
    settle(again)
    assert ids(again) == cut
    tab.click(".whole")
    tab.wait_for_function("!location.search.includes('box')")
    settle(tab)
    assert ids(tab) == whole
    assert tab.evaluate("document.activeElement.className") == "box"  # the button has hidden


def test_a_teacher_is_asked_once_the_box_is_drawn(open_tab):
    tab = open_tab("?id=4&mode=teacher")
    settle(tab)
    asked = []
    tab.on("request", lambda each: asked.append(each.url) if "component_server" in each.url else None)
    frame = tab.locator(".frame").bounding_box()
    tab.mouse.move(frame["x"] + 5, frame["y"] + 5)
    tab.mouse.down()
    tab.mouse.move(frame["x"] + 60, frame["y"] + 60, steps=4)
    tab.wait_for_timeout(200)
    assert asked == []
    tab.mouse.up()
    tab.wait_for_url("**box=*")
    assert len(asked) == 1


@on_a_phone
def test_the_box_and_the_turn_are_in_reach_of_the_keyboard(open_tab, look):
    tab = open_tab("?id=4", *look)
    settle(tab)
    open_part(tab)
    tab.focus(".box")
    tab.keyboard.press("Shift+ArrowLeft")
    tab.wait_for_url("**box=0.000,0.000,0.950,1.000*")
    tab.keyboard.press("ArrowRight")
    tab.wait_for_url("**box=0.050,0.000,1.000,1.000*")
    tab.click(".turn-right")
    tab.wait_for_url("**turn=1&box=0.000,0.050,1.000,1.000*")
    tab.wait_for_function("(c => c.height > c.width)(document.querySelector('.frame canvas'))")
    tab.focus(".box")
    tab.keyboard.press("Escape")
    tab.wait_for_function("!location.search.includes('box')")
    settle(tab)


# Results


@both_looks
def test_every_way_to_search_alone_or_beside_another(open_tab, page_root: Path, look):
    tab = open_tab("?id=5&mode=teacher&k=24", *look)
    settle(tab)
    assert not tab.is_visible("#second")
    assert tab.locator(".mode-of").first.input_value() == "teacher"
    assert len(ids(tab)) == 24
    assert tab.locator(".mark").count() == 0
    tab.click(".more")
    tab.wait_for_url("**k=36")
    assert tab.locator(".k").input_value() == "36"
    assert tab.locator(".k option").all_inner_texts() == ["12", "24", "36", "48", "96"]
    settle(tab)
    assert len(ids(tab)) == COUNT - 1
    assert not tab.is_visible(".more")
    tab.click(".two")
    tab.wait_for_url("**mode=teacher,*")
    open_menu(tab)
    tab.select_option(".k", "12")
    tab.locator(".mode-of").nth(1).select_option("student")
    tab.wait_for_url("**mode=teacher,student&k=12")
    settle(tab)
    assert len(ids(tab)) == len(ids(tab, "second")) == 12


@on_a_phone
def test_filters_narrow_are_counted_and_are_cleared(open_tab, page_root: Path, look):
    tab = open_tab("?id=5&k=48", *look)
    settle(tab)
    every = ids(tab)
    tab.click(".filters summary")
    tab.fill(".prefix", "more/")
    tab.wait_for_url("**&prefix=more*")
    settle(tab)
    names = tab.eval_on_selector_all("#first .card", "cards => cards.map(card => card.dataset.name)")
    assert 0 < len(names) < len(every)
    assert all(name.startswith("more/") for name in names)
    tab.select_option(".column-value", "North")
    tab.wait_for_url("**&column.shop=North")
    settle(tab)
    fewer = ids(tab)
    assert 0 < len(fewer) < len(names)
    tab.focus("input.cut")
    for _ in range(18):
        tab.keyboard.press("ArrowRight")
    tab.wait_for_url("**&cut=0.9*")
    settle(tab)
    assert tab.inner_text(".cut-value") == "90% of the best"
    scores = [float(text) for text in tab.locator("#first .score").all_inner_texts()]
    assert 0 < len(scores) < len(fewer)
    assert min(scores) >= 0.9 * scores[0] - 0.001
    lengths = len(scores), len(ids(tab, "second"))
    assert tab.inner_text(".facts div:first-child dd").endswith(f" of {max(lengths)}")
    assert tab.inner_text(".filters summary") == "Filters: 3"

    again = open_tab(tab.url.split("/", 3)[3], *look)  # the address restores them
    settle(again)
    assert ids(again) == ids(tab)
    assert again.inner_text(".filters summary") == "Filters: 3"

    tab.fill(".prefix", "nowhere/")
    tab.wait_for_selector("#first .note")
    settle(tab)
    assert "No image has shop=North and a path that starts with 'nowhere/': " in tab.inner_text("#second")
    tab.click(".reset")
    tab.wait_for_function("!location.search.includes('prefix')")
    settle(tab)
    assert ids(tab) == every
    assert tab.inner_text(".filters summary") == "Filters"

    again.click(".clear")  # a new search begins without them
    again.locator(".example").first.click()
    settle(again)
    assert "prefix" not in again.url
    assert again.inner_text(".filters summary") == "Filters"


@at_a_desk
def test_each_filter_is_a_chip_that_takes_it_off(open_tab, look):
    tab = open_tab("?id=5&k=48&prefix=more/&column.shop=North&cut=0.9", *look)
    settle(tab)
    narrow = ids(tab)
    chips = tab.locator(".chips button")
    assert chips.all_inner_texts() == ["Name: more/… ✕", "At least 90% of the best ✕", "shop: North ✕"]
    chips.nth(1).click()
    tab.wait_for_function("!location.search.includes('cut')")
    settle(tab)
    assert chips.count() == 2
    assert set(narrow) < set(ids(tab))


@pytest.mark.parametrize("size", [(1440, 900), (740, 500), (360, 420)])
def test_no_panel_is_larger_than_the_window(open_tab, size):
    tab = open_tab("?id=6", size)
    settle(tab)
    for panel in (".filters", ".help"):
        if panel == ".help":
            open_menu(tab)
        tab.click(f"{panel} summary")
        tab.locator(f"{panel} .panel").scroll_into_view_if_needed()
        place = tab.locator(f"{panel} .panel").bounding_box()
        assert place["x"] >= 0
        assert place["x"] + place["width"] <= size[0]
        assert place["height"] < size[1]
        tab.keyboard.press("Escape")


@both_looks
def test_panels_fold_by_escape_and_by_a_click_elsewhere(open_tab, look):
    tab = open_tab("?id=6", *look)
    settle(tab)
    for leave in (lambda: tab.keyboard.press("Escape"), lambda: tab.click(".caption")):
        open_menu(tab)
        tab.click(".help summary")
        assert tab.is_visible(".help dl")
        leave()
        assert not tab.is_visible(".help dl")


def test_twins_light_up(open_tab):
    tab = open_tab("?id=6")
    settle(tab)
    twin = next(item for item in ids(tab) if item in ids(tab, "second"))
    tab.hover(f"#first .card[data-id='{twin}']")
    assert tab.locator(".card.lit").count() == 2
    tab.focus(f"#second .card[data-id='{twin}'] .hit")
    assert tab.locator(f".card.lit[data-id='{twin}']").count() == 2


def test_everything_works_by_keyboard(open_tab):
    tab = open_tab("?id=7")
    settle(tab)
    first, second = ids(tab), ids(tab, "second")
    tab.focus("#first .hit")
    tab.keyboard.press("ArrowRight")
    assert focused(tab) == ("0", str(first[1]))
    for _ in range(3):
        tab.keyboard.press("ArrowRight")
    assert focused(tab) == ("1", str(second[0]))
    tab.keyboard.press("ArrowDown")
    assert focused(tab) == ("1", str(second[4]))
    tab.keyboard.press("Space")
    tab.wait_for_selector(".large[open] .about h2")
    tab.focus(".large .previous")
    for _ in range(5):  # to the first one, where there is no previous one any more
        tab.keyboard.press("ArrowLeft")
    tab.wait_for_function(f"document.querySelector('.about').textContent.includes('Id{second[0]}')")
    assert tab.is_disabled(".large .previous")
    for _ in range(5):
        tab.keyboard.press("ArrowRight")
    tab.wait_for_function(f"document.querySelector('.about').textContent.includes('Id{second[5]}')")
    tab.wait_for_function("document.querySelector('.large img').naturalWidth === 96")  # the original
    tab.keyboard.press("Escape")
    tab.wait_for_selector(".large:not([open])", state="attached")
    assert focused(tab) == ("1", str(second[5]))
    digest = tab.locator("#second .card").nth(5).get_attribute("data-digest")
    tab.keyboard.press("Enter")
    tab.wait_for_url(f"**/?id={digest}&*")
    settle(tab)
    assert focused(tab)[0] == "1"


@at_a_desk
def test_the_large_view_searches_on(open_tab, look):
    tab = open_tab("?id=8", *look)
    settle(tab)
    digest = tab.locator("#first .card").first.get_attribute("data-digest")
    tab.locator("#first .open").first.click()
    tab.wait_for_selector(".large[open] .about h2")
    assert "Studentrank 1, similarity" in tab.text_content(".about")
    tab.click(".large .close")
    tab.wait_for_selector(".large:not([open])", state="attached")
    tab.locator("#first .open").first.click()
    tab.click(".use")
    tab.wait_for_url(f"**/?id={digest}&*")
    settle(tab)


def test_on_a_phone_the_figures_unfold_and_stay_so(open_tab):
    tab = open_tab("?id=8", size=PHONE)
    settle(tab)
    assert not tab.is_visible(".figures")
    tab.click(".chip")
    assert tab.is_visible(".figures")
    before = tab.url
    tab.locator("#first .hit").first.click()
    tab.wait_for_url(lambda url: url != before)
    settle(tab)
    assert tab.is_visible(".figures")


@on_a_phone
def test_results_are_saved_as_csv_and_json(open_tab, page_root: Path, look):
    tab = open_tab("", *look)
    upload(tab, page_root / "query.png")
    expected = [("student", item) for item in ids(tab)] + [("teacher", item) for item in ids(tab, "second")]
    open_menu(tab)
    with tab.expect_download() as saved:
        tab.click(".save[data-format=csv]")
    rows = list(csv.DictReader(StringIO(saved.value.path().read_text())))
    assert [(row["mode"], int(row["id"])) for row in rows] == expected
    with tab.expect_download() as saved:
        tab.click(".save[data-format=json]")
    answer = json.loads(saved.value.path().read_text())
    assert [(row["mode"], row["id"]) for row in answer["results"]] == expected
    assert answer["query"] == "query.png"


def test_a_search_has_a_link(open_tab, page_root: Path):
    tab = open_tab("?id=3")
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    settle(tab)
    tab.click(".copy")
    tab.wait_for_function("document.querySelector('.copy').textContent === 'Copied'")
    assert tab.evaluate("navigator.clipboard.readText()") == tab.url
    upload(tab, page_root / "query.png")
    tab.click(".copy")
    tab.wait_for_function("document.querySelector('.copy').textContent === 'Copied'")
    assert tab.evaluate("navigator.clipboard.readText()") == tab.url
    assert "has forgotten it" in tab.get_attribute(".search .copy", "title")


def test_the_help_of_the_api_names_this_server_and_is_copied(open_tab, page_site: str):
    tab = open_tab(size=PHONE)
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab.get_by_role("tab", name="API").click()
    tab.locator("#api .copy").first.click()
    tab.wait_for_function("document.querySelector('#api .copy').textContent === 'Copied'")
    assert tab.evaluate("navigator.clipboard.readText()") == f"curl '{page_site}/search?id=0&k=10&format=csv'"
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")

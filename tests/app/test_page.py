"""The page in a real browser: Debian's or any other Chromium. One server and one browser for all tests."""

import csv
import json
import re
import subprocess
import sys
import zlib
from base64 import b64encode
from io import BytesIO, StringIO
from pathlib import Path

import pytest
from conftest import CHROMIUM, picture, write_embedder
from PIL import Image

import app
from index.embedder import OnnxEmbedder
from index.pipeline import build_index

COUNT = 30
DESKTOP, PHONE = (1440, 900), (360, 740)
both_looks = pytest.mark.parametrize(
    "look", [(DESKTOP, "light"), (PHONE, "dark")], ids=["desk, light", "phone, dark"]
)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine (set CHROMIUM to its path)")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty pictures, their index with a student and a teacher, and photos to search with."""
    root = tmp_path_factory.mktemp("page")
    (root / "images" / "more").mkdir(parents=True)
    for i in range(COUNT):
        picture(i, 96, 72).save(root / "images" / ("more" if i % 3 else "") / f"{i:02}.png")
    student = OnnxEmbedder(write_embedder(root / "student.onnx", dim=8, seed=1))
    teacher = OnnxEmbedder(write_embedder(root / "teacher.onnx", dim=12, side=64, seed=2))
    build_index([root / "images"], student, root / "idx", teacher)
    picture(99, 160, 120).save(root / "query.png")
    return root


def start_server(index: Path, *options: str) -> tuple[subprocess.Popen, str]:
    command = [sys.executable, "-m", "app.cli", "serve", str(index), "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    return process, process.stdout.readline().strip()


@pytest.fixture(scope="module")
def site(root: Path):
    process, address = start_server(root / "idx", "--price", "1.5", "--max-upload-mb", "2")
    yield address
    process.terminate()
    process.wait(10)


@pytest.fixture
def open_tab(browser, site):
    """Opens tabs, and in the end finds that none has complained."""
    tabs = []

    def open_at(path: str = "", size: tuple[int, int] = DESKTOP, theme: str = "light"):
        tab = browser.new_page(viewport=dict(zip(("width", "height"), size, strict=True)), color_scheme=theme)
        tab.complaints = []
        tab.on("console", lambda said: tab.complaints.append(said.text) if said.type == "error" else None)
        tab.on("pageerror", lambda error: tab.complaints.append(str(error)))
        tab.goto(f"{site}/{path}")
        tab.wait_for_selector(".search .example", state="attached", timeout=30_000)
        tabs.append(tab)
        return tab

    yield open_at
    for tab in tabs:
        assert tab.complaints == []
        tab.close()


def settle(tab) -> None:
    """Wait until the last answer has been shown."""
    tab.wait_for_selector(".search:not([data-state=empty]):not([aria-busy])")


def ids(tab, column: str = "first") -> list[int]:
    return tab.eval_on_selector_all(f"#{column} .card", "cards => cards.map(card => Number(card.dataset.id))")


def upload(tab, path: Path) -> None:
    tab.set_input_files(".search .file", path)
    settle(tab)


def focused(tab) -> tuple[str, str]:
    """Column and id of the result that has the focus."""
    return tuple(
        tab.evaluate(
            "(card => [card.closest('.column').dataset.column, card.dataset.id])"
            "(document.activeElement.closest('.card'))"
        )
    )


# Queries


@both_looks
def test_a_photo_brings_both_columns_with_their_numbers(open_tab, root: Path, look):
    tab = open_tab("", *look)
    assert f"{COUNT} images" in tab.inner_text(".heading")
    upload(tab, root / "query.png")
    first, second = ids(tab), ids(tab, "second")
    assert len(set(first)) == len(set(second)) == 12
    assert tab.locator("#first .rank").all_inner_texts() == [str(rank) for rank in range(1, 13)]
    scores = [float(text) for text in tab.locator("#first .score").all_inner_texts()]
    assert scores == sorted(scores, reverse=True)
    assert tab.inner_text(".facts div:first-child dd") == f"{len(set(first) & set(second)) / 12:.0%}"
    numbers = tab.text_content(".numbers")
    for word in ("overlap@12", "RBO", "decode", "embed", "search", "32", "48", "1,500.00"):
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


@both_looks
def test_a_click_searches_on_and_the_address_follows(open_tab, root: Path, look):
    tab = open_tab("", *look)
    upload(tab, root / "query.png")
    assert "id=" not in tab.url
    item = ids(tab)[2]
    tab.locator("#first .hit").nth(2).click()
    tab.wait_for_url(f"**/?id={item}&mode=student,teacher&k=12")
    settle(tab)
    assert item not in ids(tab) + ids(tab, "second")
    tab.go_back()
    tab.wait_for_function("document.querySelector('.caption').textContent === 'query.png'")
    tab.go_forward()
    tab.wait_for_url(f"**/?id={item}*")
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


@pytest.mark.parametrize("kind", ["drop", "paste"])
@both_looks
def test_a_photo_is_dropped_or_pasted_anywhere(open_tab, root: Path, kind: str, look):
    tab = open_tab("", *look)
    data = b64encode((root / "query.png").read_bytes()).decode()
    if kind == "drop":
        tab.evaluate(DROP, ["dragenter", data])
        assert tab.is_visible(".over")
    tab.evaluate(DROP, [kind, data])
    settle(tab)
    assert not tab.is_visible(".over")
    assert len(ids(tab)) == 12
    assert tab.inner_text(".caption") == "mine.png"


@both_looks
def test_the_camera_takes_a_photo(open_tab, look):
    tab = open_tab("", *look)
    tab.click(".camera")
    tab.wait_for_function("document.querySelector('video').videoWidth > 0")
    tab.click(".shoot")
    settle(tab)
    assert len(ids(tab, "second")) == 12
    assert tab.evaluate("document.querySelector('video').srcObject") is None


def test_examples_are_searched_with_and_addresses_within_are_refused(open_tab, site: str):
    tab = open_tab()
    tab.locator(".example").nth(1).click()
    settle(tab)
    assert re.search(r"\?id=\d+", tab.url)
    tab.fill(".address", f"{site}/thumbs/0")
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

    again = open_tab(tab.url.split("/", 3)[3], *look)  # the address restores it
    settle(again)
    assert ids(again) == cut
    tab.click(".whole")
    tab.wait_for_function("!location.search.includes('box')")
    settle(tab)
    assert ids(tab) == whole


@both_looks
def test_the_box_and_the_turn_are_in_reach_of_the_keyboard(open_tab, look):
    tab = open_tab("?id=4", *look)
    settle(tab)
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
def test_every_way_to_search_alone_or_beside_another(open_tab, root: Path, look):
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
    tab.select_option(".k", "12")
    tab.locator(".mode-of").nth(1).select_option("student")
    tab.wait_for_url("**mode=teacher,student&k=12")
    settle(tab)
    assert len(ids(tab)) == len(ids(tab, "second")) == 12


@both_looks
def test_panels_fold_by_escape_and_by_a_click_elsewhere(open_tab, look):
    tab = open_tab("?id=6", *look)
    settle(tab)
    for leave in (lambda: tab.keyboard.press("Escape"), lambda: tab.click(".caption")):
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
    tab.keyboard.press("Enter")
    tab.wait_for_url(f"**/?id={second[5]}&*")
    settle(tab)
    assert focused(tab)[0] == "1"


@both_looks
def test_the_large_view_searches_on(open_tab, look):
    tab = open_tab("?id=8", *look)
    settle(tab)
    item = ids(tab)[0]
    tab.locator("#first .open").first.click()
    tab.wait_for_selector(".large[open] .about h2")
    assert "Studentrank 1, similarity" in tab.text_content(".about")
    tab.click(".large .close")
    tab.wait_for_selector(".large:not([open])", state="attached")
    tab.locator("#first .open").first.click()
    tab.click(".use")
    tab.wait_for_url(f"**/?id={item}&*")
    settle(tab)


def test_on_a_phone_the_figures_unfold_and_stay_so(open_tab):
    tab = open_tab("?id=8", size=PHONE)
    settle(tab)
    assert not tab.is_visible(".figures")
    tab.click(".sides summary")
    assert tab.is_visible(".figures")
    tab.locator("#first .hit").first.click()
    tab.wait_for_url(re.compile(r"id=(?!8&)"))
    settle(tab)
    assert tab.is_visible(".figures")


@both_looks
def test_results_are_saved_as_csv_and_json(open_tab, root: Path, look):
    tab = open_tab("", *look)
    upload(tab, root / "query.png")
    expected = [("student", item) for item in ids(tab)] + [("teacher", item) for item in ids(tab, "second")]
    with tab.expect_download() as saved:
        tab.click(".save[data-format=csv]")
    rows = list(csv.DictReader(StringIO(saved.value.path().read_text())))
    assert [(row["mode"], int(row["id"])) for row in rows] == expected
    with tab.expect_download() as saved:
        tab.click(".save[data-format=json]")
    answer = json.loads(saved.value.path().read_text())
    assert [(row["mode"], row["id"]) for row in answer["results"]] == expected
    assert answer["query"] == "query.png"


def test_only_a_search_with_an_address_has_a_link(open_tab, root: Path):
    tab = open_tab("?id=3")
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    settle(tab)
    tab.click(".copy")
    assert tab.inner_text(".copy") == "Copied"
    assert tab.evaluate("navigator.clipboard.readText()") == tab.url
    upload(tab, root / "query.png")
    assert tab.is_disabled(".search .copy")
    assert "has an address" in tab.get_attribute(".search .copy", "title")


def test_the_help_of_the_api_names_this_server_and_is_copied(open_tab, site: str):
    tab = open_tab(size=PHONE)
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab.get_by_role("tab", name="API").click()
    tab.locator("#api .copy").first.click()
    tab.wait_for_function("document.querySelector('#api .copy').textContent === 'Copied'")
    assert tab.evaluate("navigator.clipboard.readText()") == f"curl '{site}/search?id=0&k=10&format=csv'"
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


# What goes wrong


def huge_png() -> bytes:
    """A PNG that claims 300 megapixels."""
    small = BytesIO()
    Image.new("1", (8, 8)).save(small, "PNG")
    data = bytearray(small.getvalue())
    data[16:24] = (20_000).to_bytes(4, "big") + (15_000).to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("broken.jpg", b"\xff\xd8\xff\xe0 not really", "cannot be searched with"),
        ("paper.pdf", b"%PDF-1.7 a document", "not an image that can be read"),
        ("huge.png", huge_png(), "too large"),
    ],
    ids=["broken", "PDF", "huge"],
)
@both_looks
def test_a_bad_file_gets_a_friendly_line(
    open_tab, root: Path, tmp_path: Path, name, content, complaint, look
):
    (tmp_path / name).write_bytes(content)
    tab = open_tab("", *look)
    upload(tab, tmp_path / name)
    assert complaint in tab.inner_text(".complaint [class*=error]")
    assert not tab.is_visible(".columns")
    upload(tab, root / "query.png")  # and the page goes on working
    assert len(ids(tab)) == 12
    assert tab.inner_text(".complaint") == ""


def test_what_is_larger_than_the_server_takes_is_told(open_tab, tmp_path: Path):
    (tmp_path / "large.png").write_bytes(bytes(2_100_000))
    tab = open_tab("?id=2")
    settle(tab)
    upload(tab, tmp_path / "large.png")
    assert "larger than it takes" in tab.inner_text(".complaint")
    assert tab.complaints.pop().startswith("Failed to load resource")  # of the browser, not of the page


def test_a_server_that_starts_again_is_sent_the_photo_again_and_one_that_is_gone_is_told_of(
    browser, root: Path
):
    process, address = start_server(root / "idx")
    tab = browser.new_page()
    try:
        tab.goto(address)
        tab.wait_for_selector(".search .example")
        upload(tab, root / "query.png")
        process.terminate()
        process.wait(10)
        process, _ = start_server(root / "idx", "--port", address.rsplit(":", 1)[1])
        tab.click(".turn-right")
        settle(tab)
        assert len(ids(tab)) == 12
    finally:
        process.terminate()
        process.wait(10)
    tab.locator(".example").first.click()
    settle(tab)
    assert "the server cannot be reached." in tab.inner_text(".complaint")
    tab.close()


def test_a_camera_that_is_not_there_spoils_no_results(open_tab):
    tab = open_tab("?id=2")
    settle(tab)
    tab.evaluate("() => { navigator.mediaDevices.getUserMedia = () => Promise.reject(); }")
    tab.click(".camera")
    tab.wait_for_selector(".complaint .error")
    assert "camera cannot be used" in tab.inner_text(".complaint")
    assert len(ids(tab)) == 12
    assert tab.is_visible("#first")


@pytest.mark.parametrize(
    ("address", "complaint"),
    [("?id=9999", "no image 9999"), ("?id=x", "cannot be read"), ("?id=3&k=x&box=9,9,9,9", "no part of")],
)
def test_a_deep_link_to_nothing_says_so(open_tab, address: str, complaint: str):
    tab = open_tab(address)
    settle(tab)
    assert complaint in tab.inner_text(".complaint")
    tab.locator(".example").first.click()
    tab.wait_for_selector("#first .card")
    settle(tab)


@both_looks
def test_a_removed_image_says_so(open_tab, root: Path, look):
    tab = open_tab("?id=9", *look)
    settle(tab)
    file = next((root / "images").rglob(f"{tab.inner_text('.caption').rsplit('/')[-1]}"))
    aside = file.rename(root / "aside.png")
    try:
        gone = open_tab("?id=9", *look)
        settle(gone)
        assert "cannot be read any more" in gone.inner_text(".complaint")
    finally:
        aside.rename(file)


def test_without_a_teacher_the_page_says_why(browser, root: Path):
    build_index([root / "images"], OnnxEmbedder(root / "student.onnx"), root / "alone")
    process, address = start_server(root / "alone")
    try:
        tab = browser.new_page()
        tab.goto(f"{address}/?id=0")
        tab.wait_for_selector("#second .note")
        settle(tab)
        assert "made without a teacher" in tab.inner_text("#second")
        assert len(ids(tab)) == 12
    finally:
        process.terminate()
        process.wait(10)


def test_only_pictures_of_the_index_are_served(open_tab, root: Path, site: str):
    tab = open_tab()
    for path in ("thumbs/30", "thumbs/-1", "thumbs/..%2f..%2fquery.png", "images/%2e%2e/query.png"):
        assert tab.request.get(f"{site}/{path}").status in (404, 422)
    for path in (root / "query.png", root / "images" / "00.png"):
        for route in ("file=", "gradio_api/file="):
            assert tab.request.get(f"{site}/{route}{path}").status in (403, 404)


# Looks


@pytest.mark.parametrize("name", ["page.css", "tabs.css"])
def test_no_style_is_lost_on_the_way(browser, name: str):
    """Gradio sends what the browser makes of each rule.

    Of a border with a variable, one side of which is set again, that is nothing.
    """
    tab = browser.new_page()
    lost = tab.evaluate(
        "text => { const sheet = new CSSStyleSheet(); sheet.replaceSync(text);"
        "return [...sheet.cssRules].map(rule => rule.cssText).filter(text => text.includes(': ;')); }",
        Path(app.__file__).with_name(name).read_text(),
    )
    tab.close()
    assert lost == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits_every_width(open_tab, theme: str):
    tab = open_tab("?id=10", theme=theme)
    settle(tab)
    for width in (1920, 1440, 1280, 1100, 1024, 900, 768, 641, 480, 360):
        tab.set_viewport_size({"width": width, "height": 800})
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
        for part in (".sides", ".figures", ".bar-of-tools", ".facts", ".ask"):
            assert tab.eval_on_selector(part, "each => each.scrollWidth <= each.clientWidth"), (part, width)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, (768, 1024), DESKTOP])
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


@pytest.mark.parametrize(
    ("size", "theme"),
    [
        (DESKTOP, "light"),
        (PHONE, "dark"),
        pytest.param(DESKTOP, "dark", marks=pytest.mark.slow),
        pytest.param(PHONE, "light", marks=pytest.mark.slow),
    ],
)
def test_axe_finds_nothing_serious(open_tab, size, theme: str):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()

    def serious(tab) -> list[str]:
        found = axe.run(tab).response["violations"]
        return [
            f"{each['id']}: {each['nodes'][0]['target']}"
            for each in found
            if each["impact"] in ("serious", "critical")
        ]

    tab = open_tab(size=size, theme=theme)
    assert serious(tab) == []
    tab.locator(".example").first.click()
    settle(tab)
    assert serious(tab) == []
    tab.locator("#first .open").first.click()
    tab.wait_for_selector(".large[open] .about h2")
    assert serious(tab) == []

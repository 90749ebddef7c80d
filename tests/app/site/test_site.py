"""A site in a real browser, from a plain file server."""

import gzip
import json
import math
import shutil
import socket
from base64 import b64encode
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import picture, write_embedder
from odd_images import encoded
from onnx import helper, numpy_helper
from page_tools import needs_chromium
from PIL import Image, ImageCms

from app.site import runtime
from app.site.build import SiteOptions, build_site_by_name
from distill.model.codes import append_codes
from index.build.pipeline import build_by_name, build_index
from index.embedders.base import embed_many
from index.embedders.onnx import OnnxEmbedder
from index.images.decode import decode, square
from index.search import open_searcher
from index.stores.options import IndexOptions
from index.stores.writing.store import FolderStore
from index.teachers.spec import TeacherSpec

pytestmark = needs_chromium
SHOWN = ".search[data-state=found]:not([aria-busy]) .card"
SHOWN_NAMES = "[...document.querySelectorAll('.card .name')].map(name => name.title).join()"
HERE = Path(__file__).parents[3]


def until(tab: Any, expression: str, arg: Any = None) -> None:
    """Wait for a condition. Playwright's own waiting evaluates later, when the page's policy forbids it."""
    for _ in range(600):
        if tab.evaluate(expression, arg):
            return
        tab.wait_for_timeout(50)
    raise AssertionError(f"never came true: {expression}")


def names(tab) -> list[str]:
    return tab.eval_on_selector_all(".card .name", "names => names.map(name => name.title)")


def choose(tab, path: Path) -> list[str]:
    tab.set_input_files(".file:not(.shot)", path)
    tab.wait_for_selector(SHOWN)
    return names(tab)


def server_names(page_root: Path, photo: Image.Image, k: int = 24, **filters) -> list[str]:
    """What the index finds itself."""
    searcher = open_searcher(page_root / "idx", with_teacher=False)
    student = searcher.models["student"]
    found = searcher.search(
        student.embed([square(photo.convert("RGB"), student.side, student.crop)]), "student", k, **filters
    )
    return [searcher.index.items[item].name for item, _ in found.hits()]


# Pixels


def wide_gamut() -> bytes:
    """A JPEG whose profile has red and green in each other's place, which nobody could overlook."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    data = bytearray(profile.tobytes())
    red, green = data.index(b"rXYZ", 128), data.index(b"gXYZ", 128)
    data[red : red + 4], data[green : green + 4] = b"gXYZ", b"rXYZ"
    return encoded("JPEG", quality=95, icc_profile=bytes(data))


def see_through(kind: str, **options) -> bytes:
    image = picture(1, 200, 120).convert("RGBA")
    image.putalpha(picture(2, 200, 120).convert("L"))
    return encoded(kind, image, **options)


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x112] = orientation
    return encoded("JPEG", exif=exif)


PHOTOS = {
    "png": (encoded("PNG"), 0),
    "small png": (encoded("PNG", picture(3, 40, 30)), 0),
    "jpeg": (encoded("JPEG", quality=90), 1),
    "grey jpeg": (encoded("JPEG", picture(4, 200, 120).convert("L")), 1),
    "webp": (encoded("WEBP", quality=80), 2),
    "gif": (encoded("GIF"), 1),
    "bmp": (encoded("BMP"), 0),
    "avif": (encoded("AVIF", quality=80), 3),
    "transparent png": (see_through("PNG"), 1),
    "transparent webp": (see_through("WEBP", lossless=True), 3),
    "profile": (wide_gamut(), 4),
    **{f"orientation {i}": (turned(i), 1) for i in range(1, 9)},
    "large jpeg": (encoded("JPEG", picture(5, 1501, 1101)), 0),
    "large png": (encoded("PNG", picture(5, 1501, 1101)), 0),
}


@pytest.mark.parametrize("reduced", [False, True], ids=["", "reduced"])
def test_pixels_are_those_of_the_server(blank, reduced):
    """What the student is shown, of whatever both read: above, the largest difference of 255 levels."""
    address = blank.url.removesuffix("site.html")
    worst = {}
    for name, (data, most) in PHOTOS.items():
        found = blank.evaluate(
            "async ([address, text, reduced]) => { const {decode, prepare} = await import(address);"
            "const photo = new Blob([Uint8Array.from(atob(text), letter => letter.charCodeAt(0))]);"
            "const how = {side: 32, crop: 0.875, reduced};"
            "return [...prepare(await decode(photo, how), how)]; }",
            [address + "decode.js", b64encode(data).decode(), reduced],
        )
        image = decode(data, name, 37 if reduced else 4 * 32).image
        wanted = square(image, 32, 0.875, reduced).astype(int)
        difference = np.abs(np.reshape(found, wanted.shape) - wanted).max()
        if difference > most:
            worst[name] = difference
    assert worst == {}


def test_a_part_is_what_is_cut_out(blank):
    address = blank.url.removesuffix("site.html")
    photo = picture(7, 200, 120)
    for turn, box in ((0, [0.25, 0.1, 0.75, 0.9]), (1, [0, 0, 0.5, 1]), (3, [0.1, 0.2, 0.9, 0.95])):
        found = blank.evaluate(
            "async ([address, text, turn, box]) => { const {decode, prepare} = await import(address);"
            "const photo = new Blob([Uint8Array.from(atob(text), letter => letter.charCodeAt(0))]);"
            "const how = {side: 32, crop: 1};"
            "return [...prepare(await decode(photo, how, true), how, turn, box)]; }",
            [address + "decode.js", b64encode(encoded("PNG", photo)).decode(), turn, box],
        )
        image = photo.rotate(-90 * turn, expand=True)
        edges = [share * side for share, side in zip(box, image.size * 2, strict=True)]
        pixels = [*map(math.floor, edges[:2]), *map(math.ceil, edges[2:])]
        wanted = square(image.crop(pixels), 32).astype(int)
        assert np.abs(np.reshape(found, wanted.shape) - wanted).max() <= 1


# The page


def test_a_photo_finds_what_the_server_finds_and_nothing_is_sent(host, tab, built, page_root):
    served = host(built)
    tab.goto(served.address)
    assert choose(tab, page_root / "query.png") == server_names(
        page_root, Image.open(page_root / "query.png")
    )
    assert tab.inner_text(".size") == "30 photos"
    tab.click(".more")
    until(tab, "document.querySelectorAll('.card').length === 30")
    assert tab.evaluate("document.activeElement.closest('.card').querySelector('.rank').textContent") == "25"
    tab.click(".card:first-child .hit")
    tab.wait_for_selector(".large[open]")
    assert tab.inner_text(".about h2")
    assert {method for method, _ in served.asked} == {"GET"}
    assert tab.complaints == []


def test_pictures_of_results_are_drawn_and_let_go(host, tab, built, page_root):
    """Of images, Chromium keeps the pixels of the last thousand."""
    tab.goto(host(built).address)
    choose(tab, page_root / "query.png")
    drawn = (
        "pictures.every(canvas => { const copy = new OffscreenCanvas(1, 1).getContext('2d');"
        "copy.drawImage(canvas, 0, 0); return canvas.width > 1 && copy.getImageData(0, 0, 1, 1).data[3]; })"
    )
    tab.evaluate("() => { window.pictures = [...document.querySelectorAll('.card canvas')]; }")
    assert tab.evaluate("pictures.length") == 24
    tab.mouse.wheel(0, 10_000)
    until(tab, drawn)
    tab.click(".filters summary")
    tab.select_option(".column-value", "North")
    until(tab, "document.querySelectorAll('.card').length === 15")
    shown, gone = tab.evaluate(
        "() => [true, false].map(on => pictures.filter(each => each.isConnected === on))"
        ".map(some => some.map(each => each.width))"
    )
    assert (len(shown) > 9, min(shown) > 1, {*gone}) == (True, True, {1})


def test_pictures_far_below_come_when_they_are_scrolled_to(host, tab, built, page_root):
    tab.set_viewport_size({"width": 360, "height": 740})
    tab.goto(host(built).address)
    choose(tab, page_root / "query.png")
    drawn = "[...document.querySelectorAll('.card canvas')].map(canvas => canvas.width > 1)"
    until(tab, f"{drawn}[0] && {drawn}[3]")
    assert not tab.evaluate(f"{drawn}[23]")
    tab.mouse.wheel(0, 10_000)
    until(tab, f"{drawn}[23]")


def test_a_picture_that_fails_comes_once_the_network_is_back(host, tab, built, page_root):
    tab.route("**/*.s.webp", lambda route: route.abort())
    tab.goto(host(built).address)
    choose(tab, page_root / "query.png")
    drawn = "[...document.querySelectorAll('.card canvas')].slice(0, 8).map(canvas => canvas.width > 1)"
    tab.wait_for_timeout(300)
    assert tab.evaluate(drawn) == 8 * [False]
    tab.unroute("**/*.s.webp")
    tab.evaluate("dispatchEvent(new Event('online'))")
    until(tab, f"{drawn}.every(Boolean)")
    tab.complaints.clear()  # of the browser, about the network


def test_the_large_view_shows_a_small_picture_until_the_large_one_is_there(host, tab, built, page_root):
    held: list[Any] = []

    def hold(route: Any) -> None:
        held.append(route)

    tab.route("**/*.l.webp", hold)
    tab.goto(host(built).address)
    choose(tab, page_root / "query.png")
    tab.locator(".hit").first.click()
    until(tab, "document.querySelector('.large img').src.endsWith('.s.webp')")
    small = tab.get_attribute(".large img", "src")
    tab.click(".large .next")
    until(tab, "small => document.querySelector('.large img').src !== small", small)
    while len(held) < 2:
        tab.wait_for_timeout(20)
    for route in held:  # that of the first result comes too late
        route.continue_()
    until(tab, "document.querySelector('.large img').src.endsWith('.l.webp')")
    assert tab.get_attribute(".large img", "src") == held[-1].request.url != held[0].request.url


def free_port(low: int, high: int) -> int:
    """A port that nothing listens on."""
    for port in range(low, high):
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)):
                return port
    raise AssertionError("every port is taken")


def test_pictures_of_a_host_with_a_longer_name_are_images(host, tab, page_root, tmp_path):
    site = tmp_path / "site"
    served = host(tmp_path, port=free_port(2000, 6500))
    pictures = served.address.rstrip("/") + "0/{name}"  # another port, which begins like this one
    build_site_by_name(page_root / "idx", site, SiteOptions(pictures=pictures))
    tab.goto(served.address + "site/")
    choose(tab, page_root / "query.png")
    assert tab.locator(".card canvas").count() == 0
    assert tab.get_attribute(".card img >> nth=0", "src").startswith(served.address.rstrip("/") + "0/")


def test_a_network_of_convolutions_comes_without_a_runtime(host, tab, page_root, tmp_path, monkeypatch):
    """Which npm would fetch, and is not asked to."""
    monkeypatch.setattr(runtime.shutil, "which", lambda name: None)
    monkeypatch.setattr(runtime, "user_cache_path", lambda name: tmp_path / "cache")
    file, index, site = write_embedder(tmp_path / "student.onnx"), tmp_path / "idx", tmp_path / "site"
    model = onnx.load(file)
    weights = np.full((3, 1, 8, 8), 1 / 64, np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weights, "mean"))
    pool = next(node for node in model.graph.node if node.op_type == "AveragePool")
    convolution = helper.make_node("Conv", [pool.input[0], "mean"], pool.output, group=3, strides=[8, 8])
    pool.CopyFrom(convolution)
    file.write_bytes(model.SerializeToString())
    (images := tmp_path / "images").mkdir()
    for i in range(12):
        picture(i).save(images / f"{i:02}.png")
    build_by_name([images], file, FolderStore(index), TeacherSpec(), "cpu", IndexOptions())
    build_site_by_name(index, site, SiteOptions())
    assert json.loads((site / "manifest.json").read_text())["files"].keys() == {"student", "worker"}
    tab.goto(host(site).address)
    found = choose(tab, page_root / "query.png")
    searcher = open_searcher(index, with_teacher=False)
    query = searcher.models["student"].embed([square(picture(99, 160, 120), 32)])
    wanted = searcher.search(query, "student", 12)
    assert found == [searcher.index.items[item].name for item, _ in wanted.hits()]
    assert tab.complaints == []


def test_a_photo_can_be_dropped_and_pasted(host, tab, built, page_root):
    tab.goto(host(built).address)
    tab.wait_for_selector(".example")
    give = (
        "([kind, text]) => { const data = new DataTransfer();"
        "const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));"
        "data.items.add(new File([bytes], 'a.png', {type: 'image/png'}));"
        "const event = kind === 'paste' ? new ClipboardEvent('paste', {clipboardData: data, bubbles: true})"
        ": new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true});"
        "document.querySelector('.search').dispatchEvent(event); }"
    )
    for kind, seed in (("drop", 61), ("paste", 62)):
        tab.evaluate(give, [kind, b64encode(encoded("PNG", picture(seed))).decode()])
        first = server_names(page_root, picture(seed))[0]
        until(tab, "first => document.querySelector('.card .name')?.title === first", arg=first)


def test_a_value_that_holds_the_separator_is_found(host, tab, ort, folder, student_file, tmp_path):
    rows = "".join(f"{i}.png,{'Sneakers; white' if i % 2 else 'Sneakers'}\n" for i in range(4))
    (tmp_path / "t.csv").write_text(f"path,kind\n{rows}")
    options = IndexOptions(metadata=tmp_path / "t.csv")
    build_index([folder], OnnxEmbedder(student_file), tmp_path / "idx", options=options)
    build_site_by_name(tmp_path / "idx", tmp_path / "site", SiteOptions())
    tab.goto(host(tmp_path / "site").address)
    choose(tab, folder / "0.png")
    tab.click(".filters summary")
    tab.select_option(".column-value", "Sneakers; white")
    until(tab, "document.querySelectorAll('.card').length === 2")
    assert sorted(names(tab)) == ["1.png", "3.png"]


def test_filters_a_link_and_the_teacher(host, tab, built, page_root):
    served = host(built)
    tab.goto(served.address)
    choose(tab, page_root / "query.png")
    tab.click(".filters summary")
    tab.select_option(".column-value", "North")
    until(tab, "document.querySelectorAll('.card').length === 15")
    assert all(int(name[-6:-4]) % 2 for name in names(tab))
    tab.fill(".prefix", "nowhere/")
    until(tab, "document.querySelectorAll('.card').length === 0")
    assert "No results with these filters" in tab.inner_text(".summary")
    tab.click(".reset")
    until(tab, "document.querySelectorAll('.card').length === 24")
    tab.click(".filters summary")
    tab.click(".card:nth-child(2) .hit")
    looked = tab.inner_text(".about h2")
    tab.evaluate("() => { const chosen = document.querySelector('.column-value'); chosen.value = 'South';"
                 "chosen.dispatchEvent(new Event('input', {bubbles: true})); }")  # fmt: skip
    until(tab, "document.querySelectorAll('.card').length === 15")
    tab.click(".use")
    until(tab, "location.hash.length === 33")
    assert tab.inner_text(".caption") == looked
    tab.evaluate("document.querySelector('.reset').click()")
    until(tab, "document.querySelectorAll('.card').length === 24")
    link = tab.url
    tab.focus(".skip")
    tab.keyboard.press("Enter")
    assert (tab.url, tab.evaluate("document.activeElement.id")) == (link, "results")
    searcher = open_searcher(page_root / "idx", with_teacher=False)
    (item,) = searcher.index.ids_by_digest[tab.url[-32:]]
    ours, teachers = (
        searcher.search_items([item], mode, 10).ids[0].tolist() for mode in ("student", "teacher")
    )
    found = [searcher.index.items[i].name for i in ours]
    assert names(tab)[:10] == found
    both = len(set(ours) & set(teachers))
    assert f"{both} of the first 10 are the teacher's, too" in tab.inner_text(".summary")
    again = tab.context.new_page()
    again.goto(tab.url)
    again.wait_for_selector(SHOWN)
    assert names(again)[:10] == found
    again.goto(served.address + "#" + "0" * 32)  # in the open page
    again.wait_for_selector(".complaint .note")
    assert "no longer in the gallery" in again.inner_text(".complaint")
    again.goto(tab.url)
    until(again, "!document.querySelector('.complaint .note')")
    assert names(again)[:10] == found


def test_the_keyboard_is_enough(host, tab, built, page_root):
    tab.goto(host(built).address)
    choose(tab, page_root / "query.png")
    tab.focus(".card:first-child .hit")
    rank = "document.activeElement.closest('.card')?.querySelector('.rank').textContent"
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowRight")
    assert tab.evaluate(rank) == "3"
    tab.keyboard.press("o")
    tab.wait_for_selector(".large[open]")
    before = tab.inner_text(".about h2")
    tab.keyboard.press("ArrowRight")
    assert tab.inner_text(".about h2") != before
    tab.keyboard.press("Escape")
    tab.wait_for_selector(".large", state="hidden")
    for _ in range(100):  # the focus comes back after the view has gone
        if tab.evaluate(rank) == "4":
            break
        tab.wait_for_timeout(20)
    assert tab.evaluate(rank) == "4"


def test_a_part_of_the_photo_is_searched_with_while_it_is_drawn(host, tab, built, page_root):
    tab.goto(host(built).address)
    whole = choose(tab, page_root / "query.png")
    until(tab, "document.querySelector('.frame canvas').width === 160")
    box = tab.locator(".frame").bounding_box()
    tab.mouse.move(box["x"] + 30, box["y"] + 20)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 90, box["y"] + 80, steps=4)
    until(tab, f"whole => {SHOWN_NAMES} !== whole", arg=",".join(whole))
    tab.mouse.up()
    tab.click(".whole")
    until(tab, f"whole => {SHOWN_NAMES} === whole", arg=",".join(whole))


def test_a_phone_has_no_sideways_scroll_and_large_targets(host, tab, built, page_root):
    tab.set_viewport_size({"width": 360, "height": 740})
    tab.goto(host(built).address)
    choose(tab, page_root / "query.png")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    assert tab.locator(".card:first-child").bounding_box()["y"] < 340
    small = tab.eval_on_selector_all(
        "button, summary, .button", "all => all.filter(each => each.offsetParent && each.offsetHeight < 44)"
        ".map(each => each.outerHTML.slice(0, 80))"
    )  # fmt: skip
    assert small == []


# Who may ask for what


def test_the_policy_lets_the_page_and_its_worker_ask_its_own_host_alone(host, tab, built, tmp_path):
    served, other = host(built), host(tmp_path, open_to_all=True)
    tab.goto(served.address)
    tab.wait_for_selector(".example")
    asked = tab.evaluate(
        "async address => { const ask = `.then(() => 'sent', () => 'refused')`;"
        "const code = `fetch('${address}worker')${ask}.then(postMessage)`;"
        "const worker = new Worker(URL.createObjectURL(new Blob([code], {type: 'text/javascript'})));"
        "const inside = new Promise(done => { worker.onmessage = event => done(event.data); });"
        "new Image().src = address + 'picture'; navigator.sendBeacon(address + 'beacon', 'x');"
        "const page = fetch(address + 'page', {mode: 'no-cors'}).then(() => 'sent', () => 'refused');"
        "return [await page, await inside]; }",
        other.address,
    )
    assert asked == ["refused", "refused"]
    tab.wait_for_timeout(300)
    assert other.asked == []


@pytest.mark.slow
def test_it_works_offline_after_the_first_visit(host, tab, built, page_root):
    served = host(built)
    tab.goto(served.address)
    online = choose(tab, page_root / "query.png")
    until(
        tab,
        "async () => { const cache = await caches.open('retrieval-site');"
        "const {scripts} = await (await fetch('manifest.json')).json();"
        "const kept = (await cache.keys()).map(({url}) => url);"
        "const at = name => new URL(name, location.href).href;"
        "return [location.pathname, ...scripts].every(name => kept.includes(at(name))); }",
    )
    served.server.shutdown()
    served.server.server_close()
    for rest in (1000, 0):  # what is forgotten after the first is missing from the second
        tab.reload()
        assert choose(tab, page_root / "query.png") == online
        tab.wait_for_timeout(rest)


# What can go wrong


def test_a_part_that_is_missing_is_said_and_the_rest_works(host, tab, built, page_root, tmp_path):
    site = shutil.copytree(built, tmp_path / "site")
    manifest = json.loads((site / "manifest.json").read_text())
    manifest["shards"].append({"count": 12, "rows": "data/gone.bin", "facts": "data/gone.bin"})
    manifest["count"] += 12
    (site / "manifest.json").write_text(json.dumps(manifest))
    tab.goto(host(site).address)
    assert choose(tab, page_root / "query.png") == server_names(
        page_root, Image.open(page_root / "query.png")
    )
    assert "12 of 42 photos are not searched" in tab.inner_text(".complaint")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("delete globalThis.WebAssembly", "runs no WebAssembly"),
        ("delete globalThis.DecompressionStream", "runs no WebAssembly"),
    ],
)
def test_a_browser_that_cannot_is_told_so(host, tab, built, page_root, tmp_path, script, said):
    site = shutil.copytree(built, tmp_path / "site")
    manifest = json.loads((site / "manifest.json").read_text())
    worker = site / manifest["files"]["worker"]
    worker.write_text(f"{script};\n{worker.read_text()}")
    tab.goto(host(site).address)
    tab.wait_for_selector(".complaint .note", timeout=20_000)
    assert said in tab.inner_text(".complaint")


def test_a_script_that_is_missing_is_said(host, tab, built, page_root, tmp_path):
    site = shutil.copytree(built, tmp_path / "site")
    (site / json.loads((site / "manifest.json").read_text())["files"]["worker"]).unlink()
    tab.goto(host(site).address)
    tab.set_input_files(".file:not(.shot)", page_root / "query.png")
    tab.wait_for_selector(".complaint .error")
    assert "cannot be run. Reload the page." in tab.inner_text(".complaint")


def test_storage_that_is_full_or_forbidden_is_said(host, tab, built, page_root, tmp_path):
    site = shutil.copytree(built, tmp_path / "site")
    for file in (site / "data").glob("*.js"):
        if "cache.put(url" in (text := file.read_text()):
            file.write_text(
                "Cache.prototype.put = () => Promise.reject(new DOMException('QuotaExceededError'));\n" + text
            )
    tab.goto(host(site).address)
    assert choose(tab, page_root / "query.png")
    tab.wait_for_selector(".complaint .note")
    assert "storage is full or forbidden" in tab.inner_text(".complaint")


def test_what_is_no_photo_is_one_line(host, tab, built, page_root, tmp_path):
    (tmp_path / "a.tif").write_bytes(encoded("TIFF"))
    tab.goto(host(built).address)
    choose(tab, page_root / "query.png")
    tab.set_input_files(".file:not(.shot)", tmp_path / "a.tif")
    tab.wait_for_selector(".complaint .error")
    assert "Browsers read JPEG, PNG, WebP, AVIF, GIF and BMP" in tab.inner_text(".complaint")
    assert tab.inner_text(".caption") == "query.png"  # whose results are on show, and can be narrowed
    tab.click(".filters summary")
    tab.select_option(".column-value", "North")
    until(tab, "document.querySelectorAll('.card').length === 15")
    assert not tab.inner_text(".complaint")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_hundred_megapixels_on_a_phone(host, browser, built, page_root, tmp_path, kind):
    """A JPEG is decoded smaller, as on the server; another kind is searched with, or refused in one line."""
    small = picture(5, 500, 500)
    small.resize((10_000, 10_000), Image.Resampling.NEAREST).save(file := tmp_path / f"photo.{kind.lower()}")
    context = browser.new_context(viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
    tab = context.new_page()
    tab.goto(host(built).address)
    tab.set_input_files(".file:not(.shot)", file)
    tab.wait_for_selector(f"{SHOWN}, .complaint .error", timeout=120_000)
    found = names(tab)
    if kind == "JPEG" or found:
        assert found[:5] == server_names(page_root, small)[:5]
    else:
        assert "send a smaller copy" in tab.inner_text(".complaint")
    tab.set_input_files(".file:not(.shot)", page_root / "query.png")  # the tab has room for the next
    until(tab, "document.querySelector('.caption').textContent === 'query.png'")
    tab.wait_for_selector(SHOWN)
    assert names(tab) == server_names(page_root, Image.open(page_root / "query.png"))
    context.close()


@pytest.mark.slow
def test_a_page_from_a_disk_says_what_to_do(tab, built):
    tab.goto(f"file://{built}/index.html")
    tab.wait_for_selector(".stalled", state="visible", timeout=15_000)
    assert "python -m http.server" in tab.inner_text(".stalled")


# The module


def test_the_example_runs_from_another_site(host, tab, built, page_root):
    gallery, shop = host(built, open_to_all=True), host(HERE / "examples" / "site-html")
    tab.goto(f"{shop.address}?gallery={gallery.address}")
    tab.set_input_files("input", page_root / "query.png")
    tab.wait_for_selector("#hits img")
    found = tab.eval_on_selector_all("#hits img", "images => images.map(image => image.alt)")
    assert found == server_names(page_root, picture(99, 160, 120), 10)
    assert tab.complaints == []


def index_eighty(folder: Path, options: IndexOptions) -> Path:
    """Index eighty pictures, by a student with codes of 40 bits."""
    (images := folder / "images").mkdir()
    for i in range(80):
        picture(i).save(images / f"{i:02}.png")
    file = write_embedder(folder / "student.onnx", dim=48)
    pixels = np.stack([square(picture(i), 32) for i in range(80)])
    append_codes(file, embed_many(OnnxEmbedder(file), list(pixels)), 40, pixels[:4])
    build_by_name([images], file, FolderStore(folder / "idx"), TeacherSpec(), "cpu", options)
    picture(99).save(folder / "query.png")
    return folder / "idx"


@pytest.mark.slow
@pytest.mark.parametrize("codes", [0, 40])
def test_a_large_gallery_is_searched_list_by_list(ort, host, tab, tmp_path, small_lists, codes):
    index, site = index_eighty(tmp_path, IndexOptions(codes=codes)), tmp_path / "site"
    build_site_by_name(index, site, SiteOptions())
    manifest = json.loads((site / "manifest.json").read_text())
    few = manifest["lists"]["visits"] = 3
    (site / "manifest.json").write_text(json.dumps(manifest))
    served = host(site)
    tab.goto(served.address)
    some = choose(tab, tmp_path / "query.png")
    assert len({path for _, path in served.asked if path.endswith("-0.bin")}) == few
    assert "photos nearest to yours" in tab.inner_text(".summary")
    assert not tab.locator(".prefix").count()
    (item,) = (path for path in (tmp_path / "images").iterdir() if path.name == some[1])
    tab.click(".card:nth-child(2) .hit")
    tab.click(".use")
    until(tab, "location.hash.includes('.')")
    again = tab.context.new_page()
    again.goto(tab.url)
    again.wait_for_selector(SHOWN)
    assert item.name not in names(again)
    for link in [tab.url.split(".")[-1]] if codes else [tab.url.split(".")[-1], "99", "x"]:
        again.goto(f"{served.address}#{'0' * 32}.{link}")
        again.reload()
        again.wait_for_selector(".complaint .note")
        assert "no longer in the gallery" in again.inner_text(".complaint")
    manifest["lists"]["visits"] = len(read_table(site, manifest))
    (site / "manifest.json").write_text(json.dumps(manifest))
    tab.goto(served.address)
    choose(tab, tmp_path / "query.png")
    shown = [float(text) for text in tab.locator(".score").all_inner_texts()]
    searcher = open_searcher(index, with_teacher=False)
    query = searcher.models["student"].embed([square(picture(99), 32)])
    found = searcher.search(query, "student", 24)
    assert np.allclose(shown, found.scores[0], atol=0.0031)


def read_table(site: Path, manifest: dict) -> list[tuple[int, str]]:
    return json.loads(gzip.decompress((site / manifest["lists"]["table"]).read_bytes()))


@pytest.mark.slow
def test_a_list_that_is_missing_is_said_and_the_rest_works(ort, host, tab, tmp_path, small_lists):
    index, site = index_eighty(tmp_path, IndexOptions()), tmp_path / "site"
    build_site_by_name(index, site, SiteOptions())
    manifest = json.loads((site / "manifest.json").read_text())
    table = read_table(site, manifest)
    manifest["lists"]["visits"] = len(table)
    (site / "manifest.json").write_text(json.dumps(manifest))
    (site / f"{table[2][1]}-0.bin").unlink()
    served = host(site)
    tab.goto(served.address)
    assert choose(tab, tmp_path / "query.png")
    assert f"{table[2][0]} of 80 photos are not searched" in tab.inner_text(".complaint")
    for file in site.glob("data/*-0.bin"):
        file.unlink()
    again = tab.context.browser.new_context().new_page()
    again.goto(served.address)
    again.set_input_files(".file:not(.shot)", tmp_path / "query.png")
    again.wait_for_selector(".complaint .error")
    assert "try again when online" in again.inner_text(".complaint")


@pytest.mark.parametrize("rescore", [0, 40])  # of twenty the last would be one of several at one distance
def test_codes_are_searched_as_the_server_searches_them(ort, host, tab, tmp_path, rescore):
    index, photo = index_eighty(tmp_path, IndexOptions(codes=40, rescore=rescore)), picture(99)
    build_site_by_name(index, tmp_path / "site", SiteOptions())
    tab.goto(host(tmp_path / "site").address)
    choose(tab, tmp_path / "query.png")
    shown = [float(text) for text in tab.locator(".score").all_inner_texts()]
    searcher = open_searcher(index, with_teacher=False)
    query = searcher.models["student"].embed([square(photo, 32)])
    found = searcher.search(query, "student", 24)
    assert np.allclose(shown, found.scores[0], atol=0.0011)

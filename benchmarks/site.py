"""Measure a site in headless Chromium: parity with the server, bytes, seconds, memory.

    python benchmarks/site.py idx --queries queries.csv --labels gallery.csv

The index is one of the photos of the labels. Prints the table of docs/browser.md.
"""

import argparse
import csv
import gzip
import json
import math
from base64 import b64encode
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, time
from typing import Any
from urllib.request import urlopen

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright
from site_host import FOUND, OPEN, Counting, megabytes, open_browser, processes, row, serve

from app.site.build import SiteOptions, build_site_by_name
from app.site.gallery import pack_rows
from app.site.scripts import HERE as SITE
from index.embedders.onnx import OnnxEmbedder
from index.evaluation.metrics import overlap_at_k, rank
from index.images.decode import decode, encode
from index.search import open_searcher

MEDIAN = "times.sort((a, b) => a - b)[times.length >> 1]"
SCANS = {
    "codes of 128 bits": "{dim: 16, bits: 128, rescore: 100}",
    "rows of 256 numbers": "{dim: 256, bits: 0}",
}
VISITS = 7
PHOTO_FORMATS: dict[str, dict[str, Any]] = {"PNG": {}, "WEBP": {"quality": 85}, "AVIF": {"quality": 75}}
# Notes when the frame with the first results was drawn. Playwright hears of it up to half a second later: it
# hears of the requests for pictures first
SEE_RESULTS = """addEventListener('DOMContentLoaded', () => {
  const search = document.querySelector('.search');
  const seen = () => { window.drawnAt ??= performance.timeOrigin + performance.now(); };
  new MutationObserver(() => {
    if (search.dataset.state === 'found') requestAnimationFrame(() => setTimeout(seen));
  }).observe(search, {attributes: true});
});"""
SEARCHES = 60  # one after the other in one tab
TO_BLOB = "const photo = new Blob([Uint8Array.from(atob(text), letter => letter.charCodeAt(0))]);"


def ask(tab: Any, data: bytes) -> tuple[list[str], np.ndarray]:
    """The names of all photos as the browser ranks them for a query, and its vector."""
    hits, vector = tab.evaluate(
        f"async text => {{ {TO_BLOB} const hits = await gallery.search(photo, {{k: gallery.count}});"
        "return [hits.map(hit => hit.name), [...await gallery.embed(photo)]]; }",
        b64encode(data).decode(),
    )
    return hits, np.array(vector)


def embed_natively(student: OnnxEmbedder, data: bytes) -> np.ndarray:
    """The vector of a photo as the server makes it."""
    return student.embed([student.prepare(decode(data, "query", student.decode_side))])[0]


def photo_formats(tab: Any, searcher: Any, queries: list[tuple[bytes, str]]) -> None:
    """Compare the lists for queries of other formats with the server's for the same files."""
    student, gallery = searcher.models["student"], np.asarray(searcher.index.rows("student"))
    names = np.array([item.name for item in searcher.index.items])
    for kind, how in PHOTO_FORMATS.items():
        overlaps = []
        for photo, _ in queries:
            data = encode(Image.open(BytesIO(photo)).convert("RGB"), kind, **how)
            scores = embed_natively(student, data) @ gallery.T
            wanted = names[np.argsort(-scores, kind="stable")[:10]]
            overlaps.append(len({*wanted} & {*ask(tab, data)[0][:10]}) / 10)
        row(f"overlap@10 with the server, as {kind}", f"{100 * np.mean(overlaps):.2f} %")


def parity(tab: Any, searcher: Any, queries: list[tuple[bytes, str]], labels: dict[str, str]) -> None:
    """Compare lists and mAP with the server's."""
    student, index = searcher.models["student"], searcher.index
    gallery = np.asarray(index.rows("student"))
    names = [item.name for item in index.items]
    of_item = np.array([labels[name] for name in names])
    overlaps, ours, theirs, differences = [], [], [], []
    for data, label in queries:
        hits, found = ask(tab, data)
        vector = embed_natively(student, data)
        scores = vector @ gallery.T
        wanted = [names[i] for i in np.argsort(-scores, kind="stable")[:10]]
        overlaps.append(len(set(wanted) & set(hits[:10])) / 10)
        differences.append(float(np.abs(vector - found).max()))
        places = {name: place for place, name in enumerate(hits)}
        ours.append(precision(np.array([-places[name] for name in names]), of_item == label))
        theirs.append(precision(scores, of_item == label))
    row(f"overlap@10 with the server, {len(queries)} queries", f"{100 * np.mean(overlaps):.2f} %")
    row("mAP in the browser and on the server", f"{100 * np.mean(ours):.2f}, {100 * np.mean(theirs):.2f}")
    row("largest difference of a number of a vector, median", f"{np.median(differences):.1e}")


def formats(student: OnnxEmbedder, gallery: np.ndarray, queries: list[tuple[bytes, str]]) -> None:
    """Compare ways to write the rows: what they keep of the nearest ten, and their bytes."""
    native = np.stack([embed_natively(student, data) for data, _ in queries])
    scale = np.abs(gallery).max(1, keepdims=True) / 127
    int8, half = np.round(gallery / scale).astype(np.int8), gallery.astype(np.float16)
    kinds = {"int8, a scale for each row": (int8 * scale, int8.tobytes())}
    for levels in (512, 1024, 2048, 4096):
        whole = np.round(gallery * levels).astype("<i2")
        kinds[f"steps of 1/{levels}"] = whole / np.float32(levels), pack_rows(gallery, levels)
    kinds["float16"] = half.astype(np.float32), half.tobytes()
    wanted = rank(native @ gallery.T, 10)
    for name, (rows, data) in kinds.items():
        kept = overlap_at_k(rank(native @ rows.T, 10), wanted).mean()
        row(name, f"{100 * kept:.1f} % | {len(gzip.compress(data)) / 1e3:.0f} kB")


def precision(scores: np.ndarray, right: np.ndarray) -> float:
    """Average precision of one ranking."""
    ranked = right[np.argsort(-scores, kind="stable")]
    return float((np.cumsum(ranked)[ranked] / (np.flatnonzero(ranked) + 1)).mean()) if ranked.any() else 0.0


def speed(tab: Any, student: OnnxEmbedder, data: bytes) -> None:
    """A photo through the student, in turns with the native one."""
    photo = decode(data, "query", student.decode_side)
    pixels = student.prepare(photo)
    browser, native = [], []
    for _ in range(31):
        spent = tab.evaluate(
            f"async text => {{ {TO_BLOB} const start = performance.now(); await gallery.embed(photo);"
            "const first = performance.now(); await gallery.embed(photo);"
            "return [first - start, performance.now() - first]; }",
            b64encode(data).decode(),
        )
        browser.append(spent)
        start = perf_counter()
        student.embed([pixels])
        native.append(1000 * (perf_counter() - start))
    first, again = np.median(browser, axis=0)
    row("a small photo to its vector, with decoding and without", f"{first:.1f} ms, {again:.1f} ms")
    row("the native student on one thread, without decoding", f"{np.median(native):.2f} ms")


def enlarge(data: bytes, wide: int) -> bytes:
    """Make a JPEG of so many pixels across, and three quarters of that high."""
    image = Image.open(BytesIO(data)).convert("RGB").resize((wide, wide * 3 // 4), Image.Resampling.BICUBIC)
    return encode(image, "JPEG", quality=90)


def large_photo(tab: Any, data: bytes) -> None:
    """A photo of 12 megapixels, from its pixels to the results."""
    spent = tab.evaluate(
        f"async text => {{ {TO_BLOB} await gallery.search(photo); const times = [];"
        "for (let i = 0; i < 9; i++) { const start = performance.now(); await gallery.search(photo);"
        f"times.push(performance.now() - start); }} return {MEDIAN}; }}",
        b64encode(enlarge(data, 4032)).decode(),
    )
    row("12 megapixels, from decoded pixels to results", f"{spent:.0f} ms")


def scans(tab: Any) -> None:
    """Search 100,000 photos of random rows and codes, in a tab's own thread."""
    address = serve(SITE)
    tab.goto(address + "site.html")
    for what, options in SCANS.items():
        spent = tab.evaluate(
            "async module => { const {Gallery} = await import(module), count = 100000;"
            f"const given = {options}, shards = [{{count}}], length = given.bits || given.dim;"
            "const gallery = new Gallery({shards, levels: 2048, ...given});"
            "const bytes = new Uint8Array(count * (given.bits ? length / 8 : 2 * length));"
            "for (let i = 0; i < bytes.length; i += 65536) crypto.getRandomValues("
            "bytes.subarray(i, i + 65536)); gallery.add(0, bytes); const times = [];"
            "const query = Float32Array.from({length}, () => Math.random() - 0.5);"
            "for (let i = 0; i < 31; i++) { const start = performance.now(); gallery.search(query, 10);"
            f"times.push(performance.now() - start); }} return {MEDIAN}; }}",
            address + "gallery.js",
        )
        row(f"100,000 photos searched, {what}", f"{spent:.1f} ms")


def memory(browser: Any, address: str, photos: list[Path], least: int = 100_000) -> None:
    """The process of an empty tab, of the page after its searches, and with the gallery so many times."""
    manifest = json.loads(urlopen(address + "manifest.json").read())
    times = math.ceil(least / manifest["count"])
    for copies, what in ((0, "empty"), (1, "with the gallery"), (times, f"with {times} times that")):
        before, tab = processes(), browser.new_context(service_workers="block").new_page()
        tab.goto(address + "icon.svg")
        used: list[str] = []
        if copies:
            more = manifest | {"count": copies * manifest["count"], "shards": copies * manifest["shards"]}
            tab.route("**/manifest.json", lambda route, _, more=more: route.fulfill(json=more))
            tab.goto(address)
            for photo in photos:
                tab.set_input_files(".file:not(.shot)", photo)
                tab.wait_for_selector(FOUND, timeout=120_000)
                tab.wait_for_timeout(300 if used else 1000)
                used = used or [megabytes(before)]
        used.append(megabytes(before))
        row(f"memory of the tab's process, {what}, after the first and the last search", ", ".join(used))


def visits(browser: Any, address: str, photo: Path) -> None:
    """First and later visits, until results are drawn: medians of several browsers that had kept nothing."""
    ways = [("loopback", False), ("10 Mbit/s, 40 ms", True)]
    taken: dict[str, list[tuple[float, float]]] = {}
    for what, slow in VISITS * ways:
        context = browser.new_context()
        context.add_init_script(SEE_RESULTS)
        for visit in ("first visit", "later visit"):
            tab = context.new_page()
            tab.wait_for_timeout(1500)  # a new window of Chromium loads pages of its own
            Counting.slow = slow
            before, start = Counting.sent, time()
            tab.goto(address, wait_until="commit")
            tab.wait_for_selector(".size:not(:empty)")
            tab.set_input_files(".file:not(.shot)", photo)
            tab.wait_for_selector(FOUND)
            tab.wait_for_function("window.drawnAt")
            cost = tab.evaluate("drawnAt") / 1e3 - start, (Counting.sent - before) / 1e6
            taken.setdefault(f"{visit} to the first result, {what}", []).append(cost)
            tab.wait_for_timeout(2000)
            tab.close()
        context.close()
    Counting.slow = False
    for what, spent in taken.items():
        seconds, bytes_sent = np.median(spent, axis=0)
        low, high = min(spent)[0], max(spent)[0]
        row(what, f"{seconds:.2f} s ({low:.2f} to {high:.2f}), {bytes_sent:.2f} MB")


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("index", type=Path)
    parser.add_argument("--queries", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--count", type=int, default=200, help="queries")
    parser.add_argument("--site", type=Path, help="folder to write the site to, or to bring up to date")
    parser.add_argument("--wide", type=int, help="pixels that queries are enlarged to, as JPEG")
    parser.add_argument("--formats", action="store_true", help="compare ways to write rows, and end")
    given = parser.parse_args()
    searcher = open_searcher(given.index, with_teacher=False)
    student = OnnxEmbedder(searcher.index.model_file, "cpu", threads=1)
    searcher.models["student"] = student
    rows = [list(csv.DictReader(file.open())) for file in (given.queries, given.labels)]
    chosen = np.random.default_rng(0).permutation(len(rows[0]))[: given.count]
    queries = [
        ((given.queries.parent / rows[0][i]["path"]).read_bytes(), rows[0][i]["label"]) for i in chosen
    ]
    if given.wide:
        queries = [(enlarge(data, given.wide), label) for data, label in queries]
    root = given.labels.parent
    sources = {Path(source).resolve() for source in searcher.index.manifest.sources}
    labels = {
        (root / each["path"]).resolve().relative_to(source).as_posix(): each["label"]
        for each in rows[1] for source in sources if (root / each["path"]).resolve().is_relative_to(source)
    }  # fmt: skip
    if given.formats:
        formats(student, np.asarray(searcher.index.rows("student")), queries)
        return
    print("| what | measured |\n|---|---|")
    with TemporaryDirectory() as scratch, sync_playwright() as playwright:
        site = given.site or Path(scratch) / "site"
        build_site_by_name(given.index, site, SiteOptions(update=True))
        address = serve(site)
        browser = open_browser(playwright)
        photo = given.queries.parent / rows[0][chosen[0]]["path"]
        visits(browser, address, photo)
        memory(browser, address, [given.queries.parent / rows[0][i]["path"] for i in chosen[:SEARCHES]])
        tab = browser.new_page()
        tab.goto(address)
        tab.evaluate(OPEN, address)
        parity(tab, searcher, queries, labels)
        photo_formats(tab, searcher, queries)
        speed(tab, student, queries[0][0])
        large_photo(tab, queries[0][0])
        scans(tab)
        browser.close()


if __name__ == "__main__":
    main()

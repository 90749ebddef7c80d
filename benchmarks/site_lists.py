"""Measure a large site in headless Chromium: what one search gets, how long it takes, and what it finds.

    python benchmarks/opening.py --model student/student.onnx --folder scratch --counts 1000000
    retrieval site scratch/1000000/idx --out site --no-thumbnails '{name}'
    python benchmarks/site_lists.py scratch/1000000/idx site

Searches with photos of the gallery, each in a browser that has kept nothing but the first visit.
"""

import argparse
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from playwright.sync_api import sync_playwright
from site_host import FOUND, OPEN, Counting, megabytes, open_browser, processes, row, serve

from index.search import Searcher, open_searcher

SEARCH = (
    "async item => { const start = performance.now(), found = await gallery.searchItem(item, {k: 10});"
    "return {item: (await gallery.item(item)).digest, hits: found.map(hit => hit.digest),"
    "searched: found.searched, milliseconds: performance.now() - start}; }"
)


def exact(searcher: Searcher, items: list[int]) -> list[set[int]]:
    """The ten nearest of some items, each without itself."""
    queries, scores, ids, start = searcher.index.rows("student", np.array(items)), [], [], 0
    for rows in searcher.index.iter_rows("student"):
        found = queries @ rows.T
        best = np.argpartition(-found, min(10, len(rows) - 1), axis=1)[:, :11]
        scores.append(np.take_along_axis(found, best, 1))
        ids.append(best + start)
        start += len(rows)
    order = np.argsort(-np.concatenate(scores, 1), axis=1)[:, :11]
    nearest = np.take_along_axis(np.concatenate(ids, 1), order, 1)
    return [
        set([i for i in line if i != own][:10]) for line, own in zip(nearest.tolist(), items, strict=True)
    ]


def search(browser: Any, address: str, items: list[int]) -> list[dict[str, Any]]:
    """Search with items of a site, each after a first visit of its own."""
    answers = []
    for item in items:
        context = browser.new_context()
        tab, start = context.new_page(), Counting.sent
        tab.goto(address + "icon.svg")
        tab.evaluate(OPEN, address)
        sent, files = Counting.sent, Counting.files
        answer = tab.evaluate(SEARCH, item)
        cost = {"first": sent - start, "sent": Counting.sent - sent, "files": Counting.files - files}
        answers.append(answer | cost)
        context.close()
    return answers


def memory(browser: Any, address: str) -> str:
    """The process of the page once it has searched with each of its examples."""
    before, tab = processes(), browser.new_context().new_page()
    tab.goto(address)
    tab.wait_for_selector(".example")
    for example in range(tab.locator(".example").count()):
        tab.click(f".example >> nth={example}")
        tab.wait_for_selector(FOUND)
        tab.click(".clear")
    return megabytes(before)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("index", type=Path)
    parser.add_argument("site", type=Path)
    parser.add_argument("--count", type=int, default=160, help="searches")
    given = parser.parse_args()
    searcher, address = open_searcher(given.index, with_teacher=False), serve(given.site)
    total = len(searcher.index)
    items = [int(item) for item in np.linspace(0, total - 1, given.count)]
    with sync_playwright() as playwright:
        browser = open_browser(playwright)
        start = perf_counter()
        answers = search(browser, address, items)
        took = (perf_counter() - start) / given.count
        held = memory(browser, address)
        browser.close()
    known = searcher.index.ids_by_digest
    own = [known[each["item"]][0] for each in answers]
    ours = [{known[digest][0] for digest in each["hits"]} for each in answers]
    served = [set(searcher.search_items([item], "student", 10).ids[0].tolist()) for item in own]
    nearest = exact(searcher, own)

    def share(found: list[set[int]], wanted: list[set[int]]) -> str:
        return f"{np.mean([len(a & b) / 10 for a, b in zip(found, wanted, strict=True)]):.3f}"

    sent = [each["sent"] / 1e6 for each in answers]
    row("photos", f"{total:,}")
    row("recall@10 against the served index", share(ours, served))
    both = f"{share(ours, nearest)}, {share(served, nearest)}"
    row("recall@10 against exact search: here, and of the served index", both)
    row("first visit without the page", f"{median(each['first'] for each in answers) / 1e6:.2f} MB")
    row("a search gets, mean and most", f"{np.mean(sent):.2f} MB, {max(sent):.2f} MB")
    row("files that it gets, mean", f"{np.mean([each['files'] for each in answers]):.0f}")
    row("photos that it is compared with", f"{np.mean([each['searched'] for each in answers]):,.0f}")
    row("milliseconds of a search, median", f"{median(each['milliseconds'] for each in answers):.0f}")
    row("memory of the tab's process after six searches of the page", held)
    row("seconds of a visit and a search", f"{took:.1f}")


if __name__ == "__main__":
    main()

"""The tabs beside the search, in a real browser, at the width of a phone and of a desk, light and dark."""

import csv
import io
import json
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from conftest import picture, write_embedder
from page_tools import needs_chromium, open_fresh, start_server

from app.page.blind_vote.tab import build_blind_tab
from app.page.disagreements.logic import compute_agreements
from app.page.disagreements.tab import build_disagreements_tab
from app.page.report.tab import build_report_tab
from app.server.concurrency import SharedSearcher
from index.build.pipeline import build_index
from index.embedders.onnx import OnnxEmbedder
from index.embedders.teacher_space import TeacherSpace
from index.search import Searcher

RUN = {
    "images": 30,
    "queried": 20,
    "teacher": {"name": "teacher.onnx", "dim": 12},
    "options": {"student": "tiny", "dim": 8},
    "student": {"weights": "none", "parameters": 384},
    "training": {
        "seconds": 3,
        "device": "cpu",
        "loss": [2.0, 1.0],
        "agreement": [[1, 0.5], [2, 0.7]],
        "kept_step": 2,
    },
    "agreement": {"held_out": 3, "overlap@10": 0.7},
    "curve": [{"queried": 10, "overlap@10": 0.5}, {"queried": 20, "overlap@10": 0.7}],
}
pytestmark = needs_chromium


@pytest.fixture(scope="module")
def searcher(tmp_path_factory) -> Searcher:
    """Thirty pictures, one that cannot be read, and a student's folder with all that it can hold."""
    root = tmp_path_factory.mktemp("tabs")
    (root / "images" / "more").mkdir(parents=True)
    for i in range(30):
        picture(i).save(root / "images" / ("more" if i < 5 else "") / f"{i}.png")
    (root / "images" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no")
    student = OnnxEmbedder(write_embedder(root / "student.onnx", dim=8, seed=1))
    teacher = OnnxEmbedder(write_embedder(root / "teacher.onnx", dim=12, side=64, seed=2))
    write_embedder(root / "student.fp16.onnx", dim=8, seed=4)
    (root / "run.json").write_text(json.dumps(RUN | {"export": {"key": student.key}}))
    space = TeacherSpace(np.zeros(12, np.float32), np.eye(8, 12, dtype=np.float32))
    return Searcher(build_index([root / "images"], student, root / "idx", teacher, space), student, teacher)


@pytest.fixture(scope="module")
def site(searcher: Searcher):
    """A running page; its votes go into a folder beside the index."""
    path = searcher.index.path
    process, address = start_server(path, XDG_DATA_HOME=str(path.parent / "data"))
    yield address
    process.kill()
    process.wait(10)


@pytest.fixture(params=["desk", "phone"])
def page(profile, site, request):
    phone = request.param == "phone"
    tab = open_page(profile, site, 360 if phone else 1300, "dark" if phone else "light")
    yield tab
    wide = tab.evaluate("document.documentElement.scrollWidth - innerWidth")
    tab.close()
    assert tab.complaints == []
    assert wide <= 0


def find_barriers(tab) -> list[str]:
    """What axe-core finds serious."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    return [
        f"{found['id']}: {found['nodes'][0]['target']} {found['nodes'][0].get('failureSummary')}"
        for found in axe.run(tab).response["violations"]
        if found["impact"] in ("serious", "critical")
    ]


def open_page(profile, site: str, width: int, theme: str):
    tab = open_fresh(profile, site, (width, 800))
    tab.complaints = []
    tab.on("console", lambda told: tab.complaints.append(told.text) if told.type == "error" else None)
    tab.on("pageerror", lambda error: tab.complaints.append(str(error)))
    tab.goto(f"{site}/?__theme={theme}")
    tab.get_by_role("tab", name="Search").wait_for(timeout=60_000)
    return tab


def go_to(tab, name: str) -> None:
    """Choose a tab, which Gradio hides behind a button where there is no room for it."""
    if tab.get_by_role("tab", name=name).is_visible():
        tab.get_by_role("tab", name=name).click()
    else:
        tab.locator(".overflow-menu > button").click()
        tab.locator(".overflow-dropdown button", has_text=name).click()


def shown_ids(tab, searcher) -> list[int]:
    links = [link.get_attribute("href").removeprefix("?id=") for link in tab.locator(".cases a").all()]
    return [searcher.index.ids_by_digest[digest][0] for digest in links]


def counts(tab) -> dict[str, int]:
    lines = [text.rsplit(" ", 1) for text in tab.locator(".count span").all_inner_texts()]
    return {name: int(count) for name, count in lines}


def test_disagreements_are_browsed_from_the_worst_and_lead_to_the_comparison(page, searcher):
    every = compute_agreements(searcher, lambda _: None)
    go_to(page, "Disagreements")
    page.wait_for_selector(".cases a")
    assert shown_ids(page, searcher) == every.items[:12].tolist()
    assert f"{every.overlap.mean():.0%}" in page.inner_text(".spread")
    assert page.locator(".cases a").first.inner_text().startswith(f"{every.overlap[0]:.0%}")

    page.get_by_role("button", name="Next").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('.pager').innerText.includes('page 2 of 3')")
    assert shown_ids(page, searcher) == every.items[12:24].tolist()
    page.keyboard.press("Enter")  # the button is still in focus
    page.wait_for_function("document.querySelector('.pager').innerText.includes('page 3 of 3')")

    page.locator("#disagreements").get_by_label("Name starts with").fill("more/")
    page.wait_for_function("document.querySelector('.pager').innerText.includes('5 photos, page 1 of 1')")
    names = [searcher.index.items[item].name for item in shown_ids(page, searcher)]
    assert all(name.startswith("more/") for name in names)
    page.locator("#disagreements").get_by_label("Name starts with").fill("")
    least = round(100 * every.overlap[0])
    page.get_by_label("Overlap@10 at most").fill(str(least))
    page.wait_for_function(f"document.querySelector('.value').innerText === '{least}%'")
    alike = int((every.overlap <= every.overlap[0]).sum())
    page.wait_for_function(f"document.querySelectorAll('.cases a').length === {min(alike, 12)}")

    assert find_barriers(page) == []
    first = page.locator(".cases a").first.get_attribute("href")
    page.locator(".cases a").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/{first}&*")
    page.get_by_role("tab", name="Search").wait_for(timeout=60_000)


def test_a_blind_vote_by_keyboard_is_revealed_counted_and_exported(page):
    go_to(page, "Blind vote")
    page.wait_for_selector(".votes")
    blind = page.inner_html(".stage").lower()
    assert "student" not in blind
    assert "teacher" not in blind
    assert page.locator(".duel li img").count() == 16
    before = counts(page)
    left, right = (page.locator(f"[data-action={side}]").bounding_box() for side in ("left", "right"))
    assert left["y"] == right["y"]
    page.context.set_offline(True)
    page.keyboard.press("1")
    page.wait_for_selector("[data-again]")
    page.context.set_offline(False)
    page.complaints.clear()  # of the browser, about the network
    page.click("[data-again]")  # the round is the same
    page.wait_for_selector(".said")
    assert find_barriers(page) == []
    heads = page.locator(".duel h2").all_inner_texts()
    assert sorted(heads) == ["Student", "Teacher"]
    chosen = heads[0].lower()
    assert page.locator(".duel section.won h2").inner_text() == heads[0]
    assert f"You chose {chosen}." in page.inner_text(".said")
    after = counts(page)
    assert after[chosen] == before[chosen] + 1
    page.keyboard.press("1")  # too late: the round is closed
    page.keyboard.press("n")
    page.wait_for_selector(".votes [data-action=none]")
    page.keyboard.press("0")
    page.wait_for_selector(".said")
    last = counts(page)
    assert last["no difference"] == before["no difference"] + 1
    assert last[chosen] == after[chosen]
    with page.expect_download() as download:
        page.get_by_role("button", name="Export").click()
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text())))
    assert [row["choice"] for row in rows[-2:]] == ["left", "none"]
    assert rows[-2]["left"] == chosen


@pytest.mark.slow
def test_people_who_vote_at_once_do_not_mix_up_their_rounds(browser, site):
    tabs = [open_page(browser.new_context(), site, 1300, "light") for _ in range(2)]
    seen = []
    for tab in tabs:
        go_to(tab, "Blind vote")
        tab.wait_for_selector(".votes")
        seen.append(tab.locator(".stage img").evaluate_all("images => images.map(image => image.src)"))
    for tab, pictures in zip(tabs, seen, strict=True):
        tab.locator("[data-action=right]").click()
        tab.wait_for_selector(".said")
        assert tab.locator(".stage img").evaluate_all("images => images.map(image => image.src)") == pictures
        chosen = tab.locator(".duel section.won h2").inner_text().lower()
        assert f"You chose {chosen}." in tab.inner_text(".said")
        tab.context.close()


def test_the_report_shows_the_curve_the_ways_to_search_sizes_health_and_training(page):
    go_to(page, "Report")
    page.wait_for_selector("#report section:nth-child(3) svg", timeout=30_000)
    heads = page.locator("#report h2").all_inner_texts()
    assert heads == ["Verdict", "Quality against cost", "Time against quality", "Size", "Index", "Training"]
    assert page.locator("#report section:nth-child(2) circle").count() == 2
    labels = page.locator("#report section:nth-child(3) .label").all_text_contents()
    assert sorted(labels) == ["asymmetric", "fp16", "rerank", "student", "teacher"]
    assert page.locator("#report section:nth-child(3) .strong").count() >= 1
    page.locator("#report section:nth-child(3) summary").focus()
    page.keyboard.press("Enter")
    assert "100.0" in page.locator("#report section:nth-child(3) table").inner_text()
    assert "30" in page.locator("#report section:nth-child(5) dl").inner_text()
    page.get_by_text("The images that were refused").click()
    assert "broken.jpg" in page.locator("#report section:nth-child(5) details").inner_text()
    verdict = page.locator("#report section:nth-child(1)").inner_text()
    assert verdict.startswith(
        "Verdict\n\nToo few queries to tell: it finds 70 % (95 %: 18 to 100) of the teacher's top 10"
    )
    assert "photos of the gallery, which training may have seen" in verdict
    for table in page.locator("#report section:nth-child(1) .wide").all():
        assert table.evaluate("each => each.scrollWidth <= each.clientWidth")  # nothing is cut on a phone
    before = page.inner_text("#report .volume p")
    page.locator("#report .volume input").press("End")
    assert page.inner_text("#report .volume output") == "100,000,000"
    assert page.inner_text("#report .volume p") != before
    assert "20 of 30 photos" in page.locator("#report section:nth-child(6)").inner_text()
    assert find_barriers(page) == []


def test_the_report_is_told_of_an_index_that_is_replaced(searcher, tmp_path):
    student = searcher.models["student"]
    pictures = Path(searcher.index.items[0].path).parent
    shared = SharedSearcher(Searcher(build_index([pictures], student, tmp_path / "idx"), student))
    with gr.Blocks() as page:
        build_report_tab(shared)
    build_index([Path(shared.index.items[0].path)], student, tmp_path / "idx")
    report = next(block for block in page.blocks.values() if isinstance(block, gr.HTML)).report
    told = report({})["html"]
    assert f"<dd>{len(shared.index)}</dd>" in told
    assert "kB" in told or " B</td>" in told


def test_without_a_teacher_the_tabs_say_so(searcher, tmp_path):
    student, pictures = searcher.models["student"], Path(searcher.index.items[0].path).parent
    alone = Searcher(build_index([pictures], student, tmp_path / "alone"), student)
    with gr.Blocks() as page:
        build_disagreements_tab(alone)
        build_blind_tab(alone)
    told = [block.value for block in page.blocks.values() if isinstance(block, gr.HTML)]
    assert len(told) == 2
    assert all("made without a teacher" in text for text in told)
    assert all(text.startswith('<div class="tab">') for text in told)  # else it has no style

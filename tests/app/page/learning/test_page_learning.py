"""The page on which a student learns, in a real browser."""

from pathlib import Path
from time import sleep

import pytest
from conftest import picture, write_embedder
from forked import Forked, command
from page_tools import needs_chromium

pytestmark = needs_chromium

ORDER = """() => [...document.querySelectorAll('.strips .list:nth-child(2) li')]
  .map(each => each.dataset.place).join()"""


def drive(arguments: list[str]) -> None:
    """Call the command: a demo with a student that takes seconds, slow enough to be seen learning."""
    import app.demo
    from distill.options import Options
    from distill.training.loop import Learner

    app.demo.OPTIONS = Options(
        budget=60,
        student="test_efficientnet",
        weights="none",
        stages=3,
        size=32,
        dim=6,
        device="cpu",
        steps=20,
    )
    learn = Learner.learn
    Learner.learn = lambda *given: (sleep(0.2), learn(*given))[1]
    command(arguments)


def fill(folder: Path, count: int) -> Path:
    folder.mkdir()
    for i in range(count):
        picture(1000 * count + i, 64, 48).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def demo(tmp_path: Path):
    """A running demo, and its address."""
    (tmp_path / "demo").mkdir()
    facts = {"retrieval.parameters": "1"}
    write_embedder(tmp_path / "demo" / "teacher.onnx", dim=12, side=64, seed=2, **facts)
    photos = fill(tmp_path / "photos", 60)
    process = Forked(drive, "demo", "--images", photos, "--out", tmp_path / "demo", "--port", "0")
    yield process, process.stdout.readline().strip()
    process.kill()
    process.wait(10)


def complaints(tab) -> list[str]:
    """What axe-core finds on it."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    return [found["id"] for found in axe.run(tab).response["violations"]]


@pytest.mark.slow
def test_it_learns_before_ones_eyes_then_from_ones_own_photos(demo, browser, tmp_path: Path):
    process, address = demo
    tab = browser.new_page(color_scheme="dark")
    tab.goto(address)
    assert tab.url == f"{address}/learn"
    assert complaints(tab) == []
    tab.wait_for_selector(".strip", timeout=120_000)
    before = tab.evaluate(ORDER)
    assert tab.locator(".strip").count() == 5
    tab.wait_for_function(f"before => ({ORDER})() !== before", arg=before, timeout=60_000)
    tab.wait_for_selector(".charts svg polyline")
    assert complaints(tab) == []
    tab.wait_for_url(f"{address}/", timeout=120_000)
    tab.wait_for_selector(".search .example")
    assert "60 images" in tab.inner_text(".heading")

    own = fill(tmp_path / "own", 45)
    (own / "notes.txt").write_text("no photo")
    (own / "half.jpg").write_bytes(b"\xff\xd8\xff")
    tab.click("text=Learn from your own photos")
    tab.wait_for_selector("text=It has learnt. Search")
    tab.set_input_files(".own input", own)
    tab.wait_for_selector("text=46 of 46 photos sent, 1 of them cannot be read.")
    tab.wait_for_selector(".strip", timeout=60_000)
    tab.emulate_media(color_scheme="light")
    tab.set_viewport_size({"width": 360, "height": 740})
    tab.reload()
    tab.wait_for_selector(".strip")
    assert complaints(tab) == []
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    tab.wait_for_url(f"{address}/", timeout=120_000)
    tab.wait_for_selector("text=45 images")
    assert sorted(each.name for each in (tmp_path / "demo-2" / "photos").iterdir())[:2] == [
        "0000.png",
        "0001.png",
    ]

    tab.goto(f"{address}/learn")
    tab.set_input_files(".own input", own)
    tab.wait_for_selector("text=Training:")
    process.kill()
    tab.wait_for_selector(".end.error >> text=The demo has stopped.")
    tab.close()

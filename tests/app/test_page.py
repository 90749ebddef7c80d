"""The page in a real browser: Debian's or any other Chromium."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import picture

from index.embedder import OnnxEmbedder
from index.pipeline import build_index

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = [
    *("--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking".split()),
    *("--disable-component-update --disable-sync --disable-dev-shm-usage".split()),
]
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine (set CHROMIUM to its path)")


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


def start_server(index: Path, *options: str) -> tuple[subprocess.Popen, str]:
    command = [sys.executable, "-m", "app.cli", "serve", str(index), "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    return process, process.stdout.readline().strip()


@pytest.fixture
def site(folder: Path, tmp_path: Path, student_file: Path, teacher_file: Path):
    """A running page over twelve pictures."""
    build_index([folder], OnnxEmbedder(student_file), tmp_path / "idx", OnnxEmbedder(teacher_file))
    process, address = start_server(tmp_path / "idx")
    yield address
    process.terminate()
    process.wait(10)


@pytest.fixture
def page(browser, site):
    tab = browser.new_page(viewport={"width": 1300, "height": 900})
    tab.complaints = []
    tab.on(
        "console", lambda message: tab.complaints.append(message.text) if message.type == "error" else None
    )
    tab.on("pageerror", lambda error: tab.complaints.append(str(error)))
    tab.goto(site)
    tab.wait_for_selector("#upload input[type=file]", state="attached", timeout=30_000)
    yield tab
    tab.close()


def upload(tab, path: Path) -> None:
    tab.set_input_files("#upload input[type=file]", path)


def ids(tab, column: str) -> list[int]:
    return [int(card.get_attribute("data-id")) for card in tab.query_selector_all(f"#{column} .card")]


def test_a_photo_is_searched_with_and_a_click_searches_on(page, site, tmp_path: Path):
    assert site.startswith("http://127.0.0.1:")
    assert "12 images" in page.inner_text(".heading")
    query = tmp_path / "query.png"
    picture(99).save(query)
    upload(page, query)
    page.wait_for_selector("#teacher .card")
    student, teacher = ids(page, "student"), ids(page, "teacher")
    assert sorted(student) == sorted(teacher) == list(range(12))
    assert page.locator("#student .card .both").count() == 12
    assert page.locator("#student .card b").all_inner_texts() == [str(rank) for rank in range(1, 13)]
    scores = [float(text) for text in page.locator("#student .score").all_inner_texts()]
    assert scores == sorted(scores, reverse=True)
    assert page.locator("#student .name").first.inner_text().endswith((".png", ".jpg"))
    summary = page.inner_text("#summary")
    for word in ("overlap@12", "RBO", "student", "teacher", "ms"):
        assert word in summary
    page.wait_for_function(
        "[...document.querySelectorAll('.card img')].every(i => i.complete && i.naturalWidth > 0)"
    )

    page.locator("#student .card").nth(2).click()
    page.wait_for_selector("#query img")
    page.wait_for_function("document.querySelectorAll('#student .card').length == 11")
    assert student[2] not in ids(page, "student")
    assert student[2] not in ids(page, "teacher")
    assert page.get_attribute("#query img", "src") == f"thumbs/{student[2]}"
    assert page.complaints == []


def test_a_result_is_reached_and_opened_by_keyboard(page, tmp_path: Path):
    picture(98).save(tmp_path / "query.png")
    upload(page, tmp_path / "query.png")
    page.wait_for_selector("#student .card")
    page.locator("#student .card").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#query img")


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("broken.jpg", b"\xff\xd8\xff\xe0 not really", "cannot be searched with"),
        ("paper.pdf.png", b"%PDF-1.7 a document", "not an image that can be read"),
    ],
)
def test_a_bad_file_gets_a_friendly_line(page, tmp_path: Path, name: str, content: bytes, complaint: str):
    (tmp_path / name).write_bytes(content)
    upload(page, tmp_path / name)
    page.wait_for_selector("#summary .error")
    assert complaint in page.inner_text("#summary")
    picture(97).save(tmp_path / "good.png")  # and the page goes on working
    page.locator(
        "#upload button[aria-label='Clear'], #upload button[aria-label='Remove Image']"
    ).first.click()
    upload(page, tmp_path / "good.png")
    page.wait_for_selector("#student .card")


def test_only_pictures_of_the_index_are_served(page, site, tmp_path: Path):
    (tmp_path / "secret.txt").write_text("secret")
    assert page.request.get(f"{site}/thumbs/0").headers["content-type"] == "image/jpeg"
    for path in ("thumbs/12", "thumbs/-1", "thumbs/..%2f..%2fsecret.txt", "thumbs/%2e%2e/secret.txt"):
        assert page.request.get(f"{site}/{path}").status in (404, 422)
    for path in (tmp_path / "secret.txt", tmp_path / "images" / "0.png"):
        for route in ("file=", "gradio_api/file="):
            assert page.request.get(f"{site}/{route}{path}").status in (403, 404)


def test_without_a_teacher_the_page_says_why(browser, folder: Path, tmp_path: Path, student_file: Path):
    build_index([folder], OnnxEmbedder(student_file), tmp_path / "alone")
    process, address = start_server(tmp_path / "alone")
    try:
        tab = browser.new_page()
        tab.goto(address)
        tab.wait_for_selector("#upload input[type=file]", state="attached", timeout=30_000)
        picture(99).save(tmp_path / "query.png")
        upload(tab, tmp_path / "query.png")
        tab.wait_for_selector("#student .card")
        assert "made without a teacher" in tab.inner_text("#teacher")
    finally:
        process.terminate()
        process.wait(10)


def test_a_port_in_use_is_said_in_one_line(site, tmp_path: Path):
    port = site.rsplit(":", 1)[1]
    command = [sys.executable, "-m", "app.cli", "serve", str(tmp_path / "idx"), "--port", port]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"Cannot serve on 127.0.0.1:{port}" in done.stderr

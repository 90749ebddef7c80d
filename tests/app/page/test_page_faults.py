"""What goes wrong, on the page in a real browser: a friendly line, and the page goes on."""

from pathlib import Path

import pytest
from conftest import png_header
from page_tools import COUNT, LOOKS, ids, needs_chromium, on_a_phone, settle, start_server, upload
from teacher_server import TeacherServer, serving
from typer.testing import CliRunner

from app.cli import app
from index.build.pipeline import build_index
from index.embedders.onnx import OnnxEmbedder

pytestmark = needs_chromium


@pytest.mark.parametrize(
    ("name", "content", "complaint", "look"),
    [
        ("broken.jpg", b"\xff\xd8\xff\xe0 not really", "Can't open broken.jpg", LOOKS[0]),
        ("paper.pdf", b"%PDF-1.7 a document", "not an image that can be read", LOOKS[1]),
        ("huge.png", png_header(20_000, 15_000), "too large", LOOKS[0]),
    ],
    ids=["broken", "PDF", "huge"],
)
def test_a_bad_file_gets_a_friendly_line(
    open_tab, page_root: Path, tmp_path: Path, name, content, complaint, look
):
    (tmp_path / name).write_bytes(content)
    tab = open_tab("", *look)
    upload(tab, tmp_path / name)
    assert complaint in tab.inner_text(".complaint [class*=error]")
    assert not tab.is_visible(".columns")
    upload(tab, page_root / "query.png")  # and the page goes on working
    assert len(ids(tab)) == 12
    assert tab.inner_text(".complaint") == ""


def test_what_is_larger_than_the_server_takes_is_told(open_tab, tmp_path: Path):
    (tmp_path / "large.png").write_bytes(bytes(2_100_000))
    tab = open_tab("?id=2")
    settle(tab)
    upload(tab, tmp_path / "large.png")
    assert "this file is too large" in tab.inner_text(".complaint")
    assert tab.complaints.pop().startswith("Failed to load resource")  # of the browser, not of the page


@pytest.mark.slow
def test_a_server_that_starts_again_is_sent_the_photo_again_and_one_that_is_gone_is_told_of(
    browser, page_root: Path
):
    process, address = start_server(page_root / "idx")
    tab = browser.new_page()
    try:
        tab.goto(address)
        tab.wait_for_selector(".search .example")
        upload(tab, page_root / "query.png")
        process.terminate()
        process.wait(10)
        process, _ = start_server(page_root / "idx", "--port", address.rsplit(":", 1)[1])
        tab.click(".turn-right")
        settle(tab)
        assert len(ids(tab)) == 12
    finally:
        process.kill()
        process.wait(10)
    tab.locator(".example").first.click()
    settle(tab)
    assert "Can't reach the server" in tab.inner_text(".complaint")
    tab.close()


def test_a_camera_that_is_not_there_spoils_no_results(open_tab):
    tab = open_tab("?id=2")
    settle(tab)
    tab.evaluate("() => { navigator.mediaDevices.getUserMedia = () => Promise.reject(); }")
    tab.click(".camera")
    tab.wait_for_selector(".complaint .error")
    assert "camera on https pages only" in tab.inner_text(".complaint")
    assert len(ids(tab)) == 12
    assert tab.is_visible("#first")


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("?id=9999", "no image 9999"),
        ("?id=x", "cannot be read"),
        ("?id=3&k=x&box=9,9,9,9", "outside the photo"),
    ],
)
def test_a_deep_link_to_nothing_says_so(open_tab, address: str, complaint: str):
    tab = open_tab(address)
    settle(tab)
    assert complaint in tab.inner_text(".complaint")
    tab.locator(".example").first.click()
    tab.wait_for_selector("#first .card")
    settle(tab)


@pytest.mark.parametrize("mode", ["foo", "student,foo"])
def test_a_link_with_a_mode_that_there_is_not_says_so_and_searches(open_tab, mode: str):
    tab = open_tab(f"?id=5&mode={mode}")
    settle(tab)
    assert "There is no such mode here" in tab.inner_text(".complaint")
    assert tab.locator("#first .card").count() == 12
    assert "foo" not in tab.url


@on_a_phone
def test_a_removed_image_says_so(open_tab, page_root: Path, look):
    tab = open_tab("?id=9", *look)
    settle(tab)
    file = next((page_root / "images").rglob(f"{tab.inner_text('.caption').rsplit('/')[-1]}"))
    aside = file.rename(page_root / "aside.png")
    try:
        gone = open_tab("?id=9", *look)
        settle(gone)
        assert "cannot be read any more" in gone.inner_text(".complaint")
    finally:
        aside.rename(file)


def test_without_a_teacher_the_page_says_why(browser, page_root: Path):
    build_index([page_root / "images"], OnnxEmbedder(page_root / "student.onnx"), page_root / "alone")
    process, address = start_server(page_root / "alone")
    try:
        tab = browser.new_page()
        tab.goto(f"{address}/?id=0")
        tab.wait_for_selector("#first .card")
        settle(tab)
        assert len(ids(tab)) == 12
        assert not tab.is_visible("#second")  # there is nothing to compare with
        tab.click(".two")
        tab.wait_for_selector("#second .note")
        settle(tab)
        assert "made without a teacher" in tab.inner_text("#second")
        assert len(ids(tab)) == 12
        tab.get_by_role("tab", name="Blind vote").click()
        tab.wait_for_selector("#blind .note")
        assert "Index again with --teacher" in tab.inner_text("#blind")
        tab.close()
    finally:
        process.kill()
        process.wait(10)


@pytest.mark.slow
def test_a_teacher_that_is_down_leaves_the_student_and_says_why(browser, page_root: Path, tmp_path):
    endpoint = TeacherServer(OnnxEmbedder(page_root / "teacher.onnx", "cpu"))
    student, ledger, index = page_root / "student.onnx", tmp_path / "l.sqlite", tmp_path / "idx"
    asking = ["--ledger", str(ledger), "--budget", str(COUNT + 9)]
    with serving(endpoint) as url:
        words = ["index", page_root / "images", "--model", student, "--teacher", url, "--out", index]
        done = CliRunner().invoke(app, [*map(str, words), *asking])
        assert done.exit_code == 0, done.output
    process, address = start_server(index, "--teacher", url, *asking)
    try:
        tab = browser.new_page()
        tab.goto(address)
        tab.wait_for_selector(".search .example")
        tab.set_input_files(".search .file", page_root / "query.png")
        tab.wait_for_selector("#first .card")
        tab.wait_for_selector("#second .note", timeout=60_000)
        assert "cannot be reached" in tab.inner_text("#second")
        assert len(ids(tab)) == 12
        assert "Student" in tab.inner_text(".numbers")
        tab.locator("#first .hit").first.click()  # what was answered before is in the ledger
        tab.wait_for_selector("#second .card")
        tab.close()
    finally:
        process.kill()
        process.wait(10)


def test_an_open_page_goes_on_when_its_index_is_replaced(browser, page_root: Path, tmp_path: Path):
    student = OnnxEmbedder(page_root / "student.onnx")
    build_index([page_root / "images" / "00.png"], student, tmp_path / "idx")
    process, address = start_server(tmp_path / "idx")
    try:
        tab = browser.new_page()
        tab.goto(address)
        tab.wait_for_selector(".search .example")
        build_index([page_root / "images"], student, tmp_path / "idx")
        served = "async () => (await (await fetch('/health')).json()).index.count"
        for _ in range(100):
            if tab.evaluate(served) == COUNT:
                break
            tab.wait_for_timeout(200)
        upload(tab, page_root / "query.png")
        assert len(ids(tab)) == 12
        tab.wait_for_function(
            "[...document.querySelectorAll('#first img')].slice(0, 4).every(image => image.naturalWidth)"
        )
        tab.locator("#first .open").first.click()
        tab.wait_for_selector(".large[open] .about h2")
        tab.close()
    finally:
        process.kill()
        process.wait(10)


def test_only_pictures_of_the_index_are_served(open_tab, page_root: Path, page_site: str):
    tab = open_tab()
    for path in ("thumbs/30", "thumbs/-1", "thumbs/..%2f..%2fquery.png", "images/%2e%2e/query.png"):
        assert tab.request.get(f"{page_site}/{path}").status in (404, 422)
    for path in (page_root / "query.png", page_root / "images" / "00.png"):
        for route in ("file=", "gradio_api/file="):
            assert tab.request.get(f"{page_site}/{route}{path}").status in (403, 404)

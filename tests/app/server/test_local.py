"""`serve --local`: the search in the visitor's browser, from the server."""

from pathlib import Path

import pytest
from conftest import picture
from page_tools import needs_chromium, start_server

from app.server import local
from app.server.local import build_local
from app.site import runtime
from index.build.pipeline import build_index
from index.embedders.onnx import OnnxEmbedder
from index.errors import RetrievalError
from index.images.decode import square
from index.search import open_searcher


def test_what_a_killed_run_left_stops_no_later_one(folder: Path, tmp_path: Path, student_file, monkeypatch):
    build_index([folder], OnnxEmbedder(student_file), tmp_path / "idx")
    left: list[bool] = []

    def build(searcher, site: Path, options, pictures) -> str:
        left.append((site / "data").exists())
        (site / "data").mkdir(parents=True)
        return "Written."

    monkeypatch.setattr(local, "build_site", build)
    for _ in range(2):
        build_local(open_searcher(tmp_path / "idx"), cache=tmp_path / "cache")
    assert left == [False, False]


@needs_chromium
@pytest.mark.slow
def test_the_served_page_leads_to_one_that_sends_no_photo(page_root, browser, tmp_path, monkeypatch):
    try:
        files = runtime.find_runtime()
    except RetrievalError as reason:
        pytest.skip(str(reason))
    kept = tmp_path / "retrieval" / f"{runtime.PACKAGE}-{runtime.VERSION}"
    kept.mkdir(parents=True)
    for name, data in zip((runtime.MODULE, runtime.WASM), files, strict=True):
        (kept / name).write_bytes(data)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    process, address = start_server(page_root / "idx", "--local")
    context, asked = browser.new_context(), []
    try:
        tab = context.new_page()
        tab.goto(address)
        tab.click(".heading a[href='local/']")
        tab.wait_for_selector(".example img")
        tab.on("request", lambda request: asked.append(request.method))
        tab.set_input_files(".file:not(.shot)", page_root / "query.png")
        tab.wait_for_selector(".search[data-state=found]:not([aria-busy]) .card")
        found = tab.eval_on_selector_all(".card .name", "names => names.map(name => name.title)")
        widths = "[...document.querySelectorAll('.card canvas')].filter(each => each.width > 1).length"
        for _ in range(200):  # Playwright's own waiting evaluates later, when the page's policy forbids it
            if tab.evaluate(widths) >= 10:
                break
            tab.wait_for_timeout(50)
        assert tab.evaluate(widths) >= 10
    finally:
        context.close()
        process.kill()
        process.wait(30)
    searcher = open_searcher(page_root / "idx", with_teacher=False)
    student = searcher.models["student"]
    query = student.embed([square(picture(99, 160, 120), student.side, student.crop)])
    wanted = searcher.search(query, "student", 24)
    assert found == [searcher.index.items[item].name for item, _ in wanted.hits()]
    assert set(asked) == {"GET"}

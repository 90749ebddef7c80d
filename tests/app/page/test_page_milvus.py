"""The page of a gallery in Milvus, in a real browser, while the server goes and comes back."""

from pathlib import Path

import pytest
from conftest import picture
from milvus_server import Server
from page_tools import ids, needs_chromium, settle, start_server, upload

from index.build.pipeline import build
from index.embedders.onnx import OnnxEmbedder
from index.stores.milvus.client import Address
from index.stores.milvus.writer import MilvusWriter
from index.stores.models import Models

pytestmark = [needs_chromium, pytest.mark.slow]


def complaint(tab) -> str:
    return tab.inner_text(".complaint") + tab.inner_text("#first")


def test_the_page_says_that_the_server_is_gone_and_goes_on_when_it_is_back(
    browser,
    milvus_server: Server,
    folder: Path,
    student_file: Path,
    teacher_file: Path,
    tmp_path,
    monkeypatch,
):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    models = Models(OnnxEmbedder(student_file), OnnxEmbedder(teacher_file), None)
    address = Address(milvus_server.uri, "page")
    build([folder], models, MilvusWriter(address, tmp_path / "work"))
    for i in range(3):
        picture(50 + i).save(tmp_path / f"query-{i}.png")
    process, page = start_server(str(address), "--teacher", str(teacher_file))
    try:
        tab = browser.new_page()
        tab.set_default_timeout(60_000)
        tab.goto(page)
        tab.wait_for_selector(".search .example")
        upload(tab, tmp_path / "query-0.png")
        assert len(ids(tab)) == len(ids(tab, "second")) == 12
        tab.get_by_role("tab", name="Report").click()
        tab.wait_for_selector("#report dl")
        told = tab.inner_text("#report dl")
        assert all(text in told for text in ("Searched by\nMilvus", milvus_server.uri, "page, now page_"))
        tab.wait_for_selector("#report .waiting-for", state="detached")
        tab.get_by_role("tab", name="Search").click()
        milvus_server.stop()
        upload(tab, tmp_path / "query-1.png")
        assert f"No Milvus server answers at {milvus_server.uri}" in complaint(tab)
        assert ids(tab) == []
        milvus_server.start()
        for _ in range(30):  # it answers before it has loaded its collections
            tab.click(".turn-right")
            settle(tab)
            if len(ids(tab)) == len(ids(tab, "second")) == 12:
                break
            tab.wait_for_timeout(1000)
        assert complaint(tab).count("Milvus") == 0
        assert len(ids(tab)) == len(ids(tab, "second")) == 12
        upload(tab, tmp_path / "query-2.png")
        assert len(ids(tab)) == 12
        tab.close()
    finally:
        process.kill()
        process.wait(10)

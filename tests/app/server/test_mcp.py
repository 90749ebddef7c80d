"""The tools for language models, called without a client."""

import asyncio
import threading
from importlib.util import find_spec

import pytest

from app.server.concurrency import SharedSearcher
from index.build.pipeline import build_index
from index.embedders.onnx import OnnxEmbedder
from index.parallel import CORES
from index.search import open_searcher

if not find_spec("mcp"):
    pytest.skip("the extra mcp is not installed", allow_module_level=True)

from mcp.server.fastmcp.exceptions import ToolError

from app.server import mcp


@pytest.fixture
def searcher(folder, tmp_path, student_file) -> SharedSearcher:
    build_index([folder], OnnxEmbedder(student_file), tmp_path / "idx")
    return SharedSearcher(open_searcher(tmp_path / "idx"))


@pytest.mark.parametrize("mode", ["teacher", "rerank", "best"])
def test_a_mode_that_an_index_lacks_is_one_line(searcher, mode):
    tools = mcp.build_tools(searcher, 1 << 20)
    for call in (("search_by_photo", {"image": "data:,x"}), ("search_by_id", {"id": 0})):
        with pytest.raises(ToolError, match=f"[Nn]o (mode '{mode}'|teacher)"):
            asyncio.run(tools.call_tool(call[0], {**call[1], "mode": mode}))


def test_slow_links_hold_up_no_search(searcher, monkeypatch):
    slow, begun = threading.Event(), threading.Semaphore(0)

    def fetch(address: str) -> bytes:
        begun.release()
        slow.wait(20)
        return b""

    monkeypatch.setattr(mcp, "fetch_image", fetch)
    tools = mcp.build_tools(searcher, 1 << 20)

    async def talk() -> str:
        asked = {"image": "https://example.org/a.png"}
        waiting = [asyncio.create_task(tools.call_tool("search_by_photo", asked)) for _ in range(CORES + 1)]
        for _ in waiting:
            assert await asyncio.to_thread(begun.acquire, True, 10), "more links than lanes are followed"
        found = await asyncio.wait_for(searcher.run("student", lambda: "found"), 5)
        slow.set()
        await asyncio.gather(*waiting, return_exceptions=True)
        return found

    assert asyncio.run(talk()) == "found"

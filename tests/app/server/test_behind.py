"""What stands before and beside the server: proxies, probes, programs that write what it does not know."""

import threading
import time
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest
from conftest import picture
from page_tools import start_server
from starlette.testclient import TestClient

from app.server.app import ServerOptions, build_app
from index.build.pipeline import build_index
from index.embedders.onnx import OnnxEmbedder
from index.errors import UsageError
from index.search import open_searcher
from index.stores.options import IndexOptions

HOST = {"base_url": "http://localhost"}
MCP = bool(find_spec("mcp"))


@contextmanager
def started(index: Path):
    process, address = start_server(index)
    try:
        yield address
        assert process.poll() is None
    finally:
        process.kill()
        process.wait(10)


@pytest.fixture(scope="module")
def apps(page_root: Path, tmp_path_factory):
    """The app as it is, and the one that a proxy shows at /photos."""
    cache = tmp_path_factory.mktemp("cache")
    searcher = open_searcher(page_root / "idx")
    return [build_app(searcher, ServerOptions(mcp=MCP, root=root), cache) for root in ("", "/photos")]


@pytest.fixture(scope="module")  # MCP starts once an app
def client(apps):
    with TestClient(apps[0], **HOST) as client:
        yield client


@pytest.mark.parametrize(
    "route",
    ["/", "/health", "/metrics", "/search?id=0", "/thumbs/0", "/images/0", "/thumbs/99999", "/config"],
)
def test_head_is_get_without_its_body(client, route):
    asked, got = client.head(route), client.get(route)
    assert asked.status_code == got.status_code
    assert asked.headers["content-type"] == got.headers["content-type"]
    assert asked.content == b""
    assert got.content


def test_head_of_what_never_ends_does(page_root):
    with started(page_root / "idx") as address:
        for route in ("/gradio_api/heartbeat/x", "/health", "/"):
            assert httpx.head(address + route, timeout=10).status_code == 200


def test_head_of_what_only_takes_posts_is_refused(client):
    assert client.head("/embed").status_code == 405


@pytest.mark.parametrize(
    ("method", "route", "allowed"),
    [
        ("GET", "/embed", "POST"),
        ("PUT", "/search", "GET, HEAD, POST"),
        ("DELETE", "/thumbs/0", "GET, HEAD"),
        ("POST", "/health", "GET, HEAD"),
        ("OPTIONS", "/v1/embeddings", "POST"),
    ],
)
def test_a_wrong_method_is_told_from_a_wrong_address(client, method, route, allowed):
    answer = client.request(method, route)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert answer.json()["detail"].startswith(f"{route} takes ")
    assert client.request(method, "/nothing/of/the/kind").status_code in (404, 405)


@pytest.mark.parametrize(
    ("method", "route", "known"),
    [
        ("GET", "/search?id=0&prefix=nope/", ", only id, text, like, unlike, mode, k, format, where"),
        ("POST", "/search?count=3", ", only like, unlike, mode, k, format, where"),
        ("GET", "/health?verbose=1", "; there are none"),
        ("GET", "/metrics?name=x", "; there are none"),
        ("GET", "/thumbs/0?size=64", "; there are none"),
        ("POST", "/embed?model=x", "; there are none"),
        ("POST", "/v1/embeddings?dimensions=4", "; there are none"),
    ],
)
def test_a_parameter_that_there_is_not_is_refused(client, method, route, known):
    answer = client.request(method, route)
    assert answer.status_code == 422
    assert answer.json()["detail"].endswith(f"here{known}.")


def test_a_parameter_that_is_given_twice_is_refused(client):
    answer = client.get("/search?id=0&k=3&k=4")
    assert (answer.status_code, answer.json()["detail"]) == (422, "k is given twice.")


@pytest.mark.parametrize("route", ["/health", "/search?id=0", "/thumbs/0", "/metrics"])
def test_a_slash_at_the_end_changes_nothing(client, route):
    path, _, query = route.partition("?")
    assert client.get(f"{path}/?{query}").status_code == client.get(route).status_code == 200


@pytest.mark.skipif(not MCP, reason="the extra mcp is not installed")
def test_mcp_too(client):
    asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    head = {"Accept": "application/json, text/event-stream"}
    answers = [client.post(path, json=asked, headers=head) for path in ("/mcp", "/mcp/")]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()


@pytest.mark.parametrize("before", ["", "/photos"])  # a proxy takes it off, or leaves it on
def test_a_proxy_may_show_it_below_a_path(apps, before):
    client = TestClient(apps[1], **HOST)  # MCP has its lifespan in `client`
    headers = {"X-Forwarded-Host": "example.org", "X-Forwarded-Proto": "https"}
    page = client.get(f"{before}/", headers=headers).text
    assert '"root":"https://example.org/photos"' in page
    for route in ("/health", "/thumbs/0", "/search?id=0", "/config"):
        assert client.get(before + route).status_code == 200, route
    assert client.get(f"{before}/gradio_api/file=http://127.0.0.1/").status_code == 404
    assert client.get("/photosmore/health").json() != client.get("/health").json()


@pytest.mark.parametrize("root", ["photos", "/photos/", "/", "//x", "/a b", "https://x.org/a", "/é"])
def test_a_root_that_is_no_path_is_refused(root):
    with pytest.raises(UsageError, match="--root-path"):
        ServerOptions(root=root)


def test_an_index_that_was_written_again_is_served_without_a_start(folder, tmp_path, student_file):
    student = OnnxEmbedder(student_file)
    index = build_index([folder], student, tmp_path / "idx")
    before = len(index)
    with started(tmp_path / "idx") as address:
        first = httpx.get(f"{address}/health", timeout=60).json()["index"]
        assert first["count"] == before
        picture(77).save(folder / "new.png")
        failed, stop = [], threading.Event()

        def ask() -> None:
            while not stop.is_set():
                answer = httpx.get(f"{address}/search?id=0", timeout=60)
                if answer.status_code != 200:
                    failed.append(answer.text)

        asking = threading.Thread(target=ask)
        asking.start()
        build_index([folder], student, tmp_path / "idx", options=IndexOptions(update=True))
        until = time.monotonic() + 60
        while (now := httpx.get(f"{address}/health", timeout=60).json()["index"]) == first:
            assert time.monotonic() < until
            time.sleep(0.1)
        assert (now["count"], now["generation"]) == (before + 1, first["generation"] + 1)
        assert httpx.get(f"{address}/thumbs/{before}", timeout=60).status_code == 200
        stop.set()
        asking.join()
        assert not failed

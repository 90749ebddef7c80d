"""The guard in front of everything: password, host, other sites, size."""

import asyncio
import base64
import os

import pytest
from fastapi import FastAPI, Request
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from app.server.guard import Guard, Rules, is_local

PASSWORD = "anna:päss:wörd"


def client(rules: Rules, **options) -> TestClient:
    app = FastAPI()
    app.add_middleware(Guard, rules=rules)

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    async def echo(path: str, request: Request) -> int:
        return len(await request.body())

    return TestClient(app, **options)


def basic(text: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


@pytest.mark.parametrize(
    "headers",
    [
        {}, {"Authorization": ""}, {"Authorization": "Basic"}, {"Authorization": "Basic !!!"},
        {"Authorization": "Basic " + "=" * 50}, {"Authorization": "Bearer anna"},
        {"Authorization": basic(PASSWORD)["Authorization"].replace("Basic", "Digest")},
        basic(""), basic(":"), basic("anna:"), basic(PASSWORD[:-1]), basic(PASSWORD + "x"),
        basic(PASSWORD.upper()), {"Cookie": "access-token=anna"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/thumbs/0", "/metrics", "/health", "/mcp", "//search"])
def test_without_the_password_nothing_is_answered(headers, path):
    answer = client(Rules(password=PASSWORD)).get(path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Basic")


def test_with_the_password_everything_is():
    assert client(Rules(password=PASSWORD)).get("/", headers=basic(PASSWORD)).status_code == 200
    assert client(Rules()).get("/").status_code == 200


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True), ("LOCALHOST:7860", True), ("127.0.0.1:1", True), ("127.1.2.3", True),
        ("[::1]:7860", True), ("::1", True), ("photos.localhost", True), ("evil.example", False), ("", False),
        ("localhost.evil.example", False), ("127.0.0.1.evil.example", False), ("0.0.0.0", False),
        ("127.0.0.1@evil.example", False), ("10.0.0.1", False), ("[::1", False), ("127.1", False),
    ],
)  # fmt: skip
def test_which_names_are_local(host, local):
    assert is_local(host) is local


@given(st.binary(max_size=30).map(lambda sent: sent.decode("latin-1")))
def test_no_host_is_too_odd(host):
    assert is_local(host) in (True, False)


def test_a_password_that_is_no_utf_8_is_its_bytes():
    known = {"Authorization": f"Basic {base64.b64encode(PASSWORD.encode('latin-1')).decode()}"}
    guarded = client(Rules(password=os.fsdecode(PASSWORD.encode("latin-1"))))
    assert (guarded.get("/", headers=known).status_code, guarded.get("/").status_code) == (200, 401)


def test_a_foreign_name_that_points_here_gets_nothing_unless_it_knows_the_password():
    evil = {"base_url": "http://evil.example"}
    assert client(Rules(local=True), **evil).get("/").status_code == 403
    assert client(Rules(local=True), base_url="http://localhost:7860").get("/").status_code == 200
    known = client(Rules(local=True, password=PASSWORD), **evil).get("/", headers=basic(PASSWORD))
    assert known.status_code == 200


def test_another_sites_page_can_change_nothing():
    for site, status in (("cross-site", 403), ("same-origin", 200), ("same-site", 200), ("none", 200)):
        assert client(Rules()).post("/", headers={"Sec-Fetch-Site": site}).status_code == status
    other = {"Sec-Fetch-Site": "cross-site"}
    assert client(Rules()).get("/", headers=other).status_code == 200
    assert client(Rules()).get("/search?id=0", headers=other).status_code == 403  # which may cost money
    named = Rules(origins=("https://shop.example",))
    assert client(named).get("/search?id=0", headers=other | {"Origin": named.origins[0]}).status_code != 403


@pytest.mark.parametrize(
    "path",
    "file=http://a.org/b file=https://10.0.0.1/ file=HTTPS://a.org file/http://a.org proxy=http://a.org "
    "file%3Dhttp%3A%2F%2Fa.org %66ile=http://a.org file=%20http://a.org".split(),
)
def test_gradio_fetches_no_address(path):
    assert client(Rules()).get(f"/gradio_api/{path}").status_code == 404
    assert client(Rules()).get("/gradio_api/file=/tmp/gradio/http:a.png").status_code == 200


@pytest.mark.parametrize("declared", ["11", "99999999999999999999999", "-1", "ten", "0x1"])
def test_what_declares_too_much_is_refused_at_once(declared):
    answer = client(Rules(most_bytes=10)).post("/", content=b"x", headers={"Content-Length": declared})
    assert answer.status_code == 413
    assert answer.text == "Send at most 1e-05 MB."


@pytest.mark.parametrize(("chunks", "status"), [(5, 200), (6, 413)])
def test_what_declares_nothing_is_counted_as_it_comes(chunks, status):
    answer = client(Rules(most_bytes=10)).post("/", content=iter([b"ab"] * chunks))
    assert answer.status_code == status


def test_no_more_is_read_than_the_limit():
    read = 0

    async def receive():
        nonlocal read
        read += 1
        return {"type": "http.request", "body": b"ab", "more_body": True}

    async def send(message):
        pass

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "query_string": b""}
    asyncio.run(client(Rules(most_bytes=10)).app(scope, receive, send))
    assert read == 6


def test_websockets_are_closed():
    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(Guard(None, Rules())({"type": "websocket"}, None, send))
    assert sent[0]["type"] == "websocket.close"

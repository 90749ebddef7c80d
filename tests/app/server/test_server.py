"""`retrieval serve` as a process of its own: the password, Gradio's routes, signals, MCP."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest
from conftest import picture, write_embedder
from teacher_server import TeacherServer, serving

from app.server.app import ServerOptions
from index.build.pipeline import build_index
from index.embedders.onnx import OnnxEmbedder
from index.embedders.options import EmbedderOptions
from index.errors import UsageError
from index.teachers.spec import TeacherSpec

USER, PASSWORD = "anna", "correct horse"
LIMIT = 300_000  # bytes


@contextmanager
def started(*options: object, **environment: str):
    """Run the server; yields the process and its address, which is complete on return only in `.stderr`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "retrieval", "serve", *map(str, options), "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment,
    )  # fmt: skip
    try:
        address = process.stdout.readline().strip()
        assert address.startswith("http://"), process.stderr.read()
        yield process, address
    finally:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen, number: int) -> tuple[int, float, str]:
    """Send a signal; the exit code, the seconds that it took, and stderr."""
    start = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    return process.returncode, time.monotonic() - start, errors


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A server over four photos, with everything switched on, and secrets around it."""
    root = tmp_path_factory.mktemp("site")
    (root / "images").mkdir()
    for i in range(4):
        picture(i).save(root / "images" / f"{i}.png")
    (root / "secret.txt").write_text("secret")
    student = OnnxEmbedder(write_embedder(root / "student.onnx", seed=1))
    teacher = OnnxEmbedder(write_embedder(root / "teacher.onnx", dim=12, side=64, seed=2))
    build_index([root / "images"], student, root / "idx", teacher)
    (root / "ledger.sqlite").write_text("secret")
    cache = {"XDG_CACHE_HOME": str(root / "cache"), "GRADIO_TEMP_DIR": str(root / "uploads")}
    mcp = ["--mcp"] if find_spec("mcp") else []
    with started(
        root / "idx", "--max-upload-mb", LIMIT / 1e6, *mcp, RETRIEVAL_AUTH=f"{USER}:{PASSWORD}", **cache
    ) as (process, address):
        yield root, address
        code, seconds, _ = ended(process, signal.SIGINT)
        assert code == 0
        assert seconds < 8


@pytest.fixture
def http(site):
    with httpx.Client(base_url=site[1], auth=(USER, PASSWORD), timeout=30) as client:
        yield client


ROUTES = (
    "/ /config /info /thumbs/0 /images/0 /search?id=0 /health /metrics /theme.css /favicon.ico /robots.txt "
    "/gradio_api/info /gradio_api/startup-events /mcp /gradio_api/heartbeat/x "
    "/gradio_api/file=/etc/passwd /gradio_api/openapi.json /login_check /monitoring /nowhere "
    "/openapi.json /docs /v1/models"
).split()
POSTS = (
    "/search /embed /v1/embeddings /gradio_api/upload /gradio_api/queue/join /gradio_api/call/search_by_id "
    "/gradio_api/run/predict /mcp /login"
).split()


def test_without_the_password_there_is_nothing(site):
    with httpx.Client(base_url=site[1], timeout=30) as stranger:
        for route in ROUTES:
            assert stranger.get(route).status_code == 401, route
        for route in POSTS:
            assert stranger.post(route, json={}).status_code == 401, route
            assert stranger.post(route, auth=(USER, "wrong"), json={}).status_code == 401, route


def test_only_that_the_server_runs_is_told_to_everyone(site):
    with httpx.Client(base_url=site[1], timeout=30) as stranger:
        assert stranger.get("/livez").json() == {"status": "ok"}
        assert stranger.get("/livez/../health").status_code == 401
        assert stranger.post("/livez").status_code == 401


def test_the_products_own_routes_are_described_and_are_as_described(http):
    told = http.get("/openapi.json").json()
    assert told["info"]["title"] == "retrieval"
    routes = "/search /embed /v1/embeddings /v1/models /thumbs/{item} /images/{item} /health /livez /metrics"
    routes += " /widget.js"
    assert set(told["paths"]) == set(routes.split())
    photo = http.get("/images/0").content
    for path, ways in told["paths"].items():
        for way, route in ways.items():
            assert route.get("description"), (way, path)
            if way == "post":
                kinds = route["requestBody"]["content"]
                if "multipart/form-data" in kinds:
                    assert http.post(path, files={"image": photo}).status_code == 200, path
                sent = dict.fromkeys(kinds["application/json"]["schema"]["required"], "not base64")
                assert http.post(path, json=sent).status_code == 400, path
                continue
            example = {"id": 0} if path == "/search" else {}
            assert http.get(path.replace("{item}", "0"), params=example).status_code == 200, path
    names = {each["name"] for each in told["paths"]["/search"]["get"]["parameters"]}
    assert names == {"id", "text", "like", "unlike", "mode", "k", "format", "where"}
    assert http.get("/docs").headers["location"] == "./?tab=api"


def test_with_it_the_page_is_there(http):
    page = http.get("/")
    assert "gradio" in page.text
    assert page.headers["content-encoding"] == "gzip"
    assert page.num_bytes_downloaded <= 40_000
    assert http.get("/thumbs/0").headers["content-type"] == "image/jpeg"


def test_health_names_what_is_served(http, site):
    health = http.get("/health").json()
    assert health["status"] == "ok"
    assert (health["index"]["name"], health["index"]["count"]) == ("idx", 4)
    assert {name: model["provider"] for name, model in health["models"].items()} == {
        "student": "CPUExecutionProvider",
        "teacher": "CPUExecutionProvider",
    }
    assert health["models"]["student"]["name"] == "student.onnx"
    assert str(site[0]) not in json.dumps(health)


def test_answers_are_sent_at_once(http):
    """With Nagle's algorithm each waits 40 ms, for the acknowledgement of its first part."""
    seconds = []
    for _ in range(60):
        start = time.perf_counter()
        http.get("/health")
        seconds.append(time.perf_counter() - start)
    assert min(seconds[30:]) < 0.03  # a new connection is acknowledged at once for a while


def test_metrics_are_what_prometheus_reads(http):
    from prometheus_client.parser import text_string_to_metric_families

    http.get("/search?id=0")
    http.get("/thumbs/99")
    families = {family.name: family for family in text_string_to_metric_families(http.get("/metrics").text)}
    assert {
        "retrieval_stage_seconds",
        "retrieval_answers",
        "process_resident_memory_bytes",
    } <= families.keys()
    answers = {tuple(s.labels.values()): s.value for s in families["retrieval_answers"].samples}
    assert answers["search", "200"] >= 1
    assert answers["thumbs", "404"] >= 1
    assert answers["page", "401"] >= 1


def test_what_is_too_large_is_refused_by_every_route(http):
    for route in ("/search", "/embed", "/gradio_api/upload?upload_id=x"):
        for content in (bytes(LIMIT + 1), iter([bytes(1000)] * (LIMIT // 1000 + 2))):
            boundary = {"Content-Type": "multipart/form-data; boundary=x"}
            head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
            body = head + content if isinstance(content, bytes) else iter([head, *content])
            assert http.post(route, content=body, headers=boundary).status_code == 413, route
    assert http.post("/gradio_api/queue/join", json={"data": ["x" * LIMIT]}).status_code == 413


def secrets(root: Path) -> list[str]:
    files = ["secret.txt", "idx/manifest.json", "idx/items.arrow", "idx/student.onnx", "ledger.sqlite"]
    return ["/etc/passwd", *(str(root / name) for name in files), str(root / "images" / "0.png")]


FILE_ROUTES = (
    "/gradio_api/file/ /file= /file/ /static/ /assets/ /svelte/ /gradio_api/proxy= "
    "/gradio_api/custom_component/a/client/x/"
).split()


def test_gradio_serves_no_file_that_was_not_uploaded(http, site):
    uploads, up = site[0] / "uploads", "../" * 12

    def ways(path: str) -> list[str]:
        return [
            path, f"//{path}", f"{up}{path}", f"{uploads}/{up}{path}", f"{uploads}/%2e%2e/{up}{path}",
            f"{path}%00.png", path.replace("/", "%2f"), path.replace("/", "%5c"),
        ]  # fmt: skip

    attacks = [f"/gradio_api/file={way}" for path in secrets(site[0]) for way in ways(path)]
    attacks += [route + way for route in FILE_ROUTES for way in ways("/etc/passwd")]
    for attack in attacks:
        answer = http.get(attack)
        assert answer.status_code in (400, 403, 404, 500), attack
        assert b"secret" not in answer.content.replace(b"secret.txt", b""), attack
        assert b"root:" not in answer.content, attack


def test_gradio_fetches_no_address(http):
    with serving(TeacherServer(None)) as address:
        inside = address.replace("/v1/embeddings", "/a.png")
        for route in ("/gradio_api/file=", "/gradio_api/file/", "/gradio_api/proxy="):
            assert http.get(route + inside).status_code == 404


def test_a_file_that_is_only_claimed_to_be_uploaded_is_not_read(http, site):
    """Gradio's events take paths from the browser: those of uploaded files, and no others."""
    config = http.get("/config").json()
    images = {c["id"] for c in config["components"] if c["type"] in ("image", "file", "imageeditor")}
    events = [d for d in config["dependencies"] if images & set(d["inputs"])]
    for event in events:
        for path in [
            *secrets(site[0]),
            f"{site[0]}/uploads/../secret.txt",
            "http://127.0.0.1/",
            "https://a.org/",
        ]:
            sent = [{"path": path, "meta": {"_type": "gradio.FileData"}}] * len(event["inputs"])
            session = f"s{event['id']}{hash(path)}"
            trigger = event["targets"][0][0]
            body = {"data": sent, "fn_index": event["id"], "session_hash": session, "trigger_id": trigger}
            assert http.post("/gradio_api/queue/join", json=body).status_code == 200
            told = []
            with http.stream("GET", f"/gradio_api/queue/data?session_hash={session}") as stream:
                for line in stream.iter_lines():
                    told.append(line)
                    if "process_completed" in line:
                        break
            assert '"success":false' in told[-1].replace(" ", ""), path
            assert "root:" not in "".join(told)


def test_only_pictures_of_the_index_are_served_by_the_whole_app(http):
    for kind in ("thumbs", "images"):
        for attack in (
            "4",
            "-1",
            "..%2f..%2fsecret.txt",
            "%2e%2e/secret.txt",
            "..%5csecret.txt",
            "%00",
            "9" * 3000,
        ):
            answer = http.get(f"/{kind}/{attack}")
            assert answer.status_code == 404, attack
            assert b"secret" not in answer.content.replace(b"secret.txt", b"")


@pytest.mark.skipif(not find_spec("mcp"), reason="the extra mcp is not installed")
def test_a_language_model_can_search(site):
    from mcp import ClientSession
    from mcp.client.streamable_http import streamable_http_client

    async def talk():
        url = f"{site[1]}/mcp"
        async with (
            httpx.AsyncClient(auth=(USER, PASSWORD)) as http,
            streamable_http_client(url, http_client=http) as (read, write, _),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            tools = {tool.name: tool for tool in (await session.list_tools()).tools}
            found = await session.call_tool("search_by_id", {"id": 0, "k": 2})
            refused = await session.call_tool("search_by_photo", {"image": "http://127.0.0.1/a.png"})
            outside = await session.call_tool("search_by_id", {"id": 99})
            unknown = await session.call_tool("search_by_photo", {"image": "x", "mode": "best"})
            greedy = await session.call_tool("search_by_id", {"id": 0, "k": 501})
        return tools, found, refused, outside, greedy, unknown

    tools, found, refused, outside, greedy, unknown = asyncio.run(talk())
    assert tools.keys() == {"search_by_id", "search_by_photo"}
    assert "most like" in tools["search_by_id"].description
    hits = json.loads(found.content[0].text)["results"]
    assert [hit["rank"] for hit in hits] == [1, 2]
    assert hits[0]["thumbnail"] == f"{site[1]}/thumbs/{hits[0]['id']}"
    assert "private network" in str(refused.content)
    assert "its ids are 0 to 3" in str(outside.content)
    assert "No mode 'best' here" in str(unknown.content)
    assert "less than or equal to 500" in str(greedy.content)


@pytest.mark.slow
def test_a_teacher_that_takes_too_long_does_not_keep_the_server(
    folder, tmp_path: Path, student_file, teacher_file
):
    model = TeacherServer(OnnxEmbedder(teacher_file))
    with serving(model) as url:
        spec = TeacherSpec(url, EmbedderOptions(), tmp_path / "ledger.sqlite", 100)
        build_index([folder], OnnxEmbedder(student_file), tmp_path / "idx", spec.open("cpu"))
        model.delay = 60.0
        picture(99).save(tmp_path / "query.png")
        options = ("--teacher", url, "--budget", 100, "--ledger", tmp_path / "ledger.sqlite")
        with started(tmp_path / "idx", *options) as (process, address):
            before = len(model.calls)
            sent = {"image": (tmp_path / "query.png").read_bytes()}

            def search() -> None:
                with suppress(httpx.HTTPError):
                    httpx.post(f"{address}/search?mode=teacher", files=sent, timeout=30)

            threading.Thread(target=search, daemon=True).start()
            while len(model.calls) == before:
                time.sleep(0.01)
            code, seconds, _ = ended(process, signal.SIGTERM)
            assert code == 0
            assert 4 < seconds < 9


@pytest.mark.slow
def test_a_signal_lets_what_is_in_flight_be_answered(
    folder: Path, tmp_path: Path, student_file: Path, teacher_file
):
    """Though a page holds a connection open that never ends."""
    model = TeacherServer(OnnxEmbedder(teacher_file))
    with serving(model) as url:
        spec = TeacherSpec(url, EmbedderOptions(), tmp_path / "ledger.sqlite", 100)
        build_index([folder], OnnxEmbedder(student_file), tmp_path / "idx", spec.open("cpu"))
        model.delay = 2.0
        picture(99).save(tmp_path / "query.png")
        sent = {"image": (tmp_path / "query.png").read_bytes()}
        options = ("--teacher", url, "--budget", 100, "--ledger", tmp_path / "ledger.sqlite")
        with started(tmp_path / "idx", *options) as (process, address):
            answers = []
            httpx.get(f"{address}/health", timeout=30)

            def search() -> None:
                answers.append(
                    httpx.post(f"{address}/search?mode=teacher", files=sent, timeout=30).status_code
                )

            def look() -> None:
                with httpx.stream("GET", f"{address}/gradio_api/heartbeat/x", timeout=30) as stream:
                    answers.extend(line for line in stream.iter_lines() if line.startswith("never"))

            threads = [threading.Thread(target=search), threading.Thread(target=look)]
            before = len(model.calls)
            for thread in threads:
                thread.start()
            while len(model.calls) == before:
                time.sleep(0.01)
            code, seconds, errors = ended(process, signal.SIGTERM)
            for thread in threads:
                thread.join(10)
            assert (code, answers) == (0, [200])
            assert errors == ""
            assert seconds < 6


@pytest.mark.parametrize("password", ["anna", ":", "anna:", ":secret"])
def test_a_password_without_a_user_is_refused(password):
    with pytest.raises(UsageError, match="user:password"):
        ServerOptions(password=password)
    assert "secret" not in repr(ServerOptions(password="anna:secret"))


@pytest.mark.parametrize("limit", [0, -1, float("nan"), float("inf")])
def test_a_limit_must_be_one(limit):
    with pytest.raises(UsageError, match="--max-upload-mb"):
        ServerOptions(most_megabytes=limit)


def test_only_a_local_address_is_local():
    assert ServerOptions("::1").rules.local
    assert not ServerOptions("0.0.0.0").rules.local


def test_a_password_on_the_command_line_is_warned_of_and_one_in_the_environment_is_not(monkeypatch):
    from typer.testing import CliRunner

    from app import cli
    from app.server import app as server
    from index import search

    served = []
    monkeypatch.setattr(search, "open_searcher", lambda *given, **named: "searcher")
    monkeypatch.setattr(server, "serve", lambda searcher, options: served.append(options))
    monkeypatch.delenv("RETRIEVAL_AUTH", raising=False)
    command = ["serve", "idx", "--max-upload-mb", "5", "--price", "1.2", "--mcp"]
    shown = CliRunner().invoke(cli.app, [*command, "--auth", "anna:secret"])
    assert "Better set RETRIEVAL_AUTH" in shown.stderr
    quiet = CliRunner(env={"RETRIEVAL_AUTH": "anna:secret"}).invoke(cli.app, command)
    assert quiet.stderr == ""
    assert (
        "anna"
        not in CliRunner(env={"RETRIEVAL_AUTH": "anna:secret"}).invoke(cli.app, ["serve", "--help"]).stdout
    )
    assert served == [ServerOptions(password="anna:secret", most_megabytes=5.0, mcp=True, price=1.2)] * 2

"""The API against its own description, with requests that nobody would think of."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from starlette.staticfiles import StaticFiles
from starlette.testclient import TestClient

from app.server.app import ServerOptions, build_app
from index.search import open_searcher

schemathesis = pytest.importorskip("schemathesis")
WITH_BODY = [
    "/search",
    "/embed",
    "/v1/embeddings",
]  # only these can be asked wrongly: other ways take any text
PATHS = [*WITH_BODY, "/v1/models", "/thumbs/{item}", "/images/{item}", "/health", "/livez", "/metrics"]
PATHS += ["/widget.js"]
OPEN = ServerOptions(host="0.0.0.0")  # answers whatever host a request names
ASKED = [*((path, "positive") for path in PATHS), *((path, "negative") for path in WITH_BODY)]


@pytest.fixture(scope="module")
def described(page_root: Path, tmp_path_factory):
    """What the app of thirty pictures says of itself."""
    app = build_app(open_searcher(page_root / "idx"), OPEN, tmp_path_factory.mktemp("cache"))
    with TestClient(app):
        yield schemathesis.openapi.from_asgi("/openapi.json", app)


def test_the_page_without_a_server_is_described_where_it_is_served(page_root: Path, tmp_path, monkeypatch):
    (tmp_path / "index.html").write_text("<p>here</p>")
    monkeypatch.setattr("app.server.local.build_local", lambda *_: StaticFiles(directory=tmp_path, html=True))
    for local in (True, False):
        searcher = open_searcher(page_root / "idx", with_teacher=False)
        app = build_app(searcher, ServerOptions(local=local), cache=tmp_path)
        with TestClient(app, base_url="http://localhost") as client:
            described = client.get("/openapi.json").json()["paths"]
            assert ("/local/" in described) == local
            if local:
                answer = client.get("/local/")
                kinds = described["/local/"]["get"]["responses"]["200"]["content"]
                assert answer.text == "<p>here</p>"
                assert answer.headers["content-type"].split(";")[0] in kinds


@pytest.mark.parametrize(("path", "kind"), ASKED)
def test_every_answer_is_one_that_is_described(described, path: str, kind: str):
    names = "not_a_server_error status_code_conformance content_type_conformance response_schema_conformance"
    checks = [getattr(schemathesis.checks, name) for name in names.split()]
    for operation in described[path].values():

        @given(operation.as_strategy(generation_mode=schemathesis.GenerationMode(kind)))
        @settings(max_examples=10, derandomize=True, suppress_health_check=list(HealthCheck))
        def ask(case):
            case.call_and_validate(checks=checks)

        ask()

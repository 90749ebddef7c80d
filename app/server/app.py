"""The server: page, pictures, API, `/health` and `/metrics` on one app, behind one guard; `serve` runs it."""

import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from app.page.background import Background
from app.page.learning.learning import Learning
from app.page.learning.routes import build_learning
from app.page.page import build_page
from app.server.api import ERRORS, build_api, require_known
from app.server.concurrency import TEXT, SharedSearcher
from app.server.gradio_hardening import harden
from app.server.guard import Guard, Rules, is_local
from app.server.labels import NONE, Labels
from app.server.openai_api import build_embeddings
from app.server.pictures import Pictures, build_pictures
from index.errors import RetrievalError, UsageError, needs
from index.evaluation import charts
from index.evaluation.evaluate import read_labels
from index.search import Searcher
from index.teachers.cost import check_price

with needs("demo"):
    import gradio as gr
    import uvicorn
    from anyio.to_thread import run_sync
    from fastapi import APIRouter, Depends, FastAPI, Request, Response
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
    from starlette.middleware.cors import CORSMiddleware
    from starlette.middleware.gzip import GZipMiddleware
    from starlette.routing import BaseRoute, Match, Mount
    from starlette.types import ASGIApp, Receive, Scope, Send

PAGE = Path(__file__).parents[1] / "page"
CSS = [charts.COLOURS, PAGE / "page.css", PAGE / "tabs.css", charts.STYLE]
ICON = PAGE / "icon.svg"
WIDGET = Path(__file__).with_name("widget.js").read_bytes()  # puts the search into pages elsewhere
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
PAGE_ANSWER = {"description": "The page.", "content": {"text/html": {"schema": {"type": "string"}}}}
LOCAL = {"get": {"description": "Search in the visitor's browser.", "responses": {"200": PAGE_ANSWER}}}
POLL_SECONDS = 1.0  # seconds between two looks whether the index was written again
SHUTDOWN_SECONDS = 5  # seconds that requests in flight are given once the server is to stop
PASSWORD = "RETRIEVAL_AUTH"  # the environment variable  # noqa: S105


@dataclass(frozen=True)
class ServerOptions:
    """How to serve."""

    host: str = "127.0.0.1"  # address to listen on
    port: int = 7860  # 0 takes a free one
    password: str = field(default="", repr=False)  # `user:password`; empty asks for none
    most_megabytes: float = 50.0  # of one request
    mcp: bool = False  # whether to be an MCP server as well
    price: float | None = None  # of a thousand answers of the teacher, in the user's money
    root: str = ""  # path at which a proxy shows the server, such as `/photos`; empty for none
    labelled: tuple[Path, Path] | None = None  # labelled queries and the gallery's labels, for the report
    labels: Labels = NONE  # what the metadata says on cards
    local: bool = False  # whether there is a page at `local/` whose search runs in the visitor's browser
    shop: bool = False  # whether the page is the search with the student, and nothing else
    origins: tuple[str, ...] = ()  # as in `Rules`

    def __post_init__(self) -> None:
        user, colon, secret = self.password.partition(":")
        if self.password and not (user and colon and secret):
            raise UsageError(f"The password must be given as user:password, best in {PASSWORD}.")
        if not 0 < self.most_megabytes <= 2000:
            raise UsageError(f"--max-upload-mb must be between 0 and 2000, not {self.most_megabytes:g}.")
        if not 0 <= self.port <= 65_535:
            raise UsageError(f"--port must be between 0 and 65535, not {self.port}.")
        check_price(self.price)
        if self.root and not re.fullmatch(r"(/[\w.~-]+)+", self.root, re.ASCII):
            raise UsageError(f"--root-path must be as /photos, without a / at its end, not {self.root!r}.")
        for origin in self.origins:
            if not re.fullmatch(r"https?://[a-z0-9.-]+(:[0-9]+)?", origin):
                raise UsageError(f"--origin must be as https://shop.example, without a path, not {origin!r}.")
        if self.origins and self.password:
            raise UsageError(f"Pages of an --origin cannot send a password. Unset {PASSWORD}.")
        for file in self.labelled or ():
            read_labels(file)  # now: the report reads it when it is looked at

    @property
    def rules(self) -> Rules:
        """The same for the guard."""
        most = round(self.most_megabytes * 1e6)
        return Rules(self.password, most, is_local(self.host), self.root, self.origins)


class PageCompression(GZipMiddleware):
    """Compresses the page itself, which is 130 kB of text; the rest is small, or compressed already."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        is_page = scope["type"] == "http" and scope["path"] == "/"
        await (super().__call__ if is_page else self.app)(scope, receive, send)


class KnownMethods:
    """Answers 405 where a route is asked by a method that it has not: the page, below all, would say 404."""

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        self._app, self._routes = app, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or let through."""
        app = self._app
        if scope["type"] == "http":
            found = self._match(scope, scope["method"])
            if Match.PARTIAL in found and Match.FULL not in found:
                allowed = [each for each in METHODS if Match.FULL in self._match(scope, each)]
                said = f"{scope['path']} takes {' and '.join(allowed)}."
                listed = ", ".join(allowed).replace("GET", "GET, HEAD")  # as the guard has it
                app = JSONResponse({"detail": said}, 405, {"Allow": listed})
        await app(scope, receive, send)

    def _match(self, scope: Scope, method: str) -> set[Match]:
        return {route.matches({**scope, "method": method})[0] for route in self._routes}


def build_app(
    searcher: Searcher, shown: ServerOptions, cache: Path | None = None, learning: Learning | None = None
) -> FastAPI:
    """Put everything that is served on one app.

    Cache None takes the user's own folder; `learning` is what trains students meanwhile, if anything does.
    """
    rules, labels, shared = shown.rules, shown.labels, SharedSearcher(searcher)
    if shown.shop:
        shared.teacher_missing = "--shop serves the student alone."
    if shown.mcp:
        from app.server.mcp import build_tools

        tools = build_tools(shared, rules.most_bytes, rules.root)
        routes = tools.streamable_http_app().routes
        app = _new_app(lifespan=lambda app: tools.session_manager.run(), routes=routes)
    else:
        app = _new_app()
    # An index that was written again, or another student that has learnt meanwhile.
    app.state.is_replaced = lambda: (
        (learning is not None and learning.index != shared.index.path) or shared.index.is_replaced()
    )
    pictures = Pictures(shared.index, cache)
    Background(lambda _: pictures.trim()).start()
    app.include_router(build_pictures(pictures))
    app.include_router(build_api(shared, partial(labels.of, shared.index)))
    app.include_router(build_embeddings(shared))
    app.include_router(build_learning(learning, shared.index.path) if learning else APIRouter())

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Describe what is served, by which models."""
        return describe(shared)

    @app.get("/widget.js", response_class=Response, responses={200: {"content": {"text/javascript": {}}}})
    async def widget() -> Response:
        """Give the script that puts the search into a page elsewhere."""
        return Response(WIDGET, media_type="text/javascript", headers={"Cache-Control": "no-cache"})

    @app.get("/docs", include_in_schema=False)
    async def docs() -> RedirectResponse:
        return RedirectResponse("./openapi.json" if shown.shop else "./?tab=api")

    @app.get("/metrics", response_class=PlainTextResponse)
    def metrics() -> Response:
        """Count and time what was asked, for Prometheus."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    @app.exception_handler(RequestValidationError)
    async def explain(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return JSONResponse({"detail": f"{first['loc'][-1]}: {first['msg']}."}, 422)

    if shown.local:
        from app.server.local import build_local

        app.add_api_route("/local", lambda: RedirectResponse("local/"), include_in_schema=False)
        app.mount("/local", build_local(searcher, labels.title, cache))
        app.openapi()["paths"]["/local/"] = LOCAL
    app.add_middleware(PageCompression, compresslevel=5)
    app.add_middleware(KnownMethods, routes=list(app.routes))
    # It opens nothing: beside it Gradio's own, which lets every page read what Gradio answers, rests.
    app.add_middleware(CORSMiddleware)
    app.add_middleware(Guard, rules=rules)  # added last, it comes first
    links = {"local/": "Search on this device, sending no photo"} if shown.local else {}
    links |= {"learn": "Learn from your own photos"} if learning else {}
    page = build_page(shared, shown.price, shown.labelled, labels, links, shown.shop)
    harden(page)
    theme = gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    return gr.mount_gradio_app(
        app, page, path="/", theme=theme, css_paths=CSS, footer_links=[], run_history=False,
        max_file_size=rules.most_bytes, ssr_mode=False, show_error=True, favicon_path=str(ICON),
        allowed_paths=[], blocked_paths=[str(shared.index.path.absolute())],
        mcp_server=False, enable_monitoring=False, root_path=rules.root or None,
    )  # fmt: skip


def build_waiting(learning: Learning, rules: Rules) -> FastAPI:
    """Put what is served before there is an index on an app: the page on which a student learns."""
    app = _new_app()
    app.include_router(build_learning(learning, None))
    app.add_api_route("/", lambda: RedirectResponse("learn"), include_in_schema=False)
    app.add_middleware(Guard, rules=rules)
    app.state.is_replaced = lambda: learning.index is not None
    return app


def _new_app(**options: Any) -> FastAPI:
    # FastAPI's own docs are scripts from elsewhere: ours are a tab of the page.
    app = FastAPI(
        title="retrieval", version=version("retrieval"), docs_url=None, redoc_url=None,
        dependencies=[Depends(require_known)], responses=ERRORS, **options,
    )  # fmt: skip

    @app.get("/livez")
    async def livez() -> dict[str, str]:
        """Say that the server runs; the only route that asks for no password."""
        return {"status": "ok"}

    return app


def describe(searcher: Searcher) -> dict[str, Any]:
    """Describe what is served, by which models, on what they run."""
    manifest = searcher.index.manifest
    opened = searcher.models | ({TEXT: searcher.text.model} if searcher.text else {})
    models = {
        name: {fact: getattr(model, fact) for fact in ("name", "key", "dim", "provider")}
        for name, model in opened.items()
    }
    facts = {fact: getattr(manifest, fact) for fact in ("created", "generation", "count")}
    return {
        "status": "ok",
        "index": {"name": searcher.index.label, **facts},
        "modes": searcher.modes,
        "text_modes": searcher.text_modes,
        "models": models,
        "teacher_missing": searcher.teacher_missing,
    }


def serve(
    open_index: Callable[[], Searcher], options: ServerOptions, learning: Learning | None = None
) -> None:
    """Serve until SIGTERM or SIGINT; then answer what is in flight, and return.

    An index that is written again meanwhile takes the place of the old one between requests: the old one
    answers what is in flight, and what comes then waits for the new one. With `learning`, which begins then,
    there is none at first.

    Raises:
        UsageError: The address cannot be used.
    """

    def build() -> FastAPI:
        return build_app(open_index(), options, learning=learning)

    app: FastAPI | None = build_waiting(learning, options.rules) if learning else build()
    try:
        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        listener = socket.create_server((options.host, options.port), family=family)
    except OSError as error:
        raise UsageError(
            f"Cannot serve on {options.host}:{options.port}: {error.strerror}. Give another --host or --port."
        ) from error
    with listener:
        # asyncio sets this only on sockets that name their protocol: without it an answer, sent in two parts,
        # waits 40 ms for the other side to acknowledge the first. Connections inherit it.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not options.rules.local and not options.password:
            print(f"Anyone who reaches {options.host} can see the photos. Set {PASSWORD}.", file=sys.stderr)
        # uvicorn raises the signal again once it has stopped: it is to end here, with code 0, and at once,
        # though a thread may still wait for a teacher, and would keep the process for as long as it takes.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: os._exit(0))
        name = f"[{options.host}]" if ":" in options.host else options.host
        print(f"http://{name}:{listener.getsockname()[1]}", flush=True)
        if learning:
            assert options.rules.local  # it takes photos, and only from this machine
            learning.start()
        while app:
            server = _Server(app, build, learning)
            server.run([listener.dup()])  # it closes what it is given
            app = server.next_app


class _Server(uvicorn.Server):
    """Serves one state of an index, and ends when the app of the next is ready.

    Ends the connections that pages hold open, which would end by themselves only with the page, and, unless
    another app follows, what learns.
    """

    def __init__(self, app: FastAPI, build: Callable[[], FastAPI], learning: Learning | None) -> None:
        config = uvicorn.Config(app, log_level="warning", server_header=False, ws="none")
        config.timeout_graceful_shutdown = SHUTDOWN_SECONDS
        super().__init__(config)
        self.next_app: FastAPI | None = None
        self._learning = learning
        threading.Thread(target=self._watch, args=(app.state.is_replaced, build), daemon=True).start()

    def _watch(self, is_replaced: Callable[[], bool], build: Callable[[], FastAPI]) -> None:
        refused = ""
        while not self.should_exit:
            time.sleep(POLL_SECONDS)
            if not is_replaced():
                continue
            try:
                self.next_app = build()
                self.should_exit = True
            except (RetrievalError, OSError) as reason:  # the old one is searched on
                if refused != (refused := str(reason)):
                    print(f"The index was replaced, and cannot be served: {refused}", file=sys.stderr)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for route in self.config.app.routes:  # type: ignore[union-attr]
            if isinstance(route, Mount) and hasattr(route.app, "stop_event"):
                route.app.stop_event.set()
        if self._learning and not self.next_app:
            await run_sync(self._learning.stop)
        await super().shutdown(sockets)

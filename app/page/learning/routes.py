"""`/learn`: the page, what happens as server-sent events, and the photos of a folder of one's own."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from app.page.learning.learning import FEWEST, MOST, Learning
from app.page.views import ICON
from app.server.api import refusing
from distill.report.report import draw_strip, draw_training
from index.errors import needs
from index.html import load

with needs("demo"):
    from anyio.to_thread import run_sync
    from fastapi import APIRouter, Depends, Header, HTTPException, Request
    from fastapi.responses import HTMLResponse
    from fastapi.sse import EventSourceResponse, ServerSentEvent

HTML = load("app/page/learning/learning.html")
QUERIES = 5  # held-out photos that are shown, the same ones all along
LOOK_SECONDS = 0.5  # between two looks at a run


def require_same_origin(
    sec_fetch_site: Annotated[str, Header()] = "same-origin",
    origin: Annotated[str, Header()] = "",
    host: Annotated[str, Header()] = "",
) -> None:
    """Refuse what another page makes a browser send, be it from another port of this machine."""
    if sec_fetch_site != "same-origin" or (origin and urlsplit(origin).netloc != host):
        raise HTTPException(403, "Another site's page may not ask for this.")


def build_learning(learning: Learning, served: Path | None) -> APIRouter:
    """Serve the page; `served` is the index folder that the same app serves, if it does one."""
    router = APIRouter(include_in_schema=False)

    @router.get("/learn", response_class=HTMLResponse)
    async def page() -> str:
        return HTML.page(ICON, FEWEST, MOST)

    @router.get("/learn/events", response_class=EventSourceResponse)
    async def events() -> AsyncIterator[ServerSentEvent]:
        run, seen = learning.run, dict[str, Any]()
        live, ended = not run.ended, False
        while not ended:
            ended = run.ended or bool(run.stopped)  # asked first: nothing comes after
            for name, (state, draw) in parts_of(run.facts).items():
                if seen.get(name) != state:  # as HTML, whenever it changes
                    seen[name] = state
                    yield ServerSentEvent(event=name, data=draw())
            if not ended:
                await asyncio.sleep(LOOK_SECONDS)
        yield ServerSentEvent(event="end", data={"error": run.error or run.stopped, "live": live})

    @router.get("/learn/ready")
    async def ready() -> bool:
        return served is not None and served == learning.index

    router.include_router(_build_inbox(learning))
    return router


def _build_inbox(learning: Learning) -> APIRouter:
    router = APIRouter(dependencies=[Depends(require_same_origin)])

    async def run(work: Callable[[], Any]) -> Any:
        try:
            with refusing():
                return await run_sync(work)
        except OSError as reason:
            raise HTTPException(507, f"It cannot be kept here: {reason.strerror}.") from reason

    @router.post("/learn/photos")
    async def begin() -> int:
        return int(await run(learning.open_inbox))

    @router.put("/learn/photos/{number}/{place}")
    async def photo(number: int, place: int, request: Request, suffix: str = "") -> None:
        data = await request.body()
        await run(lambda: learning.inbox_of(number).take(place, suffix, data))

    @router.post("/learn/start/{number}")
    async def start(number: int) -> None:
        await run(lambda: learning.start_own(number))

    return router


def parts_of(facts: dict[str, Any]) -> dict[str, tuple[Any, Callable[[], str]]]:
    """Tell the parts of the page that there are: of each its state, and what draws it as HTML."""
    stage, training, lists = (facts.get(name) for name in ("stage", "training", "lists"))
    parts: dict[str, tuple[Any, Callable[[], str]]] = {
        "said": ((facts["step"], stage), lambda: HTML.said(facts["step"], stage))
    }
    if training:
        told = training.losses, training.agreement, facts["steps"], lists and lists.facts
        length = len(training.losses), len(training.agreement)
        parts["charts"] = length, lambda: HTML.charts(draw_training(*told))
    if lists:
        rows = range(min(QUERIES, len(lists.queries)))
        parts["strips"] = lists, lambda: HTML.found([draw_strip(lists, row) for row in rows], lists.facts)
    return parts

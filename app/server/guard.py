"""What every request must pass: the password, the host it is meant for, and a limit to what it brings."""

import base64
import hmac
import ipaddress
import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from app.server.metrics import ANSWERS
from index.errors import needs

with needs("demo"):
    from fastapi import HTTPException
    from starlette.datastructures import Headers
    from starlette.middleware.cors import CORSMiddleware
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Gradio offers to fetch addresses for anybody; `app.server.fetch` does so for the page, within limits.
CLOSED = re.compile(r"/gradio_api/(file[=/]\s*https?:|proxy=)", re.IGNORECASE)
ROUTES = "thumbs images search embed v1 mcp health metrics livez learn openapi.json widget.js".split()
SAFE = ("GET", "HEAD", "OPTIONS")
SHARED = "search"  # the route whose answers scripts of named origins may read; pictures need no such leave


@dataclass(frozen=True)
class Rules:
    """Who may ask for what."""

    password: str = field(default="", repr=False)  # `user:password` that every request must bring, if any
    most_bytes: int = 50_000_000  # of the body of one request
    # Whether the server listens on this machine alone. Then, unless there is a password, it answers only to
    # names of this machine: a page elsewhere gets nothing, even if its name points here.
    local: bool = False
    root: str = ""  # path before which a proxy shows the server, which it may take off or leave on
    origins: tuple[str, ...] = ()  # of pages elsewhere that may search, such as `https://shop.example`


class Guard:
    """Stands before the whole app: the page, the pictures, the API, `/metrics` and `/health` alike."""

    def __init__(self, app: ASGIApp, rules: Rules) -> None:
        self._app, self._rules = app, rules
        # As browsers send it; bytes of the environment that are no UTF-8 stay as they are.
        self._password = rules.password.encode("utf-8", "surrogateescape")
        self._too_much = f"Send at most {rules.most_bytes / 1e6:g} MB."

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or let through."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":  # nothing here speaks WebSocket
            return await send({"type": "websocket.close", "code": 1008})
        path, route = self._find_route(scope["path"])
        head = scope["method"] == "HEAD"
        scope = {**scope, "method": "GET" if head else scope["method"], "path": path}
        begun = False

        async def counted(message: Message) -> None:
            nonlocal begun
            if head and begun:
                return
            if message["type"] == "http.response.start":
                ANSWERS.labels(route, message["status"]).inc()
                begun = True
            await send(message)
            if head and begun:  # at once, for some answers to GET never end
                await send({"type": "http.response.body", "body": b""})

        headers, app = Headers(scope=scope), self._app
        origin = headers.get("origin", "")
        shared = route == SHARED and origin in self._rules.origins
        try:
            self._check(scope["method"], scope["path"], headers, shared)
        except HTTPException as refusal:
            # People read the page's answers, programs those of the API.
            said: dict[str, Any] = {"detail": refusal.detail}
            if route == "v1":  # as OpenAI's clients expect it
                said = {"error": {"message": refusal.detail, "type": "invalid_request_error"}}
            text = refusal.detail if route == "page" else json.dumps(said)
            kind = "text/plain" if route == "page" else "application/json"
            app = Response(text, refusal.status_code, dict(refusal.headers or {}), kind)
        if shared:
            app = CORSMiddleware(app, [origin], ("GET", "POST"), ("content-type",))
        return await app(scope, self._within_limit(receive), counted)

    def _find_route(self, path: str) -> tuple[str, str]:
        """Return a path without the root and slashes at its end, and the name of its route."""
        root = self._rules.root
        if root and f"{path}/".startswith(f"{root}/"):
            path = path[len(root) :] or "/"
        route = path.split("/")[1] if path.startswith("/") else ""
        return (path.rstrip("/"), route) if route in ROUTES else (path, "page")

    def _check(self, method: str, path: str, headers: Headers, shared: bool) -> None:
        if path == "/livez" and method in SAFE:
            return
        if self._password and not self._knows_password(headers.get("authorization", "")):
            challenge = {"WWW-Authenticate": 'Basic realm="retrieval", charset="UTF-8"'}
            raise HTTPException(401, "This server asks for a user and a password.", challenge)
        if self._rules.local and not self._password and not is_local(headers.get("host", "")):
            raise HTTPException(
                403, "This server answers only to localhost. To reach it by another name, set a password."
            )
        # A search may cost money, whatever its method.
        asks = method not in SAFE or path == f"/{SHARED}"
        if asks and headers.get("sec-fetch-site") == "cross-site" and not shared:
            raise HTTPException(403, "Another site's page may not ask for this.")
        if CLOSED.match(path):
            raise HTTPException(404, "No address is fetched here.")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._rules.most_bytes:
            raise HTTPException(413, self._too_much)

    def _knows_password(self, given: str) -> bool:
        scheme, _, encoded = given.partition(" ")
        try:
            sent = base64.b64decode(encoded, validate=True)
        except ValueError:
            return False
        return scheme.lower() == "basic" and hmac.compare_digest(sent, self._password)

    def _within_limit(self, receive: Receive) -> Receive:
        """Count what is read; too much raises an exception that is answered with 413."""
        total = 0

        async def counted() -> Message:
            nonlocal total
            message = await receive()
            total += len(message.get("body", b""))
            if total > self._rules.most_bytes:
                raise HTTPException(413, self._too_much)
            return message

        return counted


def is_local(host: str) -> bool:
    """Whether a name, with or without a port, is one of this machine's own."""
    try:
        name = host if host.count(":") > 1 and "[" not in host else urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or name.endswith(".localhost") or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False

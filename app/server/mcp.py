"""Search as tools for language models: an MCP server of two tools, or three, at `/mcp`.

By the protocol's own library and not by Gradio's `mcp_server`, which calls the page over HTTP without the
password, and holds other libraries back.
"""

from collections.abc import Callable
from typing import Annotated, Any

from app.server import api
from app.server.concurrency import MOST_WAITING, TEXT, SharedSearcher
from app.server.fetch import fetch_image
from index.embedders.http_formats import read_input
from index.errors import RetrievalError, needs

with needs("mcp"):
    from anyio import CapacityLimiter
    from anyio.to_thread import run_sync
    from mcp.server.fastmcp import FastMCP
    from mcp.server.fastmcp.exceptions import ToolError
    from mcp.server.transport_security import TransportSecuritySettings
    from pydantic import Field

FETCHES = 8  # links that are followed at a time
Count = Annotated[int, Field(ge=1, le=api.MOST_RESULTS)]


def build_tools(searcher: SharedSearcher, most_bytes: int, root: str = "") -> FastMCP:
    """Offer a search by photo and one by id, and one by words where there is a text model.

    `root` is the path that a proxy serves the page under.
    """
    server = FastMCP(
        "retrieval",
        "Search a collection of images by image.",
        log_level="ERROR",
        stateless_http=True,
        json_response=True,
        max_request_body_size=most_bytes,
        # `app.server.guard` sees to it for everything that is served.
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )

    fetches = CapacityLimiter(FETCHES)

    async def answer(mode: str, search: Callable[[], api.Answer]) -> dict[str, Any]:
        try:
            return (await searcher.run(mode, search)).as_dict(_find_base(server, root))
        except RetrievalError as reason:
            raise ToolError(api.as_sentence(reason)) from reason

    @server.tool()
    async def search_by_photo(image: str, mode: str = "student", k: Count = 10) -> dict[str, Any]:
        """Find the indexed images most like a photo.

        `image` is its http(s) address, or a data URL; `mode` is student (fast), teacher, asymmetric or
        rerank.
        """
        link = image.startswith(("http://", "https://"))
        if link and fetches.statistics().tasks_waiting >= MOST_WAITING:
            raise ToolError("Too many links at once. Try again in a moment.")
        try:
            api.require_mode(searcher, mode)
            # In no lane: a slow link holds up no search.
            read = fetch_image if link else read_input
            data = await run_sync(read, image, limiter=fetches if link else None)
        except RetrievalError as reason:
            raise ToolError(api.as_sentence(reason)) from reason
        except ValueError as reason:
            raise ToolError(f"The image {reason}.") from reason
        wanted = api.SearchOptions(mode=mode, k=k)
        return await answer(mode, lambda: api.search_photo(searcher, data, "photo", wanted))

    @server.tool()
    async def search_by_id(id: int, mode: str = "student", k: Count = 10) -> dict[str, Any]:  # noqa: A002
        """Find the indexed images most like one of them, by its `id` in an earlier result."""
        wanted = api.SearchOptions(mode=mode, k=k)
        return await answer(searcher.lane_of_item(mode), lambda: api.search_item(searcher, id, wanted))

    if searcher.text:

        @server.tool()
        async def search_by_text(text: str, mode: str = "student", k: Count = 10) -> dict[str, Any]:
            """Find the indexed images that a few words tell of, such as "red shoes"."""
            return await answer(
                TEXT, lambda: api.search_text(searcher, text, api.SearchOptions(mode=mode, k=k))
            )

    return server


def _find_base(server: FastMCP, root: str) -> str:
    """Find the address of the page, which a language model has no other way to know."""
    try:
        request = server.get_context().request_context.request
    except ValueError:  # a tool was called without a request
        return ""
    return f"{str(request.base_url).rstrip('/')}{root}/" if request else ""

"""Search as a tool for language models: Gradio's MCP server offers what is added to the page here."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from app.api import MOST_RESULTS, search_item, search_photo, sentence
from app.fetch import fetch_image
from app.shared import SharedSearcher
from index.errors import RetrievalError, needs
from index.wire import read_input

with needs("mcp"):
    import mcp  # noqa: F401  # Gradio imports it later, and would only warn

with needs("demo"):
    import gradio as gr


def add_tools(page: "gr.Blocks", searcher: SharedSearcher) -> None:
    """Add the tools `search_by_photo` and `search_by_id` to the page, where they cannot be seen."""

    def search_by_photo(image: str, mode: str = "student", k: int = 10) -> dict[str, Any]:
        """Find the indexed images most like a photo.

        Args:
            image: The http(s) address of an image, or a data URL.
            mode: student (fast), teacher or asymmetric.
            k: How many results.
        """
        with _friendly(k):
            data = fetch_image(image) if image.startswith(("http://", "https://")) else read_input(image)
            return search_photo(searcher, data, "photo", mode, k).as_dict()

    def search_by_id(id: int, mode: str = "student", k: int = 10) -> dict[str, Any]:  # noqa: A002
        """Find the indexed images most like one of them.

        Args:
            id: The id of an indexed image, from an earlier result.
            mode: student, teacher or asymmetric.
            k: How many results.
        """
        with _friendly(k):
            return search_item(searcher, id, mode, k).as_dict()

    with page:
        for tool in (search_by_photo, search_by_id):
            gr.api(tool, api_name=tool.__name__)


@contextmanager
def _friendly(k: int) -> Iterator[None]:
    """Tell the caller in one line what is wrong."""
    if not 1 <= k <= MOST_RESULTS:
        raise gr.Error(f"k must be between 1 and {MOST_RESULTS}, not {k}.")
    try:
        yield
    except RetrievalError as reason:
        raise gr.Error(sentence(reason)) from reason
    except ValueError as reason:
        raise gr.Error(f"The image {reason}.") from reason

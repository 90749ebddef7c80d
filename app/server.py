"""The server: the page, the pictures of the index and the embeddings on one FastAPI app."""

import socket
from functools import lru_cache
from io import BytesIO
from pathlib import Path

from PIL import Image

from app.embeddings import build_embeddings
from app.ui import build_page
from index.errors import ImageError, UsageError, needs
from index.images import ImageFile, read_photo
from index.search import Searcher

with needs("demo"):
    import gradio as gr
    import uvicorn
    from fastapi import FastAPI, HTTPException, Response

THUMBNAIL = 320  # pixels of its longer side
UPLOAD_LIMIT = "50mb"
CSS = Path(__file__).with_name("page.css")


def build_app(searcher: Searcher) -> FastAPI:
    """The page, the thumbnails of the index and no other file, and `/v1/embeddings` of the student."""
    app = FastAPI(title="retrieval", docs_url=None, redoc_url=None)
    app.include_router(build_embeddings(searcher.models["student"]))
    items = searcher.index.items

    @lru_cache(maxsize=4096)
    def thumbnail(item: int) -> bytes:
        photo = read_photo(ImageFile(Path(items[item].path), items[item].name), THUMBNAIL)
        photo.image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BICUBIC)
        buffer = BytesIO()
        photo.image.save(buffer, "JPEG", quality=85)
        return buffer.getvalue()

    @app.get("/thumbs/{item}")
    def serve_thumbnail(item: int) -> Response:
        if not 0 <= item < len(items):
            raise HTTPException(404, "No such item.")
        try:
            return Response(
                thumbnail(item), media_type="image/jpeg", headers={"Cache-Control": "max-age=3600"}
            )
        except ImageError as reason:
            raise HTTPException(404, f"It cannot be read any more: {reason}.") from reason

    theme = gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    return gr.mount_gradio_app(
        app, build_page(searcher), path="/", theme=theme, css_paths=[CSS], footer_links=[], run_history=False,
        max_file_size=UPLOAD_LIMIT, ssr_mode=False, show_error=True,
    )  # fmt: skip


def serve(searcher: Searcher, host: str, port: int) -> None:
    """Serve the page until interrupted.

    Raises:
        UsageError: The address cannot be used.
    """
    try:
        listener = socket.create_server((host, port))
    except OSError as error:
        raise UsageError(
            f"Cannot serve on {host}:{port}: {error.strerror}. Give another --host or --port."
        ) from error
    print(f"http://{host}:{listener.getsockname()[1]}", flush=True)
    with listener:
        uvicorn.Server(uvicorn.Config(build_app(searcher), log_level="warning")).run([listener])

"""The page: Gradio Blocks around `compare` and `views`, on a FastAPI app that serves thumbnails."""

import socket
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from app.blind_tab import build_blind_tab
from app.compare import compare
from app.disagreements_tab import build_disagreements_tab
from app.embeddings import build_embeddings
from app.report_tab import build_report_tab
from app.views import (
    render_column,
    render_error,
    render_heading,
    render_note,
    render_query,
    render_summary,
    thumbnail_url,
)
from index.errors import ImageError, RetrievalError, UsageError, needs
from index.images import ImageFile, Photo, decode, read_photo
from index.search import Searcher

with needs("demo"):
    import gradio as gr
    import uvicorn
    from fastapi import FastAPI, HTTPException, Response

RESULTS = 12
THUMBNAIL = 320  # pixels of its longer side
UPLOAD_LIMIT = "50mb"
CSS = [Path(__file__).with_name(name) for name in ("page.css", "tabs.css")]
CLICK = """
element.addEventListener('click', event => {
  const card = event.target.closest('[data-id]');
  if (card) trigger('click', {id: Number(card.dataset.id)});
});
"""


def build_page(searcher: Searcher) -> gr.Blocks:
    """Lay out the page and join its events to the search."""
    index = searcher.index
    side = max(model.side for model in searcher.models.values())

    def show(photo: Photo, query: str) -> list[str]:
        try:
            comparison = compare(searcher, photo, RESULTS)
        except RetrievalError as error:
            return [query, render_error(str(error)), "", ""]
        student, teacher = comparison.student, comparison.teacher
        missing = render_note(comparison.missing)
        return [
            query,
            render_summary(comparison, RESULTS),
            render_column(student, index, teacher),
            render_column(teacher, index, student) if teacher else missing,
        ]

    def search_file(path: str | None) -> list[str]:
        if path is None:
            return ["", render_note("Drop a photo, paste one, or pick a file."), "", ""]
        try:
            photo = decode(Path(path).read_bytes(), Path(path).name, side)
        except ImageError as reason:
            return ["", render_error(f"This file cannot be searched with: {reason}."), "", ""]
        return show(photo, "")

    def search_item(event: gr.EventData) -> list[Any]:
        item = event._data["id"]
        if not isinstance(item, int) or not 0 <= item < len(index):
            return ["", render_error("That image is not in the index."), "", "", None]
        entry = index.items[item]
        try:
            photo = read_photo(ImageFile(Path(entry.path), entry.name, below=True), side)
        except ImageError as reason:
            return ["", render_error(f"{entry.name} cannot be read any more: {reason}."), "", "", None]
        return [*show(photo, render_query(thumbnail_url(item), entry.name)), None]

    with gr.Blocks(title="retrieval", analytics_enabled=False, fill_width=True) as page:
        gr.HTML(render_heading(index), elem_classes="heading")
        with gr.Tabs():
            with gr.Tab("Search", id="search"), gr.Row():
                with gr.Column(scale=1, min_width=240):
                    upload = gr.Image(
                        label="Search with a photo",
                        show_label=False,
                        placeholder="## Drop a photo\nor paste one, or click to choose",
                        sources=["upload", "clipboard", "webcam"],
                        image_mode=None,
                        type="filepath",
                        height=260,
                        elem_id="upload",
                    )
                    # The file as it came, for our own decoder to judge, instead of Gradio's idea of an image.
                    upload.preprocess = lambda payload: payload.path if payload else None  # type: ignore[method-assign]
                    query = gr.HTML(elem_id="query")
                with gr.Column(scale=4):
                    summary = gr.HTML(
                        render_note("Drop a photo, paste one, or pick a file."), elem_id="summary"
                    )
                    with gr.Row():
                        with gr.Column(elem_classes="column", min_width=260):
                            gr.HTML("<h2>Student</h2>")
                            student = gr.HTML(elem_id="student", js_on_load=CLICK)
                        with gr.Column(elem_classes="column", min_width=260):
                            gr.HTML("<h2>Teacher</h2>")
                            teacher = gr.HTML(elem_id="teacher", js_on_load=CLICK)
            build_disagreements_tab(searcher)
            build_blind_tab(searcher)
            build_report_tab(searcher)
        shown = [query, summary, student, teacher]
        # The last wish counts: without this, what is asked while an answer is under way would be dropped.
        options: dict[str, Any] = {
            "trigger_mode": "always_last",
            "show_progress": "minimal",
            "api_visibility": "private",
        }
        upload.input(search_file, upload, shown, **options)
        for column in (student, teacher):
            column.click(search_item, None, [*shown, upload], **options)
    return page.queue(default_concurrency_limit=8)


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
        app, build_page(searcher), path="/", theme=theme, css_paths=CSS, footer_links=[], run_history=False,
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

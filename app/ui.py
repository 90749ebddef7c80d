"""The page: Gradio Blocks around `compare` and `views`."""

from pathlib import Path
from typing import Any

from app.compare import compare
from app.views import (
    render_column,
    render_error,
    render_heading,
    render_note,
    render_query,
    render_summary,
    thumbnail_url,
)
from index.errors import ImageError, RetrievalError, needs
from index.images import ImageFile, Photo, decode, read_photo
from index.search import Searcher

with needs("demo"):
    import gradio as gr

RESULTS = 12
CLICK = """
element.addEventListener('click', event => {
  const card = event.target.closest('[data-id]');
  if (card) trigger('click', {id: Number(card.dataset.id)});
});
"""


def build_page(searcher: Searcher, price: float | None = None) -> gr.Blocks:
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
        with gr.Row():
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
                summary = gr.HTML(render_note("Drop a photo, paste one, or pick a file."), elem_id="summary")
                with gr.Row():
                    with gr.Column(elem_classes="column", min_width=260):
                        gr.HTML("<h2>Student</h2>")
                        student = gr.HTML(elem_id="student", js_on_load=CLICK)
                    with gr.Column(elem_classes="column", min_width=260):
                        gr.HTML("<h2>Teacher</h2>")
                        teacher = gr.HTML(elem_id="teacher", js_on_load=CLICK)
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

"""The page: Gradio Blocks around the tabs."""

from app.search_tab import build_search_tab
from app.views import render_heading
from index.errors import needs
from index.search import Searcher

with needs("demo"):
    import gradio as gr


def build_page(searcher: Searcher, price: float | None = None) -> gr.Blocks:
    """Lay out the page.

    Args:
        searcher: The index and its models.
        price: Of a thousand answers of the teacher, in the user's money, if they have one.
    """
    with gr.Blocks(title="retrieval", analytics_enabled=False, fill_width=True) as page:
        gr.HTML(render_heading(searcher.index), elem_classes="heading", apply_default_css=False)
        with gr.Tabs(elem_classes="tabs"):
            with gr.Tab("Search", id="search"):
                build_search_tab(searcher, price)
    return page.queue(default_concurrency_limit=8)

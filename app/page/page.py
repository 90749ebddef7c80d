"""The page: Gradio Blocks around the tabs."""

from collections.abc import Mapping
from pathlib import Path

from app.page.blind_vote.tab import build_blind_tab
from app.page.disagreements.tab import build_disagreements_tab
from app.page.map.tab import build_map_tab
from app.page.report.tab import build_report_tab
from app.page.search.tab import build_search_tab
from app.page.views import NO_LINKS, add_tab, read_scripts, render_heading
from app.server.api import api_help
from app.server.concurrency import SharedSearcher
from app.server.labels import NONE, Labels
from index.errors import needs

with needs("demo"):
    import gradio as gr
    from gradio.context import Context

HERE = "PAGE-ADDRESS"  # api.js puts the address in its place


def build_page(
    searcher: SharedSearcher,
    price: float | None = None,
    labelled: tuple[Path, Path] | None = None,
    labels: Labels = NONE,
    links: Mapping[str, str] = NO_LINKS,
    shop: bool = False,
) -> gr.Blocks:
    """Lay out the page; `price` and `labelled` are as for `build_report_tab`, the others for `SearchPage`.

    `links` are addresses of other pages here, each with what it is called.
    """
    Context.id = 0  # an open page names parts by number: after an index is replaced they must be the same
    with gr.Blocks(title="retrieval", analytics_enabled=False, fill_width=True) as page:
        script = "" if shop else read_scripts("rove.js", "tabs.js")
        heading = render_heading(searcher.index, searcher.index.read_run(), links, not shop)
        gr.HTML(heading, js_on_load=script, elem_classes="heading", apply_default_css=False)
        if shop:
            build_search_tab(searcher, labels=labels, shop=True)
            return page.queue(default_concurrency_limit=8)
        with gr.Tabs(elem_classes="tabs"):
            with gr.Tab("Search", id="search"):
                build_search_tab(searcher, price, labels)
            build_disagreements_tab(searcher)
            build_map_tab(searcher)
            build_blind_tab(searcher)
            build_report_tab(searcher, price, labelled)
            add_tab("API", api_help(HERE, searcher.modes, searcher.text_modes), "api", ["api.js"])
    return page.queue(default_concurrency_limit=8)

"""What Gradio leaves open in a page that is mounted on another app, closed."""

from typing import NoReturn

from index.errors import needs

with needs("demo"):
    import gradio as gr
    from gradio import processing_utils

UPLOADS_KEPT = 3600  # seconds


def harden(page: gr.Blocks) -> None:
    """Let no browser make the page read a file that was not uploaded, or fetch an address.

    Gradio takes the paths of files from the browser, and checks them only in pages that were started with
    `launch`: without this, an event with the path of any file of the server reads it. Addresses in the place
    of paths it would fetch without any limit of size.
    """
    page.has_launched = True
    processing_utils.async_ssrf_protected_download = _refuse
    page.delete_cache = (UPLOADS_KEPT // 4, UPLOADS_KEPT)


async def _refuse(url: str, cache_dir: str) -> NoReturn:
    raise gr.Error("No address is fetched here.", print_exception=False)

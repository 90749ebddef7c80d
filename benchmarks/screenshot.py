"""Take the README's pictures of the page: search a running page with a photo, in light and in dark.

retrieval serve retrieval-demo/index --port 7860
python benchmarks/screenshot.py http://127.0.0.1:7860 PHOTO docs
"""

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright
from site_host import CHROMIUM


def take(address: str, photo: str, out: Path, width: int = 1440, height: int = 900) -> None:
    """Search with a photo and save what the page then shows, as `page-light.jpg` and `page-dark.jpg`.

    Args:
        address: Where the page is.
        photo: The query.
        out: The folder to write to.
        width: Of the window, in pixels.
        height: Of the window, in pixels.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for theme in ("light", "dark"):
            tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme=theme)
            tab.goto(address)
            tab.locator(".search .example").first.click()  # the first search of a model is slow
            tab.wait_for_selector("#second .card")
            tab.wait_for_selector(".search:not([aria-busy])")
            tab.set_input_files(".search .file", photo)
            tab.wait_for_selector(".search:not([aria-busy])")
            tab.wait_for_function("[...document.images].every(image => image.complete)")
            tab.screenshot(path=out / f"page-{theme}.jpg", quality=82)
        browser.close()


if __name__ == "__main__":
    take(sys.argv[1], sys.argv[2], Path(sys.argv[3]))

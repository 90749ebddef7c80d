"""Take the README's picture of the page: search a running page with a photo.

retrieval serve retrieval-demo/index --port 7860
python benchmarks/screenshot.py http://127.0.0.1:7860 PHOTO docs/page.png
"""

import os
import shutil
import sys

from playwright.sync_api import sync_playwright


def take(address: str, photo: str, out: str, width: int = 1280, height: int = 860) -> None:
    """Upload a photo to the page and save what it then shows.

    Args:
        address: Where the page is.
        photo: The query.
        out: The .png file to write.
        width: Of the window, in pixels.
        height: Of the window, in pixels.
    """
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": width, "height": height})
        tab.goto(address)
        tab.set_input_files("#upload input[type=file]", photo)
        tab.wait_for_selector("#teacher .card, #teacher .note")
        tab.wait_for_function("[...document.images].every(image => image.complete)")
        tab.wait_for_timeout(500)  # the fade of the progress marks
        tab.screenshot(path=out)
        browser.close()


if __name__ == "__main__":
    take(sys.argv[1], sys.argv[2], sys.argv[3])

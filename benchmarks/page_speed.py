"""How fast the page is, in a browser: first paint, and from a dropped photo to results that can be seen.

python benchmarks/page_speed.py INDEX PHOTOS
"""

import argparse
import subprocess
import sys
from base64 import b64encode
from io import BytesIO
from pathlib import Path
from time import perf_counter

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright
from site_host import CHROMIUM

# Drops a photo, and measures until the first card of each column, and all pictures of the student's first
# row, have been painted: two frames after they are there.
DROP = """async data => {
  const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], 'query.jpg', {type: 'image/jpeg'}));
  const cards = column => document.querySelector(`#${column} .cards:not(.blank)`);
  const before = cards('first'), other = cards('second');
  const isNew = (column, old) => cards(column) && cards(column) !== old;
  const painted = () => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
  const until = async found => { while (!found()) await new Promise(requestAnimationFrame); };
  const start = performance.now(), times = {};
  const how = {dataTransfer: transfer, bubbles: true, cancelable: true};
  document.body.dispatchEvent(new DragEvent('drop', how));
  await until(() => isNew('first', before));
  await painted();
  times['student'] = performance.now() - start;
  await until(() => [...document.querySelectorAll('#first img')].slice(0, 4).every(i => i.naturalWidth));
  await painted();
  times['student, with pictures'] = performance.now() - start;
  await until(() => isNew('second', other));
  await painted();
  times['teacher'] = performance.now() - start;
  return times;
}"""

# Opens the large view of the first result, and measures from its button to the maps of why it matches.
WHY = """async () => {
  document.querySelector('#first .open').click();
  const times = [], why = document.querySelector('.why'), maps = document.querySelectorAll('.heat');
  for (let i = 0; i < 12; i++) {
    const start = performance.now();
    why.click();
    while (maps[1].hidden) await new Promise(requestAnimationFrame);
    times.push(performance.now() - start);
    why.click();
  }
  document.querySelector('.large').close();
  return times.slice(2);
}"""

SLOW_4G = {  # as Chromium's DevTools have it: milliseconds, bytes a second
    "offline": False, "latency": 562.5, "downloadThroughput": 180_000, "uploadThroughput": 84_375,
}  # fmt: skip


def first_paint(tab: Page, address: str) -> tuple[float, float]:
    """Milliseconds until something, and until the whole page, is there."""
    tab.goto(address)
    tab.wait_for_selector(".search .drop")
    whole = tab.evaluate("performance.now()")
    paint = tab.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    return paint, whole


def mosaic(photos: list[Path]) -> bytes:
    """A photo of 12 megapixels and some 1.6 MB, of details: what a phone takes."""
    whole = Image.new("RGB", (4000, 3000))
    for i, photo in enumerate(photos[:12]):
        whole.paste(Image.open(photo).convert("RGB").resize((1000, 1000)), (1000 * (i % 4), 1000 * (i // 4)))
    data = BytesIO()
    whole.save(data, "JPEG", quality=88)
    return data.getvalue()


def measure_phone(browser: Browser, address: str, photo: bytes) -> None:
    """Print how long a large photo takes on a phone by slow 4G, in an open page and with opening it."""
    size: ViewportSize = {"width": 390, "height": 844}
    tab = browser.new_context(viewport=size, has_touch=True, is_mobile=True).new_page()
    network, loaded = tab.context.new_cdp_session(tab), []
    network.on("Network.loadingFinished", lambda each: loaded.append(each["encodedDataLength"]))
    network.send("Network.enable")
    network.send("Network.emulateNetworkConditions", SLOW_4G)
    start = perf_counter()
    tab.goto(address)
    tab.wait_for_selector(".search .example")
    opened = perf_counter() - start
    print(f"phone, slow 4G: page opened {opened:.1f} s ({sum(loaded) / 1e3:.0f} kB)")
    cold = opened + search_on_phone(tab, photo)
    tab.wait_for_load_state("networkidle")
    warm = np.median([search_on_phone(tab, photo) for _ in range(5)])
    what = f"{len(photo) / 1e6:.1f} MB to the student's results"
    print(f"phone, slow 4G: {what} {warm:.1f} s in an open page, {cold:.1f} s with opening it")
    top = tab.evaluate("document.querySelector('#first .card').getBoundingClientRect().top")
    print(f"phone: first result at {top / 844:.0%} of the screen")


def search_on_phone(tab: Page, photo: bytes) -> float:
    """Seconds from choosing a photo to its first results."""
    tab.evaluate("document.querySelectorAll('.search .card').forEach(card => card.remove())")
    start = perf_counter()
    tab.set_input_files(".search .file", {"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": photo})
    tab.wait_for_selector("#first .card")
    return perf_counter() - start


def main() -> None:
    """Start a server, open the page, drop photos on it, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("index", type=Path)
    parser.add_argument("photos", type=Path, help="Folder of photos to drop.")
    parser.add_argument("--drops", type=int, default=40)
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "retrieval", "serve", str(arguments.index), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    address = server.stdout.readline().strip()
    photos = sorted(arguments.photos.rglob("*.jpg"))
    photos = photos[:: max(len(photos) // arguments.drops, 1)][: arguments.drops]
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
            )
            tab = browser.new_page(viewport={"width": 1440, "height": 900})
            paint, whole = first_paint(tab, address)
            print(f"first paint {paint:.0f} ms, whole page {whole:.0f} ms")
            drops = [b64encode(photo.read_bytes()).decode() for photo in photos]
            times = [tab.evaluate(DROP, drop) for drop in drops[:3] + drops][3:]
            for name in times[0]:
                p50, p95 = np.percentile([each[name] for each in times], (50, 95))
                print(f"{name:24} p50 {p50:6.0f} ms   p95 {p95:6.0f} ms   ({len(times)} photos)")
            print(f"why a result matches{'':4} p50 {np.median(tab.evaluate(WHY)):6.0f} ms")
            measure_phone(browser, address, mosaic(photos))
            browser.close()
    finally:
        server.terminate()


if __name__ == "__main__":
    main()

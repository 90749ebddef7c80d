"""The map tab: what its script asks for."""

from base64 import b64encode
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.page.background import Background, Progress
from app.page.disagreements.logic import find_disagreements
from app.page.map.logic import PhotoMap, colour_by, find_map, sketch
from app.page.views import add_tab
from index.html import load
from index.search import Searcher

FIRST_WAIT = 1.0  # seconds: what was kept is there by then
UNKNOWN = 255  # in place of an agreement in percent
HTML = load("app/page/map/map.html")
Agreed = NDArray[np.uint8]


def build_map_tab(searcher: Searcher) -> None:
    """Add the tab to the page that is being laid out. It computes when it is first looked at."""
    compares = "teacher" in searcher.stored_modes

    def compute(report: Progress) -> tuple[PhotoMap, Agreed | None]:
        found, agreed = find_map(searcher), None
        if compares:
            known = find_disagreements(searcher, report)
            agreed = np.full(len(searcher.index), UNKNOWN, np.uint8)
            agreed[known.items] = np.round(100 * known.overlap)
            agreed = agreed[found.items]
        return found, agreed

    work = Background(compute, polite=True)  # searches come first
    first = cache(lambda: (sketch(searcher), None))

    @cache
    def describe() -> dict[str, Any]:
        # By digest, as everywhere on the page: an id means another photo once the index is written again.
        items = first()[0].items
        colours = colour_by(searcher, items).items()
        digests = "".join(searcher.index.items[item].digest for item in items)
        return {
            "digests": _pack(np.frombuffer(bytes.fromhex(digests), np.uint8)),
            "columns": {name: {"values": names, "codes": _pack(codes)} for name, (names, codes) in colours},
        }

    def photo_map(asked: dict[str, Any]) -> dict[str, Any]:
        work.start()
        ended = work.wait(FIRST_WAIT)
        if not ended and asked.get("shown"):
            return {"waiting": True}
        found, agreed = work.result if ended and work.result else first()
        return describe() | {
            "places": {
                name: _pack(np.round(65_535 * each).astype("<u2")) for name, each in found.places.items()
            },
            "agreement": "" if agreed is None else _pack(agreed),
            "waiting": not ended,
            "error": work.error,
        }

    add_tab("Map", HTML.page(compares), "map", ["seen.js", "map/map.js"], [photo_map])


def _pack(numbers: NDArray[Any]) -> str:
    return b64encode(numbers.tobytes()).decode()

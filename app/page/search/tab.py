"""The search tab: what its scripts ask for, and what they are answered. No queue: it would take its time."""

import json
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import replace
from functools import partial, update_wrapper
from threading import Lock
from typing import Any

import numpy as np

from app.page.background import Background
from app.page.search import views
from app.page.search.columns import SearchColumn, agreement, search_column
from app.page.search.query import MAX_RESULTS, WHOLE, Query, SearchRequest, find_item, read_request
from app.page.search.strength import Scale, measure_scales
from app.page.search.why import LEAST_DROP, middle, occlusion_maps
from app.page.views import add_html, render_error
from app.server.concurrency import SharedSearcher
from app.server.labels import NONE, Labels
from app.server.pictures import make_jpeg
from index.duplicates import fold_near
from index.errors import ImageError, RetrievalError, UsageError, needs

with needs("demo"):
    from cachetools import LRUCache
    from gradio.data_classes import DataWithFiles

NAMES = ("crop", "cards", "ladder", "heat", "large", "entry", "search", "address", "controls")
SCRIPTS = ["rove.js", "save.js", *(f"search/{name}.js" for name in NAMES)]
EXAMPLES = 12
CACHED_BYTES = 64 << 20  # bytes of photos that are remembered, so that a crop of one need not send it again
CACHED_COLUMNS = 256  # searches that are remembered: a comparison's second answer repeats the first column
PREVIEW = 1024  # pixels


class SearchPage:
    """Answers the scripts of one page. Several people use it at once."""

    def __init__(self, searcher: SharedSearcher, price: float | None = None, labels: Labels = NONE) -> None:
        """Serve a searcher.

        `price` is that of a thousand answers of its teacher, if they have one; `labels` says what of the
        metadata is written on cards.

        Raises:
            UsageError: There is no such column.
        """
        labels.require_columns(searcher.index.columns)
        self._label = partial(labels.of, searcher.index)
        self.scales: dict[str, Scale] = {}
        self.measuring = Background(lambda _: measure_scales(searcher, self.scales), polite=True)
        self.measuring.start()  # beside the first searches, which go without
        self.searcher = searcher
        learnt = getattr(searcher.models["student"], "metadata", {}).get("retrieval.queried")
        most = searcher.reranker.most if searcher.reranker else 1
        self._costs = views.Costs(price, int(learnt) if learnt else None, most)
        self._photos: LRUCache[str, Query] = LRUCache(CACHED_BYTES, getsizeof=lambda query: len(query.data))
        self._columns: LRUCache[Any, SearchColumn] = LRUCache(CACHED_COLUMNS)
        self._lock = Lock()

    def search(self, asked: Mapping[str, Any] | DataWithFiles) -> dict[str, Any]:
        """Answer a search.

        Args:
            asked: The fields of a `SearchRequest`; with a new photo, a form with `request` as JSON
                and the file.

        Returns:
            `columns` and `numbers` as HTML, `name`, `sent` (the digest by which the photo is known from now
            on), `item` (that of the image of the gallery), `k`, `more` (whether a longer list has more in
            it), `spoken`; or `error`, one line of HTML; or `forgotten`, where the photo must
            be sent again.
        """
        try:
            fields, photo = _open(asked)
            request = read_request(fields, self.searcher)
            query = self._find_query(request, photo)
            if query is None:
                return {"forgotten": True}
            return self._answer(request, query)
        except RetrievalError as reason:
            return {"error": render_error(str(reason))}

    def picture(self, sent: str) -> str:
        """Show a photo that was sent or fetched, as an address that every browser can show; or nothing."""
        query = self._known(str(sent))
        try:
            made = make_jpeg(query.data, query.name, PREVIEW) if query else b""
        except ImageError:
            return ""
        return f"data:image/jpeg;base64,{b64encode(made).decode()}" if made else ""

    def details(self, asked: Any) -> str:
        """Show what is known of an image of the gallery, by its digest or its id."""
        try:
            index = self.searcher.index
            item = find_item(index, asked)
            return views.render_details(item, index.items[item], index.metadata_of(item), self._label(item))
        except (TypeError, ValueError, OverflowError):
            return render_error("There is no such image in this index.")
        except RetrievalError as reason:
            return render_error(str(reason))

    def why(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Show what a match rests on, by the student alone: 100 questions to a teacher would cost.

        Args:
            asked: The fields of a `SearchRequest` whose photo is known, and `hit`, a result's digest or id.

        Returns:
            Of the query and of the hit: `maps`, rows of numbers from 0 to 1; `boxes`, the parts of the
            pictures that they show, as in `View`; `said`, the same in words. Or `error`, one line of HTML.
        """
        try:
            request, student = read_request(asked, self.searcher), self.searcher.models["student"]
            hit = find_item(self.searcher.index, asked.get("hit", -1))
            query = None if request.text or request.address else self._find_query(request, None)
            if query is None:
                return {"error": render_error("This photo is not known any more. Search with it again.")}
            both = (replace(query, view=request.view), Query.of_item(self.searcher, hit))
            first, second = (student.prepare(each.photo(student.decode_side)) for each in both)
            whole, drops = occlusion_maps(
                lambda images: self.searcher.embed_inputs(images, [query.name] * len(images)),
                student.vector_type.similarity, first, second,
            )  # fmt: skip
        except (TypeError, ValueError, OverflowError):
            return {"error": render_error("There is no such image in this index.")}
        except RetrievalError as reason:
            return {"error": render_error(str(reason))}
        said = views.render_why(whole, drops)
        maps = drops / np.maximum(drops.max((1, 2), keepdims=True), LEAST_DROP)
        boxes = [middle(box, getattr(student, "crop", 1.0)) for box in (request.view.box, WHOLE)]
        return {"maps": maps.round(3).tolist(), "boxes": boxes, "said": said}

    def _find_query(self, request: SearchRequest, photo: tuple[str, bytes] | None) -> Query | None:
        if photo is not None:
            query = Query.of_bytes(photo[1], photo[0])
        elif request.text:
            return Query.of_words(request.text)
        elif request.item is not None:
            return Query.of_item(self.searcher, request.item)
        elif request.address:
            query = Query.of_address(request.address)
        else:
            return self._known(request.sent)
        if len(query.data) <= CACHED_BYTES:
            with self._lock:
                self._photos[query.digest] = query
        return query

    def _known(self, sent: str) -> Query | None:
        with self._lock:
            return self._photos.get(sent)

    def _answer(self, request: SearchRequest, query: Query) -> dict[str, Any]:
        query = replace(query, view=request.view)
        asked = request.modes[:1] if request.soon else request.modes
        columns = [self._find(query, mode, request) for mode in asked]
        index = self.searcher.index
        both = len(columns) == 2
        agreed = agreement(*columns) if both else None
        others = columns[::-1] if both else [None]
        # Words and photos are never as alike as two photos, which the scales are of.
        scales = {} if request.text else self.scales
        html = [
            views.render_column(one, index, other, self._label, scales.get(one.mode), self._fold(one))
            for one, other in zip(columns, others, strict=True)
        ]
        spoken = [
            f"{len(each.ids)} results{f' of {each.mode}' if both else ''}" for each in columns if each.found
        ]
        waiting = request.modes[1] if request.soon and len(request.modes) == 2 else ""
        if waiting:
            html.append(views.HTML.waiting(waiting, request.k))
        return {
            "columns": html,
            "numbers": views.render_numbers(columns, index, agreed, self._costs, waiting),
            "spoken": ", ".join(spoken),  # what a screen reader reads
            "name": query.name,
            "sent": query.digest if request.item is None and not request.text else "",
            "item": "" if request.item is None else query.digest,
            "k": request.k,
            "more": any(len(column.ids) == request.k for column in columns)
            and request.k < min(len(index), MAX_RESULTS),
        }

    def _find(self, query: Query, mode: str, request: SearchRequest) -> SearchColumn:
        key = query.digest, query.view, mode, request.k, request.filter, request.examples
        with self._lock:
            known = self._columns.get(key)
        if known is not None:
            return known
        column = search_column(self.searcher, query, mode, request)
        if column.found is not None:
            with self._lock:
                self._columns[key] = column
        return column

    def _fold(self, column: SearchColumn) -> dict[int, int]:
        scale = self.scales.get("student")
        return fold_near(self.searcher.index, column.ids, scale.near) if scale and column.ids else {}


def build_search_tab(
    searcher: SharedSearcher, price: float | None = None, labels: Labels = NONE, shop: bool = False
) -> None:
    """Lay out the search in the open tab, as of `SearchPage`; `shop` leaves out what compares models."""
    page = SearchPage(searcher, price, labels)

    # Gradio marks what scripts may call, and methods take no marks.
    asked = [
        update_wrapper(partial(each), each) for each in (page.search, page.picture, page.details, page.why)
    ]
    items = searcher.index.items
    spread = sorted({i * len(items) // EXAMPLES for i in range(EXAMPLES)}) if items else []
    # A teacher that is only missing keeps its column, in which the page says why.
    alone = shop or "teacher" not in searcher.index.manifest.spaces
    names = [(items[i].digest, items[i].name) for i in spread]
    missing = searcher.teacher_missing if "asymmetric" in searcher.modes and not shop else ""
    columns = {
        name: values
        for name, values in searcher.index.columns.items()
        if name not in (labels.title, labels.link)  # nobody looks for one of these in a list
    }
    note = searcher.reranker.describe_price(1, price) if searcher.reranker else ""
    words = bool(searcher.text_modes)
    html = views.render_search(
        searcher.modes, names, columns, alone=alone, words=words, missing=missing, note=note, shop=shop
    )
    add_html(html, "search", SCRIPTS, asked)


def _open(asked: Mapping[str, Any] | DataWithFiles) -> tuple[Mapping[str, Any], tuple[str, bytes] | None]:
    if not isinstance(asked, DataWithFiles):
        return asked, None
    try:
        fields = json.loads(asked.data["request"])
    except (KeyError, ValueError) as error:
        raise UsageError("This search cannot be read. Open the page again.") from error
    return fields, next(((name or "photo", data) for name, data in asked.files), None)

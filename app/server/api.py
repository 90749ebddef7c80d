"""The JSON API: `search` by id, by photo or by words, `embed`. `api_help` explains it to people."""

import csv
import json
import re
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO, StringIO
from time import perf_counter
from typing import Annotated, Any, BinaryIO, Literal, TypeVar

import numpy as np

from app.server.concurrency import TEXT, BusyError, SharedSearcher
from app.server.metrics import STAGES
from index.embedders.http_formats import read_input
from index.errors import BudgetError, ImageError, NoMatchError, RetrievalError, UsageError, needs
from index.feedback import Examples
from index.html import load
from index.images.decode import Photo, decode
from index.images.sources import image_at
from index.search import RERANK, Found, Results
from index.stores.base import Store
from index.stores.filters import Filter, parse_where
from index.text.models import LONGEST, Text

with needs("demo"):
    from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
    from starlette.datastructures import UploadFile

HELP = load("app/server/api.html")
FORM = {
    "type": "object",
    "required": ["image"],
    "properties": {"image": {"type": "string", "format": "binary"}},
    "additionalProperties": False,
}
JSON = FORM | {"properties": {"image": {"type": "string"}}}
PHOTO = {  # what the routes that read their body themselves tell of it
    "requestBody": {
        "required": True,
        "content": {"multipart/form-data": {"schema": FORM}, "application/json": {"schema": JSON}},
    }
}
FOUND: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {"schema": {"type": "object"}}, "text/csv": {}}}
}
DETAIL = {"type": "object", "required": ["detail"], "properties": {"detail": {"type": "string"}}}
ERRORS: dict[int | str, dict[str, Any]] = {  # what every route may answer
    code: {"description": meaning, "content": {"application/json": {"schema": DETAIL}}}
    for code, meaning in (("4XX", "The request cannot be answered."), ("5XX", "A model failed, or is busy."))
}
IDS = r"(\d{1,11}(,\d{1,11})*)?"  # as 3,5
MOST_RESULTS = 500
# What a search finds whose filter no image passes.
NOTHING = Found(Results(np.empty((1, 0), np.int64), np.empty((1, 0), np.float32)), 0.0, 0.0)
T = TypeVar("T")
Label = Callable[[int], dict[str, str]]  # title, caption and link of an item, as far as it has them
Mode = Annotated[str, Query(max_length=20)]
Count = Annotated[int, Query(ge=1, le=MOST_RESULTS)]
Ids = Annotated[str, Query(max_length=500, json_schema_extra={"pattern": f"^{IDS}$"})]
Format = Annotated[Literal["json", "csv"], Query(alias="format")]
Where = Annotated[str, Query(max_length=1000)]  # conditions as for `parse_where`, between semicolons


class UnknownItemError(UsageError):
    """An id that the index does not have."""


@dataclass(frozen=True)
class Answer:
    """What one search found, with the time by stage; hits are rank, id, similarity and name, best first."""

    query: dict[str, Any]
    mode: str
    milliseconds: dict[str, float]
    hits: list[tuple[int, int, float, str]]

    def write(self, form: str, label: Label) -> Response:
        """Write it as JSON, with what `label` says of each result, or as a CSV file."""
        if form == "json":
            return Response(json.dumps(self.as_dict(label=label)), media_type="application/json")
        text = StringIO()
        csv.writer(text).writerows([("rank", "id", "score", "name"), *self.hits])
        named = {"Content-Disposition": 'attachment; filename="results.csv"'}
        return Response(text.getvalue(), media_type="text/csv", headers=named)

    def as_dict(self, base: str = "", label: Label = lambda item: {}) -> dict[str, Any]:
        """Return one object; the addresses in it begin with that of the page, if it is given."""
        results = [
            {"rank": rank, "id": item, "score": score, "name": name}
            | {"thumbnail": f"{base}thumbs/{item}", "image": f"{base}images/{item}"}
            | label(item)
            for rank, item, score, name in self.hits
        ]
        return {"query": self.query, "mode": self.mode, "milliseconds": self.milliseconds, "results": results}


@dataclass(frozen=True)
class SearchOptions:
    """The parameters that every search has; HTTPException for examples that are no ids."""

    like: Ids = ""
    unlike: Ids = ""
    mode: Mode = "student"
    k: Count = 10
    form: Format = "json"
    where: Where = ""

    def __post_init__(self) -> None:
        for name, ids in (("like", self.like), ("unlike", self.unlike)):
            if not re.fullmatch(IDS, ids, re.ASCII):
                raise HTTPException(422, f"{name}: Give ids of photos of the index, as in 3,5.")

    @property
    def filter(self) -> Filter | None:
        """Read the conditions; UsageError for what is none."""
        return Filter("", parse_where(self.where.split(";"))) if self.where else None

    def examples_in(self, index: Store) -> Examples:
        """Read the examples; UnknownItemError for one that is not in the index."""
        like, unlike = ([int(each) for each in ids.split(",") if each] for ids in (self.like, self.unlike))
        for item in (*like, *unlike):
            require_item(index, item)
        return Examples(like, unlike)


Wanted = Annotated[SearchOptions, Depends()]


def search_photo(searcher: SharedSearcher, data: bytes, name: str, wanted: SearchOptions) -> Answer:
    """Search with the bytes of an image file; ImageError if they are none, else as `SharedSearcher.find`."""
    mode, start = wanted.mode, perf_counter()
    photo = _decode(searcher, data, name, mode)
    decoded, found = perf_counter() - start, NOTHING
    with suppress(NoMatchError):
        found = searcher.find([photo], mode, wanted.k, wanted.filter, wanted.examples_in(searcher.index))
    seconds = {"decode": decoded, "embed": found.embed_seconds, "search": found.search_seconds}
    query = {"name": name, "width": photo.width, "height": photo.height}
    return _answer(query, mode, seconds, found.results, searcher.index)


def search_item(searcher: SharedSearcher, item: int, wanted: SearchOptions) -> Answer:
    """Search with an image of the index, by its vectors; UsageError if there is no such image or mode."""
    index, mode = searcher.index, wanted.mode
    require_item(index, item)
    require_mode(searcher, mode)
    if mode == RERANK and searcher.reranker:  # which is shown the photo
        entry = index.items[item]
        data = image_at(entry.path, entry.name, index.allowed).read_unchanged(entry.digest)
        return search_photo(searcher, data, entry.name, wanted)
    start, results = perf_counter(), NOTHING.results
    with suppress(NoMatchError):
        results = searcher.search_items([item], mode, wanted.k, wanted.filter, wanted.examples_in(index))
    seconds = perf_counter() - start
    STAGES.labels("search", mode).observe(seconds)
    query = {"id": item, "name": index.items[item].name}
    return _answer(query, mode, {"search": seconds}, results, index)


def search_text(searcher: SharedSearcher, words: str, wanted: SearchOptions) -> Answer:
    """Search by words; raises as `SharedSearcher.find_text`."""
    text = Text(words)
    found = NOTHING
    with suppress(NoMatchError):
        found = searcher.find_text(text, wanted.mode, wanted.k, wanted.filter)
    seconds = {"embed": found.embed_seconds, "search": found.search_seconds}
    return _answer({"text": text.words}, wanted.mode, seconds, found.results, searcher.index)


def build_api(searcher: SharedSearcher, label: Label = lambda item: {}) -> APIRouter:
    """Serve `search` and `embed`. What cannot be answered has one line under `detail`."""
    router = APIRouter()

    async def run(mode: str, work: Callable[[], T]) -> T:
        with refusing():
            if mode != TEXT:
                require_mode(searcher, mode)
            return await searcher.run(mode, work)

    @router.get("/search", response_class=Response, responses=FOUND)
    async def by_id_or_words(
        wanted: Wanted,
        id: int | None = None,  # noqa: A002
        text: Annotated[str | None, Query(max_length=LONGEST)] = None,
    ) -> Response:
        """Search with an image of the index by its id, or by words."""
        if text is not None and id is None:
            if wanted.like or wanted.unlike:
                raise HTTPException(422, "like: Give it with a photo or an id, not with words.")
            lane = TEXT if searcher.text else "student"
            return await run(lane, lambda: search_text(searcher, text, wanted).write(wanted.form, label))
        if id is None or text is not None:
            raise HTTPException(422, "id: Give one, or a text, and not both.")
        lane = searcher.lane_of_item(wanted.mode)
        return await run(lane, lambda: search_item(searcher, id, wanted).write(wanted.form, label))

    @router.post("/search", openapi_extra=PHOTO, response_class=Response, responses=FOUND)
    async def by_photo(request: Request, wanted: Wanted) -> Response:
        """Search with a photo: a file, or a data URL in JSON."""
        with refusing():  # before a photo is read for them
            wanted.examples_in(searcher.index)
        async with _sent_photo(request) as (name, file):
            return await run(
                wanted.mode,
                lambda: search_photo(searcher, file.read(), name, wanted).write(wanted.form, label),
            )

    @router.post("/embed", openapi_extra=PHOTO)
    async def embed(request: Request) -> dict[str, Any]:
        """Embed a photo with the student."""
        student = searcher.models["student"]
        async with _sent_photo(request) as (name, file):

            def work() -> list[float]:
                photo = _decode(searcher, file.read(), name, "student")
                return searcher.embed_inputs([student.prepare(photo)], [name])[0].tolist()

            vector = await run("student", work)
        return {"model": student.name, "dim": student.dim, "embedding": vector}

    return router


def require_known(request: Request) -> None:
    """Refuse parameters that a route does not have, or are given twice: unread, they would seem obeyed."""
    asked = request.scope["route"].dependant
    known = [field.alias for part in (asked, *asked.dependencies) for field in part.query_params]
    for name in request.query_params:
        if name not in known:
            raise HTTPException(422, f"No parameter {name!r} here{only_of(known)}.")
        if len(request.query_params.getlist(name)) > 1:
            raise HTTPException(422, f"{name} is given twice.")


def only_of(known: Collection[str]) -> str:
    """Go on after "No such thing here" with those there are."""
    return f", only {', '.join(known)}" if known else "; there are none"


def require_item(index: Store, item: int) -> None:
    """Raise UnknownItemError for the id of an image that is not in the index."""
    if not 0 <= item < len(index.items):
        raise UnknownItemError(f"The index has no image {item}; its ids are 0 to {len(index.items) - 1}.")


def require_mode(searcher: SharedSearcher, mode: str) -> None:
    """Raise UsageError, naming those there are, for a mode that this index and these models do not have."""
    if mode not in searcher.modes:
        only = f"No mode {mode!r} here, only {', '.join(searcher.modes)}. {searcher.why_not(mode)}"
        raise UsageError(only.rstrip())


def api_help(base_url: str, modes: Sequence[str], text_modes: Sequence[str] = ()) -> str:
    """Explain the API, as HTML; `base_url` is the address of the page, as the browser sees it."""
    return HELP.page(base_url.rstrip("/"), modes, MOST_RESULTS, text_modes)


def is_form(request: Request) -> bool:
    """Whether the body is a form with files."""
    return request.headers.get("content-type", "").startswith("multipart/form-data")


async def read_object(request: Request) -> dict[str, Any] | None:
    """Read the body as a JSON object; None if it is none."""
    try:
        asked = await request.json()
    except (ValueError, RecursionError):
        return None
    return asked if isinstance(asked, dict) else None


@asynccontextmanager
async def _sent_photo(request: Request) -> AsyncIterator[tuple[str, BinaryIO]]:
    """Read the photo of a request, from a form or JSON; a large upload stays on disk until it is its turn."""
    if is_form(request):
        async with request.form(max_files=1, max_fields=4) as form:
            files = [part for part in form.values() if isinstance(part, UploadFile)]
            if not files:
                raise HTTPException(400, "Send one file, under `image`.")
            _refuse_fields(name for name, part in form.items() if not isinstance(part, UploadFile))
            yield files[0].filename or "photo", files[0].file
        return
    asked = await read_object(request)
    if asked is None or "image" not in asked:
        raise HTTPException(400, 'Send a form with a file under `image`, or {"image": "data:..."} as JSON.')
    _refuse_fields(name for name in asked if name != "image")
    try:
        data = read_input(asked["image"])
    except ValueError as reason:
        raise HTTPException(400, f"image {reason}.") from reason
    yield "photo", BytesIO(data)


def _refuse_fields(names: Iterable[str]) -> None:
    """Refuse what came with a photo and would not be read."""
    for name in names:
        raise HTTPException(422, f"{name}: Give it in the address, as in ?k=5, and not with the photo.")


def _decode(searcher: SharedSearcher, data: bytes, name: str, mode: str) -> Photo:
    with STAGES.labels("decode", mode).time():
        return decode(data, name, searcher.decode_side(mode))


def _answer(
    query: dict[str, Any], mode: str, seconds: dict[str, float], results: Results, index: Store
) -> Answer:
    milliseconds = {stage: round(1000 * spent, 3) for stage, spent in seconds.items()}
    hits = [
        (rank, item, round(score, 6), index.items[item].name)
        for rank, (item, score) in enumerate(results.hits(), 1)
    ]
    return Answer(query, mode, milliseconds, hits)


@contextmanager
def refusing() -> Iterator[None]:
    """Make answers of what cannot be answered in this block, as HTTPException: 502 where a model fails."""
    # The first that fits counts: a kind of error stands before what it is a kind of.
    statuses = {BusyError: 503, BudgetError: 402, UnknownItemError: 404, ImageError: 400, UsageError: 400}
    try:
        yield
    except RetrievalError as reason:
        status = next((status for kind, status in statuses.items() if isinstance(reason, kind)), 502)
        later = {"Retry-After": "1"} if status == 503 else None
        raise HTTPException(status, as_sentence(reason), later) from reason


def as_sentence(reason: RetrievalError) -> str:
    """Make one line for people, with parameters in place of the options of `retrieval search`."""
    if isinstance(reason, ImageError):
        return f"This photo cannot be used: {reason}."
    said = re.sub(r"--(where|mode|like|unlike)\b", r"\1", str(reason))
    return re.sub(r" \([^()]+\.sqlite\)", "", said)  # where the ledger lies is nobody's business

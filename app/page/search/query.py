"""What a page asks for, checked, and the picture it asks with."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from app.server.api import UnknownItemError, require_item
from app.server.fetch import fetch_image
from app.server.pictures import DIGITS
from index.errors import ImageError, UsageError
from index.feedback import Examples
from index.images.decode import Photo, decode, with_pixels
from index.images.sources import image_at
from index.io import content_digest
from index.search import ALL, NO_EXAMPLES, Searcher
from index.stores.base import Store
from index.stores.filters import Filter
from index.text.models import Text

Box = tuple[float, ...]

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
SMALLEST_BOX = 0.02  # of width and height that a box may have
MAX_RESULTS = 200  # results that one search may ask for
MOST_EXAMPLES = 100  # to find more or less of


@dataclass(frozen=True)
class View:
    """How a picture is looked at before it is searched with."""

    turn: int = 0  # quarter turns, clockwise
    box: Box = WHOLE  # left, top, right, bottom of what is kept, as shares of the turned picture

    def __post_init__(self) -> None:
        left, top, right, bottom = self.box
        inside = left >= 0 and top >= 0 and right <= 1 and bottom <= 1  # what is not a number is not
        if self.turn not in range(4) or not inside or min(right - left, bottom - top) < SMALLEST_BOX:
            raise UsageError("That box is outside the photo. Draw it again.")


@dataclass(frozen=True)
class SearchRequest:
    """A search as the page asks for it."""

    modes: tuple[str, ...]  # one or two ways to search, the left column's first
    k: int  # results in each column
    view: View = View()  # how the picture is looked at
    item: int | None = None  # the image of the gallery that is searched with, or None
    sent: str = ""  # digest of a photo that was sent before, if any
    address: str = ""  # address to fetch the picture from, if any
    text: str = ""  # words to search with in place of a picture, if any
    filter: Filter = ALL  # which results are wanted
    examples: Examples = NO_EXAMPLES  # images of the gallery to find more of, and less of
    soon: bool = False  # whether to answer with the first column and leave the second for later


def read_request(asked: Mapping[str, Any], searcher: Searcher) -> SearchRequest:
    """Read what a browser sent, of which nothing is to be trusted; UsageError if it is no search here."""
    try:
        examples = [tuple(asked.get(kind, ())) for kind in ("like", "unlike")]
        if sum(map(len, examples)) > MOST_EXAMPLES:
            raise UsageError(f"More than {MOST_EXAMPLES} examples. Take some off.")
        like, unlike = (tuple(find_item(searcher.index, each) for each in some) for some in examples)
        columns = {str(name): str(value) for name, value in dict(asked.get("columns", {})).items()}
        cut = min(max(float(asked.get("cut", 0)), 0.0), 1.0)
        request = SearchRequest(
            modes=tuple(str(mode) for mode in asked["modes"])[:2],
            k=min(max(int(asked["k"]), 1), MAX_RESULTS),
            view=View(int(asked.get("turn", 0)), tuple(map(float, asked.get("box", WHOLE)))),
            item=None if asked.get("item") is None else find_item(searcher.index, asked["item"]),
            sent=str(asked.get("sent", "")),
            address=str(asked.get("address", "")),
            text=str(asked.get("text", "")),
            filter=Filter(str(asked.get("prefix", "")), columns, cut),
            examples=Examples(like, unlike),
            soon=bool(asked.get("soon")),
        )
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise UsageError("This search cannot be read. Open the page again.") from error
    unknown = [mode for mode in request.modes if mode not in searcher.modes]
    if not request.modes or (unknown and unknown != ["teacher"]):  # that of a missing teacher gets its reason
        raise UsageError(f"There is no mode {', '.join(unknown)} here, only {', '.join(searcher.modes)}.")
    return request


def find_item(index: Store, asked: Any) -> int:
    """Find the id of an image by its digest, or check an id, which is another's when the index has changed.

    Raises:
        UnknownItemError: There is no such image.
        TypeError, ValueError, OverflowError: It is neither.
    """
    if not (isinstance(asked, str) and len(asked) == DIGITS):
        require_item(index, item := int(asked))
        return item
    if not (found := index.ids_by_digest.get(asked)):
        raise UnknownItemError("This photo is no longer in the index. Search with another.")
    return found[0]


@dataclass(frozen=True)
class Query:
    """A picture to search with, or words in its place."""

    name: str  # what to call it
    data: bytes  # the bytes of the image file
    digest: str  # `content_digest` of them
    below: bool = False  # as in `ImageFile`
    view: View = View()  # how it is looked at
    text: Text | None = None  # words in place of the picture

    def photo(self, side: int) -> Photo:
        """Decode it, turned and cut, to at least `side` pixels of what is kept; ImageError if that fails."""
        left, top, right, bottom = self.view.box
        share = min(right - left, bottom - top)
        photo = replace(decode(self.data, self.name, math.ceil(side / share)), below=self.below)
        if self.view == View():
            return photo
        image = photo.image.rotate(-90 * self.view.turn, expand=True)
        width, height = image.size
        start = math.floor(left * width), math.floor(top * height)
        end = math.ceil(right * width), math.ceil(bottom * height)
        return with_pixels(photo, image.crop((*start, *end)))

    @classmethod
    def of_bytes(cls, data: bytes, name: str) -> "Query":
        """Make a query of a photo that was sent or fetched."""
        return cls(name, data, content_digest(data))

    @classmethod
    def of_words(cls, words: str) -> "Query":
        """Make a query of words; raises UsageError if they are none, or too many."""
        text = Text(words)
        return cls(text.words, b"", text.digest, text=text)

    @classmethod
    def of_address(cls, address: str) -> "Query":
        """Fetch an image from the internet; raises ImageError, with a whole line, if it cannot be had."""
        try:
            data = fetch_image(address)
        except ImageError as reason:
            raise ImageError(f"{str(reason)[0].upper()}{str(reason)[1:]}.") from reason
        return cls.of_bytes(data, address.partition("?")[0].rsplit("/", 1)[-1] or address)

    @classmethod
    def of_item(cls, searcher: Searcher, item: int) -> "Query":
        """Read an image of the gallery again; raises ImageError, with a whole line, if it cannot be had."""
        entry = searcher.index.items[item]
        try:
            data = image_at(entry.path, entry.name, searcher.index.allowed).read_unchanged(entry.digest)
        except ImageError as error:
            raise ImageError(f"{entry.name} cannot be read any more: {error}.") from error
        return cls(entry.name, data, entry.digest, below=True)

"""Pictures of the index and no others: by id or digest, while the file is the one that was indexed."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image
from platformdirs import user_cache_path

from index.errors import ImageError, RetrievalError, needs
from index.images.decode import MARGIN, decode, encode, open_header
from index.images.file import ImageFile
from index.images.sources import image_at
from index.io import atomic_write, content_digest
from index.parallel import CORES
from index.stores.base import Store
from index.stores.records import Item

with needs("demo"):
    from anyio import CapacityLimiter
    from anyio.to_thread import run_sync
    from fastapi import APIRouter, HTTPException, Request, Response

THUMBNAIL, QUALITY = 320, 65  # pixels of its longer side, and of its JPEG
CACHE_BYTES = 2 << 30  # bytes of thumbnails, about 100,000, that a start of the server leaves in the cache
MAX_ORIGINAL_BYTES = 20_000_000  # of an original that is sent as it is
DIGITS = 32  # of a digest
MAX_SIDE = 4096  # pixels of what is sent instead
BROWSER_TYPES = {name: f"image/{name.lower()}" for name in ("JPEG", "PNG", "GIF", "WEBP", "AVIF")}
BROWSER_TYPES["MPO"] = "image/jpeg"
JPEG: dict[str, Any] = {"image/jpeg": {}}  # what routes say that they answer
SHOWN: dict[str, Any] = {kind: {} for kind in sorted({*BROWSER_TYPES.values()})}
# An id may mean another image after the next start, so the browser asks every time; the tag spares the rest.
HEADERS = {
    "Cache-Control": "private, no-cache",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}


class Pictures:
    """Thumbnails and originals of an index.

    Thumbnails are kept in the user's cache folder by the content they show: they outlive an index, fit
    whichever has the same image, and may be removed at any time.
    """

    def __init__(self, index: Store, cache: Path | None = None) -> None:
        self._index = index
        self._cache = cache or user_cache_path("retrieval") / "thumbs"

    def find(self, item: str) -> Item:
        """Find an item by the text of its id, or by its digest; raises ImageError if there is none."""
        index = self._index
        if len(item) == DIGITS and item.isalnum() and item in index.ids_by_digest:
            return index.items[index.ids_by_digest[item][0]]
        if not (item.isascii() and item.isdecimal() and len(item) < 12 and int(item) < len(index.items)):
            raise ImageError(f"the index has no such image; its ids are 0 to {len(index.items) - 1}")
        return index.items[int(item)]

    def require_unchanged(self, item: Item) -> None:
        """Raise ImageError if an item's file is not as it was indexed; reads it only if it was touched."""
        with suppress(ImageError):  # which reading it tells better
            if self._file(item).status() == (item.size, item.mtime):
                return
        self._read(item)

    def thumbnail(self, item: Item) -> bytes:
        """Return a small JPEG, made once; if it is there, its file counts as unchanged. Else ImageError."""
        kept = self._cache / item.digest[:2] / f"{item.digest}-{THUMBNAIL}-{QUALITY}.jpg"
        try:
            return kept.read_bytes()
        except OSError:
            made = make_jpeg(self._read(item), item.name, THUMBNAIL, QUALITY)
        with suppress(OSError):  # no room, or a read-only home: it is made again next time
            kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with atomic_write(kept) as beside:
                beside.write_bytes(made)
        return made

    def trim(self, most: int = CACHE_BYTES) -> None:
        """Remove the thumbnails that were not looked at for longest, until the others have room."""
        room = most
        with suppress(OSError):  # another server trims it, too
            files = [(path, path.stat()) for path in self._cache.glob("*/*")]
            for path, facts in sorted(files, key=lambda file: file[1].st_atime, reverse=True):
                room -= facts.st_size
                if room < 0:
                    path.unlink()

    def original(self, item: Item) -> tuple[bytes, str]:
        """Return what a browser can show of the whole image, and its media type; raises as `thumbnail`."""
        data = self._read(item)
        header = open_header(data)
        mime = BROWSER_TYPES.get(header.format or "") if header else None
        if mime and len(data) <= MAX_ORIGINAL_BYTES:
            return data, mime
        return make_jpeg(data, item.name, MAX_SIDE), "image/jpeg"

    def _file(self, item: Item) -> ImageFile:
        return image_at(item.path, item.name, self._index.allowed)

    def _read(self, item: Item) -> bytes:
        """Read an item's file, and refuse one that is gone or not what was indexed."""
        file = self._file(item)
        try:
            data = file.read()[0] if file.status()[0] == item.size else b""  # of another size is not read
        except ImageError as error:
            raise ImageError(file.fault or f"{item.name} is not there any more") from error
        if content_digest(data) != item.digest:
            raise ImageError(f"{item.name} has changed since it was indexed")
        return data


def build_pictures(pictures: Pictures) -> APIRouter:
    """Serve `thumbs/ID` and `images/ID`, or a digest. What is not there, or no more, is 404 with why."""
    router = APIRouter()
    limiter = CapacityLimiter(CORES)

    def answer(item_id: str, known: str, kind: str) -> Response:
        item = pictures.find(item_id)
        pictures.require_unchanged(item)
        headers = HEADERS | {"ETag": f'"{item.digest}-{kind}"'}
        if headers["ETag"] in known:
            return Response(status_code=304, headers=headers)
        data, mime = (pictures.thumbnail(item), "image/jpeg") if kind == "thumb" else pictures.original(item)
        return Response(data, media_type=mime, headers=headers)

    async def serve(item_id: str, request: Request, kind: str) -> Response:
        known = request.headers.get("if-none-match", "")
        try:
            return await run_sync(answer, item_id, known, kind, limiter=limiter)
        except ImageError as reason:
            text = str(reason)
            raise HTTPException(404, f"{text[0].upper()}{text[1:]}.") from reason
        except RetrievalError as reason:  # the store of the items cannot be reached
            raise HTTPException(503, str(reason)) from reason

    @router.get("/thumbs/{item}", response_class=Response, responses={200: {"content": JPEG}})
    async def thumbs(item: str, request: Request) -> Response:
        """Show an image of the index, small."""
        return await serve(item, request, "thumb")

    @router.get("/images/{item}", response_class=Response, responses={200: {"content": SHOWN}})
    async def images(item: str, request: Request) -> Response:
        """Show an image of the index."""
        return await serve(item, request, "image")

    return router


def make_jpeg(data: bytes, name: str, side: int, quality: int = 85) -> bytes:
    """Make a JPEG of an image file, at most `side` pixels wide and high; raises ImageError as `decode`."""
    image = decode(data, name, MARGIN * side).image
    image.thumbnail((side, side), Image.Resampling.BICUBIC)
    return encode(image, "JPEG", quality=quality, optimize=True)

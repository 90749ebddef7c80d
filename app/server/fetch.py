"""Fetch an image by its address, and only from public ones: the server is no way into its network."""

from typing import Any
from urllib.parse import urljoin

import anyio
import httpcore
import httpx

from index.errors import ImageError
from index.images.decode import decode
from index.images.public_address import look_up

MOST_BYTES = 50_000_000
SECONDS = 15.0  # for all of it: names, redirects, every byte
REDIRECTS = 3
CHECK_SIDE = 64  # pixels; as much of the image is decoded as tells that it is one
HEADERS: dict[bytes | str, bytes | str] = {
    "Accept": "image/*",
    "Accept-Encoding": "identity",
    "User-Agent": "retrieval",
}


def fetch_image(url: str) -> bytes:
    """Fetch the bytes of an image file at an `http://` or `https://` address.

    Every connection, also after a redirect, goes to an address that was checked itself: what a name stands
    for is looked up once. No proxy is used, for it would look the name up again.

    Raises:
        ImageError: It cannot be had; the message is the reason.
    """
    try:
        data = anyio.run(_follow, url.strip())
    except TimeoutError as error:
        raise ImageError(f"the link did not answer within {SECONDS:.0f} seconds") from error
    except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
        raise ImageError("the link cannot be reached") from error
    try:
        decode(data, url, CHECK_SIDE)
    except ImageError as reason:
        raise ImageError(f"the link leads to no image that can be used: {reason}") from reason
    return data


async def _follow(url: str) -> bytes:
    context = httpx.create_ssl_context()
    with anyio.fail_after(SECONDS):  # whatever is waited for, so that a trickle of bytes gains no time
        async with httpcore.AsyncConnectionPool(context, network_backend=_PublicNetwork()) as pool:
            for _ in range(REDIRECTS + 1):
                async with pool.stream("GET", _check(url), headers=HEADERS) as answer:
                    headers = {name.lower(): value.decode("latin-1") for name, value in answer.headers}
                    target = headers.get(b"location")
                    if answer.status not in (301, 302, 303, 307, 308) or not target:
                        return await _read(answer, headers)
                try:
                    url = urljoin(url, target)
                except ValueError as error:
                    raise ImageError("the link leads on to what is no link") from error
    raise ImageError(f"the link leads on more than {REDIRECTS} times")


def _check(url: str) -> str:
    """Parse an address to ASCII, and refuse what is not followed."""
    try:
        parsed = httpx.URL(url)
        host = parsed.host  # decoded here, which fails for some
    except (httpx.InvalidURL, ValueError) as error:
        raise ImageError("this is not a link that can be read") from error
    if not 0 < (parsed.port or 80) < 65536:
        raise ImageError("this is not a link that can be read")
    if parsed.scheme not in ("http", "https") or not host:
        raise ImageError("only links that begin with http:// or https:// are followed")
    if parsed.userinfo:
        raise ImageError("a link with a password in it is not followed")
    return str(parsed.copy_with(fragment=None))


async def _read(answer: httpcore.Response, headers: dict[bytes, str]) -> bytes:
    if answer.status != 200:
        raise ImageError(f"the link answers with status {answer.status}")
    if headers.get(b"content-type", "").startswith("text/"):
        raise ImageError("the link leads to a page, not to an image: copy the address of the image itself")
    too_much = ImageError(f"the link leads to more than {MOST_BYTES // 1_000_000} MB")
    length = headers.get(b"content-length", "0")
    if length.isdecimal() and int(length) > MOST_BYTES:
        raise too_much
    data = bytearray()
    async for chunk in answer.aiter_stream():
        data += chunk
        if len(data) > MOST_BYTES:
            raise too_much
    return bytes(data)


class _PublicNetwork(httpcore.AnyIOBackend):
    """Opens connections to public addresses only."""

    async def connect_tcp(
        self, host: str, port: int, *args: Any, **kwargs: Any
    ) -> httpcore.AsyncNetworkStream:
        failure: Exception = ImageError("no such site: check the address")
        for address in _look_up(host, port):
            try:
                return await super().connect_tcp(address, port, *args, **kwargs)
            except httpcore.ConnectError as error:
                failure = error
        raise failure


def _look_up(host: str, port: int) -> list[str]:
    """Look up the addresses that a name stands for, and refuse it unless all of them are public."""
    try:
        addresses, public = look_up(host, port)
    except (OSError, UnicodeError) as error:
        raise ImageError("no such site: check the address") from error
    if not public:
        raise ImageError(
            "this server fetches images from public addresses only, not from a private network: "
            "download the image and drop it here"
        )
    return addresses

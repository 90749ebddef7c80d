"""Fetch an image by its address, and only from public ones: the server is no way into its network."""

import socket
import ssl
import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import urljoin

import httpcore
import httpx

from index.errors import ImageError
from index.images.decode import decode
from index.images.public_address import is_public

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
    deadline = time.monotonic() + SECONDS
    try:
        with httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context(), network_backend=_PublicNetwork(deadline)
        ) as pool:
            data = _follow(pool, url.strip())
    except (httpcore.TimeoutException, TimeoutError) as error:
        raise ImageError(f"the link did not answer within {SECONDS:.0f} seconds") from error
    except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
        raise ImageError("the link cannot be reached") from error
    try:
        decode(data, url, CHECK_SIDE)
    except ImageError as reason:
        raise ImageError(f"the link leads to no image that can be used: {reason}") from reason
    return data


def _follow(pool: httpcore.ConnectionPool, url: str) -> bytes:
    for _ in range(REDIRECTS + 1):
        with pool.stream("GET", _check(url), headers=HEADERS) as answer:
            headers = {name.lower(): value.decode("latin-1") for name, value in answer.headers}
            target = headers.get(b"location")
            if answer.status not in (301, 302, 303, 307, 308) or not target:
                return _read(answer, headers)
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


def _read(answer: httpcore.Response, headers: dict[bytes, str]) -> bytes:
    if answer.status != 200:
        raise ImageError(f"the link answers with status {answer.status}")
    if headers.get(b"content-type", "").startswith("text/"):
        raise ImageError("the link leads to a page, not to an image: copy the address of the image itself")
    too_much = ImageError(f"the link leads to more than {MOST_BYTES // 1_000_000} MB")
    length = headers.get(b"content-length", "0")
    if length.isdecimal() and int(length) > MOST_BYTES:
        raise too_much
    data = bytearray()
    for chunk in answer.iter_stream():
        data += chunk
        if len(data) > MOST_BYTES:
            raise too_much
    return bytes(data)


def _look_up(host: str, port: int) -> list[str]:
    """Look up the addresses that a name stands for, and refuse it unless all of them are public."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ImageError("no such site: check the address") from error
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not all(is_public(address.partition("%")[0]) for address in addresses):
        raise ImageError(
            "this server fetches images from public addresses only, not from a private network: "
            "download the image and drop it here"
        )
    return addresses


class _PublicNetwork(httpcore.NetworkBackend):
    """Opens connections to public addresses, and lets none outlast the deadline."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        failure: Exception = ImageError("no such site: check the address")
        for address in _look_up(host, port):
            try:
                stream = self._sockets.connect_tcp(
                    address, port, _seconds_left(self._deadline), local_address, socket_options
                )
                return _DeadlineStream(stream, self._deadline)
            except httpcore.ConnectError as error:
                failure = error
        raise failure


class _DeadlineStream(httpcore.NetworkStream):
    """A stream that waits no longer than the deadline, so that a trickle of bytes gains no time."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _seconds_left(self._deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _seconds_left(self._deadline))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        secured = self._stream.start_tls(ssl_context, server_hostname, _seconds_left(self._deadline))
        return _DeadlineStream(secured, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _seconds_left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("the deadline has passed")
    return left

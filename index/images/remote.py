"""Objects of stores and web servers, by address: how large they are, and bytes of them. fsspec does the work.

An address comes from the command line, or from a list that was named there. What an index says of itself may
come from anyone: of that, `lies_below` lets pass what the command line has allowed.
"""

import asyncio
import hashlib
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cache
from types import SimpleNamespace
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urljoin, urlsplit

from index.errors import ImageError, RetrievalError, UsageError, in_line, needs
from index.images.public_address import is_loopback, leads_inward

T = TypeVar("T")

# What is read, and the package that does it: no protocol that unpacks, mounts, runs or asks another one.
PACKAGES = {
    "s3": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "hdfs": "pyarrow",
    "http": "aiohttp",
    "https": "aiohttp",
    "memory": "fsspec",
}
WEB = ("http", "https")
AS_IT_IS = {"headers": {"Accept-Encoding": "identity"}}  # bytes of a range are those of the file
LONGEST_CALL, SILENCE = 300.0, 30.0  # seconds that a request may take, and that nothing of it may come
BLOCK = 4 << 20  # bytes that one request brings while the headers of a shard are read
MAX_BYTES = 1 << 29  # of a file
LARGEST = 1 << 62  # bytes of what has files in it; a server or a shard that says more is wrong
ATTEMPTS = 4  # at a request
SHORTEST, LONGEST = 1.0, 60.0  # seconds before the second attempt; seconds that a server may ask to wait
BUSY = (408, 425, 429, 500, 502, 503, 504)  # statuses after which the same request may be answered
# As aiohttp calls what a server broke off, and what it gives as the cause of that.
CUT = ("ServerDisconnectedError", "ClientPayloadError", "ContentLengthError", "TransferEncodingError")
# Ends of names of parameters; imgix and others call a signature in hex digits `s` or `sign`.
SECRETS = (
    *("key", "keyid", "key-pair-id", "token", "secret", "password", "pwd", "sig", "signature", "credential"),
    *("auth", "hmac", "jwt", "hdnts", "hdnea"),
)
SIGNED = r"(?:s|sign)(?==[0-9a-f]{32})"
# What may tell one state of an object from another, as the stores name it.
VERSION = "ETag etag LastModified last_modified Last-Modified mtime updated created".split()
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_SECRET = re.compile(rf"([?&;](?:[^=&;]*(?:{'|'.join(SECRETS)})|{SIGNED})=)[^&;]*", re.IGNORECASE)
_LOCATION = re.compile(r"(.+?)#bytes=(\d{1,18})-(\d{1,18})/(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Remote:
    """Bytes at an address."""

    address: str  # of the object that has them
    offset: int = 0  # of the first of them
    size: int = 0  # how many, where that is known
    member: str | None = None  # what they are called, if the object is a shard that has more
    changed: int | None = None  # a number that is another when the object has changed; None: not asked yet

    @classmethod
    def parse(cls, location: str) -> "Remote":
        """Make it again from its location. Asks nobody."""
        found = _LOCATION.fullmatch(location)
        if found is None:
            return cls(location)
        first, last = int(found[2]), int(found[3])
        return cls(found[1], first, max(last + 1 - first, 0), found[4])

    @property
    def location(self) -> str:
        """All but `changed` as text. It has the place: to look for a member takes a pass over its shard."""
        if self.member is None:
            return self.address
        return f"{self.address}#bytes={self.offset}-{self.offset + self.size - 1}/{self.member}"

    def status(self) -> tuple[int, int]:
        """Size and `changed`; asked for, as by `ask`, if need be."""
        if self.changed is not None:
            return self.size, self.changed
        size, changed = ask(self.address)
        return size if self.member is None else self.size, changed

    def read(self, size: int) -> bytes:
        """Read them, as many as `status` says, in one request; ImageError if they are not there."""
        end = self.offset + size

        def fetch() -> bytes:
            store, path = _open(self.address)
            if _protocol(self.address) not in WEB:
                return store.cat_file(path, start=self.offset, end=end)
            # These may send more than they are asked for, without end.
            with store.open(path, size=end, block_size=BLOCK, cache_type="none") as file:
                file.seek(self.offset)
                return file.read(size)

        data = _attempt(self.address, fetch)
        if len(data) != size:
            raise ImageError("it has changed while it was read, or ends within this image")
        return data


def is_address(text: str) -> bool:
    """Whether a name is an address, and not a path on this machine; `file:` addresses are paths."""
    found = _ADDRESS.match(text)
    return found is not None and found[1].lower() != "file"


def check(address: str) -> str:
    """Return an address; UsageError for one that is not read, or has a secret, which an index would show."""
    hidden = hide_secrets(address)
    try:
        parts = urlsplit(address.encode().decode())
    except UnicodeError as error:
        raise UsageError(f"{hidden}: not UTF-8: write what is not ASCII as %XX.") from error
    except ValueError as error:
        raise UsageError(f"{hidden} is no address that can be read.") from error
    if _protocol(address) not in PACKAGES or "::" in address:
        raise UsageError(f"{hidden} is not read, only {'://, '.join(PACKAGES)}://, and no chain of them.")
    if not parts.netloc or "#bytes=" in address:
        raise UsageError(f"{hidden} names nothing. Give the address of an object, such as s3://BUCKET/KEY.")
    secret = find_secret(address)
    if parts.password or (parts.scheme in WEB and (parts.username or secret)):
        raise UsageError(
            f"{hidden}: an address may carry no password and no {secret or 'user name'}, for "
            "the index would keep and show it. Credentials are taken from the environment."
        )
    return address


def find_secret(address: str) -> str:
    """Name the first parameter of an address that looks like a key; empty if none does."""
    query = urlsplit(address).query.replace(";", "&")  # servers of old take either
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name.lower().endswith(SECRETS) or re.match(SIGNED, f"{name}={value}", re.IGNORECASE):
            return name
    return ""


def hide_secrets(address: str) -> str:
    """An address without what is secret in it: user, password, and what `find_secret` finds."""
    return _SECRET.sub(r"\1...", re.sub(r"^([a-z]+://)[^/]*@", r"\1...@", address))


def lies_below(address: str, allowed: Iterable[str]) -> bool:
    """Whether an address lies below one of those that are allowed, with no step back up.

    It may have parameters, which a server may act on, only below one that ends with a question mark.
    """
    path, asks, _ = address.partition("?")
    steps = unquote(path).replace("\\", "/").split("/")
    fits = any(path.startswith(one.rstrip("/?") + "/") and (not asks or one.endswith("?")) for one in allowed)
    return fits and not {".", ".."} & set(steps)


def ask(address: str) -> tuple[int, int]:
    """Ask how large an object is, and for a number that is another when it has changed.

    Where the server does not tell the size, or says nothing is there, all is read to find it out.

    Raises:
        ImageError: It is not there, or its size cannot be, or is over `MAX_BYTES` and not told; the message
            is the reason.
        RetrievalError: The store cannot be asked.
    """
    store, path = _attempt(address, lambda: _open(address))
    facts = _attempt(address, lambda: store.info(path))
    if facts["type"] != "file":
        raise ImageError("a folder, not a file" if facts["type"] == "directory" else "not a file")
    version = hashlib.blake2b(repr([str(facts.get(name)) for name in VERSION]).encode(), digest_size=16)

    def measure() -> tuple[int, Any]:
        size, seen = 0, version.copy()  # of this try
        with store.open(path, block_size=0) as file:
            while chunk := file.read(BLOCK):
                seen.update(chunk)
                if (size := size + len(chunk)) > MAX_BYTES:
                    raise ImageError(f"too large: over {MAX_BYTES >> 20} MiB, and its size is not told")
        return size, seen

    size = facts["size"]
    if not size:  # many answer HEAD with a length of 0
        size, version = _attempt(address, measure)
    if not 0 <= size <= LARGEST:
        raise ImageError(f"a size of {size} bytes, which cannot be")
    return size, int(version.hexdigest()[:15], 16)


@contextmanager
def open_object(address: str, size: int) -> Iterator[Any]:
    """Open an object, to `seek`, `tell` and `read` it as a file. It is read as `ask` asks.

    It has the `size` that `ask` gave, which a web server may not tell, and send parts of it all the same.
    """
    store, path = _attempt(address, lambda: _open(address))
    # Not told it, fsspec may open a stream, which cannot go back.
    how = {"size": max(size, 1)} if _protocol(address) in WEB else {}
    with _attempt(address, lambda: store.open(path, block_size=BLOCK, cache_type="readahead", **how)) as file:

        def read(size: int) -> bytes:
            return _attempt(address, lambda: file.read(size))

        yield SimpleNamespace(read=read, seek=file.seek, tell=file.tell)


def _protocol(address: str) -> str:
    return address.partition("://")[0]


def _open(address: str) -> tuple[Any, str]:
    check(address)
    with needs("remote"):
        from fsspec.core import url_to_fs
    if _protocol(address) not in WEB:
        return url_to_fs(address)
    return url_to_fs(address, **_web_options(SILENCE, not is_loopback(urlsplit(address).hostname or "")))


@cache
def _web_options(silence: float, by_proxy: bool) -> dict[str, Any]:
    """Options of all calls to web servers: fsspec keeps a connection for each that it has not seen.

    `by_proxy` takes the environment's, and the user's .netrc.
    """
    import aiohttp

    timeout = aiohttp.ClientTimeout(LONGEST_CALL, sock_connect=silence, sock_read=silence)
    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(_check_redirect)
    how = {"timeout": timeout, "trace_configs": [trace], "trust_env": by_proxy}
    return {**AS_IT_IS, "client_kwargs": how}


async def _check_redirect(_: Any, __: Any, redirect: Any) -> None:
    """Raise ImageError where a public server leads on into a private network."""
    source, target = str(redirect.url), redirect.response.headers.get("Location", "")
    hosts = urlsplit(source).hostname or "", urlsplit(urljoin(source, target)).hostname or ""
    if await asyncio.to_thread(leads_inward, *hosts):
        raise ImageError("it leads from a public address into a private network")


def _attempt(address: str, call: Callable[[], T]) -> T:
    """Make a request, and make it again after a pause where the server was busy or broke off."""
    for attempt in range(ATTEMPTS):
        try:
            return call()
        except RetrievalError:
            raise
        except Exception as error:
            pause = _pause(error.__cause__ or error, attempt)
            if pause is None or attempt + 1 == ATTEMPTS:
                raise _explain(address, error) from error
        time.sleep(pause)
    raise AssertionError


def _pause(error: BaseException, attempt: int) -> float | None:
    """How many seconds to wait before the next attempt; None if another would be of no use."""
    status, headers = getattr(error, "status", None), getattr(error, "headers", None) or {}
    if status in BUSY:
        told = read_retry_after(headers.get("Retry-After"))
        if told:
            return told if told <= LONGEST else None
    elif not isinstance(error, TimeoutError | ConnectionError) and type(error).__name__ not in CUT:
        return None
    return random.uniform(0.5, 1) * SHORTEST * 2**attempt


def read_retry_after(header: str | None) -> float:
    """Seconds from now that a Retry-After header says: a number, or a date (RFC 9110, 10.2.3); 0 for none."""
    try:
        seconds = float(header or 0)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(str(header)).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return max(0.0, seconds)  # in this order NaN counts as nothing


def _explain(address: str, error: Exception) -> RetrievalError:
    """Turn what fsspec and the stores' packages raise, which may be anything, into one line."""
    protocol = _protocol(address)
    if isinstance(error, ImportError):
        return UsageError(f"{protocol}:// needs a package: pip install {PACKAGES[protocol]}  ({error})")
    cause = error.__cause__ or error
    if status := getattr(cause, "status", None):  # without its address, which a redirect may have signed
        return ImageError(f"HTTP {status} {getattr(cause, 'message', '')}".rstrip())
    reason = hide_secrets(in_line(cause))
    if "support range requests" in reason:
        return ImageError("the web server sends no parts of files, as a shard needs")
    if isinstance(error, FileNotFoundError) and error.__cause__ is None:
        return ImageError("there is no such object")
    if isinstance(error, (FileNotFoundError, PermissionError)) or protocol in WEB:
        return ImageError(reason)
    return RetrievalError(
        f"{address} cannot be read: {reason}. Is it right, and are the credentials in the environment?"
    )

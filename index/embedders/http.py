"""Embed by an HTTP endpoint. A call is one attempt: `index.teachers.client` repeats it and keeps account."""

import os
import re
import ssl
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from index.embedders.base import Calls, Embedder
from index.embedders.http_formats import Upload, read_answer, write_request
from index.embedders.options import EmbedderOptions
from index.errors import CallError, GarbledError, RefusedError, TransientError, UnreachableError, UsageError
from index.images.decode import MARGIN, Photo, decode, encode, open_header, read_orientation
from index.images.public_address import is_loopback
from index.images.remote import find_secret, read_retry_after
from index.io import content_digest
from index.progress import say

KEY = "RETRIEVAL_TEACHER_KEY"  # the environment variable
CONNECT = 10.0  # seconds
PROXIES = "Check ALL_PROXY, HTTPS_PROXY and HTTP_PROXY"
LARGEST_ANSWER = 64_000_000  # bytes
QUOTED = 300  # characters of what came with a refusal
MIMES = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}  # what every endpoint reads
MODES = ("L", "P", "RGB")
LARGEST_UPLOAD, LARGEST_PIXELS = 4_000_000, 16_000_000
SIDE, QUALITY = 2048, 95  # of what is sent in place of a file that is too large or of another format
UPRIGHT = (0, 1)  # EXIF orientations
REFUSALS = (400, 413, 415, 422)
LATER = (408, 425, 429)
ENCODING = re.compile(r"base64|encoding[_ ]format", re.IGNORECASE)


class EndpointEmbedder(Embedder):
    """Asks `POST URL` in one of the ways of `index.embedders.http_formats`. Threads may share it."""

    def __init__(self, url: str, options: EmbedderOptions) -> None:
        """Read the key and check the address, which must not carry it in clear. Nothing is sent yet."""
        address = _read_address(url)
        self._api_key = os.environ.get(KEY, "").strip()
        if not (self._api_key.isascii() and self._api_key.isprintable()):
            raise UsageError(f"The key in {KEY} has characters that no key has.")
        if self._api_key and address.scheme == "http" and not is_loopback(address.host):
            raise UsageError(
                f"The key in {KEY} would go to {address.host} in clear. Use https, or unset {KEY}."
            )
        self._answered = False  # whether any call has brought an answer in this run
        self.key = f"{url}#{options.model}"
        self.name = options.model or address.host
        self.spec = url
        self.options = options
        # Waited for are a free connection, room for what is sent, the answer's beginning, the last chunk of
        # it in time, and at the longest as much again.
        seconds, lanes = 5 * options.timeout + 2 * CONNECT, options.concurrency
        self._calls = Calls(options.batch, lanes, seconds, options.rate, paid=True, replaceable=options.probe)
        # What was not asked for compressed cannot be a bomb; see `_read`.
        headers = {"Accept-Encoding": "identity", "Accept": "application/json"}
        if self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        try:
            self._client = httpx.Client(
                verify=httpx.create_ssl_context(),
                timeout=httpx.Timeout(options.timeout, connect=CONNECT),
                limits=httpx.Limits(max_connections=options.concurrency),
                headers=headers,
                trust_env=not is_loopback(address.host),  # no proxy, which would read the key and the photos
            )
        except OSError as error:
            raise UsageError(
                f"SSL_CERT_FILE or SSL_CERT_DIR names no certificates that can be read: {error}. Unset it."
            ) from error
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            raise UsageError(
                f"A proxy that the environment names cannot be used: {str(error).rstrip('.')}. {PROXIES}."
            ) from error

    @property
    def calls(self) -> Calls:  # type: ignore[override]
        """How it is best called: about no more images than it was seen to answer for."""
        most = self.lessons.get("batch", self._calls.batch)
        return replace(self._calls, batch=min(self._calls.batch, most))

    def prepare(self, photo: Photo) -> Upload:
        """The file as it is, if every endpoint can be expected to read it upright; else an upright JPEG."""
        if (image := open_header(photo.data)) and len(photo.data) <= LARGEST_UPLOAD:
            mime = MIMES.get(image.format or "")
            plain = image.mode in MODES and not image.has_transparency_data
            small = image.width * image.height <= LARGEST_PIXELS
            if mime and plain and small and read_orientation(image) in UPRIGHT:
                return Upload(photo.data, mime, photo.digest)
        whole = decode(photo.data, photo.name, MARGIN * SIDE).image
        whole.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
        data = encode(whole, "JPEG", quality=QUALITY, subsampling=0)
        return Upload(data, MIMES["JPEG"], content_digest(data))

    def describe_input(self, photo: Photo, made: Upload) -> tuple[str, int]:
        """As `Embedder`: what is sent may be another file than the photo's."""
        return made.digest, len(made.data)

    def embed(self, batch: Sequence[Upload]) -> NDArray[np.float32]:
        """Make one call for n images, for `(n, dim)` float32 as answered: of any length, perhaps not finite.

        Raises:
            TransientError: No usable answer came; the same call may be answered later.
            RefusedError: The endpoint refused these images.
            CallError: The endpoint cannot be used as it was addressed.
        """
        ask = partial(write_request, self.options.dialect, self.options.model, batch)
        request = ask(bool(self.lessons.get("base64", True)))
        try:
            body = self.post(request)
        except CallError as failure:
            # Before any answer, a refusal that says nothing of the encoding may be one of it all the same.
            may_be = isinstance(failure, RefusedError) and not self._answered
            if failure.charged or not (may_be or ENCODING.search(str(failure))) or ask(False) == request:
                raise
            body = self.post(ask(False))
            self._learn("base64", 0, "gives no vectors as base64, and is asked for plain numbers.")
        self._answered = True
        try:
            answer = read_answer(body, len(batch))
        except ValueError as error:
            raise GarbledError(f"{self.name} answered with {error} ({self._quote(body, 80)!r})") from error
        if answer.ordered:
            self._learn("ordered", 1, "does not number its answers: their order counts.")
        if answer.most is not None:
            # If so few are not answered for either, images are left out, wherever they stand.
            self.take_fewer(1 if "batch" in self.lessons else answer.most)
        return answer.rows

    def take_fewer(self, most: int) -> None:
        """Be asked about so many images a call at most, in later runs too."""
        line = f"answers for fewer images than asked: it is asked about {most} a call from now on."
        self._learn("batch", most, line)

    def _learn(self, name: str, value: int, line: str) -> None:
        if self.lessons.get(name) != value:
            self.lessons = {**self.lessons, name: value}
            say(f"{self.name} {line}")

    def post(self, request: dict[str, Any]) -> bytes:
        """Make one call, with arguments for `httpx.Client.stream`, and give its body; raises as `embed`."""
        sent = False  # whether the endpoint may have begun to work, and to charge
        to_proxy = False  # whether what is sent is for a proxy on the way

        def note(event: str, info: dict[str, Any]) -> None:
            nonlocal sent, to_proxy
            if event.endswith("send_request_body.started"):
                to_proxy = info["request"].method == b"CONNECT"
            sent = sent or (not to_proxy and event.endswith("send_request_body.complete"))

        try:
            with self._client.stream("POST", self.spec, extensions={"trace": note}, **request) as response:
                deadline = time.monotonic() + self.options.timeout
                if not response.is_success:
                    raise self._refusal(response, deadline)
                return self._read(response, deadline)
        except httpx.TransportError as error:
            raise self._no_answer(error, sent) from error

    def _read(self, response: httpx.Response, deadline: float) -> bytes:
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise self._useless("compressed, which it was asked not to do; that is not unpacked.")
        body = bytearray()
        for chunk in response.iter_raw():
            body += chunk
            if body[:80].lstrip().startswith(b"<"):  # whatever it calls itself
                raise self._useless("with a web page. Is it the address of an embeddings endpoint?")
            if len(body) > LARGEST_ANSWER:
                raise self._useless(
                    f"with more than {LARGEST_ANSWER // 1_000_000} MB. "
                    "Give a smaller --teacher-batch, if that is what its vectors take."
                )
            if time.monotonic() > deadline:
                raise TransientError(f"{self.name} did not finish its answer in time", charged=True)
        return bytes(body)

    def _useless(self, how: str) -> CallError:
        return CallError(f"{self.spec} answered {how}", charged=True)

    def _refusal(self, response: httpx.Response, deadline: float) -> CallError:
        """What a status that is no success means. Only a gateway that lost its upstream may have charged."""
        status = response.status_code
        said = f"HTTP {status}{self._reason(response, deadline)}"
        if status in LATER or status >= 500:
            wait = read_retry_after(response.headers.get("Retry-After"))
            return TransientError(f"{self.name} answered {said}", charged=status in (502, 504), wait=wait)
        if status in REFUSALS:
            return RefusedError(f"{self.name} answered {said}")
        remedy = "Check the address and --teacher-dialect"
        if status in (401, 403):
            put = "Check the key in" if self._api_key else "Put the key into the environment as"
            remedy = f"{put} {KEY}"
        elif response.has_redirect_location:
            there = self._quote(response.headers["Location"].encode())
            remedy = f"Give the address that it sends to: {there}"
        elif status == 402:
            remedy = "The account there has no money left"
        return CallError(f"{self.spec} answered {said}. {remedy}.")

    def _reason(self, response: httpx.Response, deadline: float) -> str:
        if "html" in response.headers.get("Content-Type", ""):
            return ""
        start = bytearray()
        for chunk in response.iter_raw():
            start += chunk
            if time.monotonic() > deadline:  # what has come may end within a key
                return ""
            if len(start) >= QUOTED + len(self._api_key):
                break
        text = self._quote(start)
        return f": {text}" if text else ""

    def _quote(self, data: bytes | bytearray, length: int = QUOTED) -> str:
        """The beginning of a stranger's text, as one line, without the key, of which it may hold a copy."""
        key = self._api_key.encode()
        start = bytes(data[: length + len(key)])
        if key:  # hidden at its full length, and before anything is cut off, or a part of it might stay
            start = start.replace(key, b"*" * len(key))
        text = re.sub(rb"\*{3,}", b"***", start[:length]).decode(errors="replace")
        return " ".join("".join(c if c.isprintable() else " " for c in text).split())

    def _no_answer(self, error: httpx.TransportError, sent: bool) -> CallError:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                return CallError(
                    f"The certificate of {self.spec} cannot be trusted: {cause.verify_message}. "
                    "Check the address; SSL_CERT_FILE may name further authorities."
                )
            cause = cause.__cause__ or cause.__context__
        what = str(error) or type(error).__name__
        if isinstance(error, httpx.ConnectTimeout):
            what = f"no connection in {CONNECT:g} s"
        elif isinstance(error, httpx.TimeoutException):
            failing = "nothing came for" if sent else "it did not take the images within"
            what = f"{failing} {self.options.timeout:g} s"
        if isinstance(error, httpx.ProxyError):
            return UnreachableError(f"{self.spec} cannot be reached: its proxy said {what}. {PROXIES}.")
        if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol)):
            return UnreachableError(f"{self.spec} cannot be reached: {what}. Check the address.")
        return TransientError(f"{self.name} gave no answer: {what}", charged=sent)


def _read_address(url: str) -> httpx.URL:
    """Refuse an address that no network can look up, and a key in it, for addresses are shown and kept."""
    try:
        address = httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError) as error:
        raise UsageError(f"The teacher's address is none: {str(error).rstrip('.')}.") from error
    try:
        address.raw_host.decode().encode("idna")  # as the socket will, with an error that is no network's
    except UnicodeError as error:
        raise UsageError(f"{address.host} is no name of a host. Check the teacher's address.") from error
    if not address.host or address.userinfo:
        raise UsageError(f"The teacher's address needs a host, and no user name: put the key into {KEY}.")
    if secret := find_secret(str(address)):
        raise UsageError(
            f"The parameter {secret} of the teacher's address looks like a key, and addresses are shown "
            f"and kept. Leave it out, and put the key into {KEY}."
        )
    return address

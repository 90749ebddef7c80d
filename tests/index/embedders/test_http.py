"""One call to an endpoint, and everything that can be wrong with it."""

import gzip
import json
import os
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
import trustme
from conftest import picture, write_embedder
from fastapi import Response
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from teacher_server import TeacherServer, serving

from index.embedders.http import KEY, LARGEST_ANSWER, EndpointEmbedder
from index.embedders.http_formats import read_answer
from index.embedders.onnx import OnnxEmbedder
from index.embedders.options import EmbedderOptions
from index.embedders.registry import open_embedder
from index.errors import CallError, RefusedError, TransientError, UnreachableError, UsageError
from index.images import decode as decoding
from index.images.decode import decode, read_photo
from index.images.file import ImageFile

DIALECTS = ("infinity", "jina", "multipart")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> OnnxEmbedder:
    return OnnxEmbedder(write_embedder(tmp_path_factory.mktemp("t") / "t.onnx", dim=12, side=64), "cpu")


@pytest.fixture(scope="module")
def site(teacher):
    """One server for all tests of this file, with its address."""
    server = TeacherServer(teacher)
    with serving(server) as url:
        yield server, url


@pytest.fixture
def server(site):
    site[0].__init__(site[0].embedder)
    return site[0]


@pytest.fixture
def photos(folder: Path):
    return [read_photo(ImageFile(path, path.name)) for path in sorted(folder.glob("*.png"))]


def ask(url: str, photos, **options) -> np.ndarray:
    model = EndpointEmbedder(url, EmbedderOptions(**options))
    return model.embed([model.prepare(photo) for photo in photos])


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("fault", ["", "reorder"])
def test_answers_are_matched_by_index(site, server, teacher, photos, dialect, fault):
    server.forced = [fault]
    expected = teacher.embed([teacher.prepare(photo) for photo in photos])
    np.testing.assert_allclose(ask(site[1], photos, dialect=dialect), expected, atol=1e-6)
    assert server.calls == [[photo.digest for photo in photos]]  # the very bytes of the files


@pytest.mark.parametrize(
    ("fault", "kind", "charged"),
    [
        ("429", TransientError, False),
        ("500", TransientError, False),
        ("drop", TransientError, True),
        ("truncate", TransientError, True),
        ("duplicate", TransientError, True),
    ],
)
def test_faults_are_told_apart_by_what_they_cost(site, server, photos, fault, kind, charged):
    server.forced = [fault]
    with pytest.raises(kind) as caught:
        ask(site[1], photos)
    assert caught.value.charged is charged
    assert caught.value.wait == (0.05 if fault == "429" else 0)


def test_a_slow_answer_is_given_up(site, server, photos):
    server.forced, server.slow = ["slow"], 2
    start = time.monotonic()
    with pytest.raises(TransientError, match=r"nothing came for 0\.2 s") as caught:
        ask(site[1], photos[:1], timeout=0.2)
    assert time.monotonic() - start < 1.5
    assert caught.value.charged


def test_a_slow_upload_takes_nothing_from_the_time_for_the_answer(photos, monkeypatch):
    """What comes complete was paid for."""
    clock = [0.0]
    monkeypatch.setattr("index.embedders.http.time", SimpleNamespace(monotonic=lambda: clock[0]))

    def answer(request: httpx.Request) -> httpx.Response:
        clock[0] += 100  # while the photos travelled
        return httpx.Response(200, stream=httpx.ByteStream(body([0], [[3.0, 4.0]])))

    model = EndpointEmbedder("http://127.0.0.1/v1/embeddings", EmbedderOptions(timeout=60))
    model._client = httpx.Client(transport=httpx.MockTransport(answer))
    assert model.embed([model.prepare(photos[0])]).tolist() == [[3.0, 4.0]]


@contextmanager
def refusing_proxy():
    """A proxy that leads nowhere, with its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_CONNECT(self):
            self.send_error(407)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_what_a_proxy_refuses_has_cost_nothing(photos, monkeypatch):
    with refusing_proxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        with pytest.raises(UnreachableError, match=r"its proxy said 407 .* HTTPS_PROXY") as caught:
            ask("https://teacher.example/v1/embeddings", photos[:1])
    assert not caught.value.charged


def test_what_goes_to_this_machine_passes_no_proxy(site, server, photos, monkeypatch):
    """It would read the key."""
    monkeypatch.setenv(KEY, "secret")
    for name in ("HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert ask(site[1], photos[:1]).shape == (1, 12)
    monkeypatch.delenv(KEY)
    with pytest.raises(UnreachableError):
        ask("http://teacher.example/v1/embeddings", photos[:1])


@pytest.mark.parametrize(
    ("status", "said"), [(200, "did not finish its answer in time"), (500, "answered HTTP 500")]
)
def test_a_drip_does_not_hold_us_for_ever(photos, status, said):
    """Each chunk comes in time, the whole does not."""

    async def drip(scope, receive, send):
        import asyncio

        await send({"type": "http.response.start", "status": status, "headers": []})
        for _ in range(100):
            await send({"type": "http.response.body", "body": b" ", "more_body": True})
            await asyncio.sleep(0.05)

    start = time.monotonic()
    with serving(drip) as url:
        with pytest.raises(TransientError, match=said):
            ask(url, photos[:1], timeout=0.3)
        assert time.monotonic() - start < 3


@pytest.mark.parametrize(
    ("status", "headers", "body", "kind", "complaint"),
    [
        (200, {"Content-Type": "text/html"}, b"<html>", CallError, "answered with a web page"),
        (200, {"Content-Type": "text/plain"}, b"\n <html>", CallError, "answered with a web page"),
        (200, {}, b"[1]", TransientError, r"something that is no list of embeddings \('\[1\]'\)"),
        (200, {}, b'{"data": []}', TransientError, "the indices none for 10 images"),
        (200, {}, b"[" * 100_000, TransientError, "no list of embeddings"),
        (200, {"Content-Encoding": "gzip"}, gzip.compress(bytes(10**7)), CallError, "answered compressed"),
        (200, {}, bytes(LARGEST_ANSWER + 1), CallError, "answered with more than 64 MB"),
        (200, {}, b'{"data": [{"index": 1e999, "embedding": [1]}]}', TransientError, "no list of embeddings"),
        (400, {}, b"no \x1b[2J image", RefusedError, r"HTTP 400: no \[2J image"),
        (402, {}, b"", CallError, "no money left"),
        (403, {}, b"", CallError, f"Put the key into the environment as {KEY}"),
        (404, {}, b"", CallError, "Check the address"),
        (307, {"Location": "/elsewhere"}, b"", CallError, "address that it sends to: /elsewhere"),
        (500, {"Content-Type": "text/html"}, b"<html>long", TransientError, r"HTTP 500$"),
    ],
)
def test_answers_that_are_none(site, server, photos, status, headers, body, kind, complaint):
    server.script = status, headers, body
    with pytest.raises(kind, match=complaint) as caught:
        ask(site[1], photos)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_an_answer_is_what_it_holds_whatever_it_is_called(site, server, photos):
    server.script = 200, {"Content-Type": "text/html"}, body([0], [[3.0, 4.0]])
    assert ask(site[1], photos[:1]).tolist() == [[3.0, 4.0]]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7),
        ("soon", 0),
        ("nan", 0),
        ("-5", 0),
    ],
)
def test_retry_after_is_a_number_of_seconds(site, server, photos, header, seconds):
    server.script = 503, {"Retry-After": header}, b""
    with pytest.raises(TransientError) as caught:
        ask(site[1], photos[:1])
    assert caught.value.wait == seconds


def test_retry_after_is_a_date(site, server, photos):
    server.script = 503, {"Retry-After": "Tue, 24 Nov 2099 14:00:00 GMT"}, b""
    with pytest.raises(TransientError) as caught:
        ask(site[1], photos[:1])
    assert caught.value.wait == pytest.approx(4_099_212_000 - time.time(), rel=1e-4)


def test_the_key_comes_from_the_environment_and_is_never_said(site, server, photos, monkeypatch):
    server.key = "right"
    monkeypatch.setenv(KEY, "right\n")
    assert ask(site[1], photos[:1]).shape == (1, 12)
    monkeypatch.setenv(KEY, "wrong-secret")
    with pytest.raises(CallError, match=f"Check the key in {KEY}") as caught:
        ask(site[1], photos[:1])
    assert "wrong-secret" not in str(caught.value)  # though the server repeats it
    assert "***" in str(caught.value)


@pytest.mark.parametrize("status", [200, 307, 400, 500])
@pytest.mark.parametrize("before", [0, 20, 200, 240, 295])
def test_no_part_of_a_key_that_comes_back_is_said(site, server, photos, monkeypatch, status, before):
    """Wherever a message is cut off."""
    key = "secret-" + "0123456789" * 5
    monkeypatch.setenv(KEY, key)
    text = f"{key} {'-' * before}{key}"
    server.script = status, {"Location": f"/{text}"}, text.encode()
    with pytest.raises(CallError) as caught:
        ask(site[1], photos[:1])
    assert "***" in str(caught.value)
    assert "sec" not in str(caught.value)


@pytest.mark.parametrize("key", ["two\nlines", "a\x00b", "schl\u00fcssel"])
def test_a_key_that_no_header_can_carry_is_refused_unsaid(monkeypatch, key):
    if "\0" in key:
        monkeypatch.setattr("os.environ", {**os.environ, KEY: key})
    else:
        monkeypatch.setenv(KEY, key)
    with pytest.raises(UsageError, match=f"The key in {KEY} has characters") as caught:
        open_embedder("https://example.org/v1/embeddings")
    assert key not in str(caught.value)


@pytest.mark.parametrize("parameter", ["key", "api_key", "subscription-key", "access_token", "SIG"])
def test_a_key_in_the_address_is_refused_unsaid(parameter):
    """The address goes into the ledger, the index, the model card and messages."""
    with pytest.raises(UsageError, match=f"parameter {parameter} .* looks like a key") as caught:
        open_embedder(f"https://example.org/v1/embeddings?v=1&{parameter}=hidden")
    assert "hidden" not in str(caught.value)
    open_embedder("https://example.org/v1/embeddings?api-version=2024-02-01&max_tokens=9")


def test_the_key_does_not_travel_in_clear(monkeypatch):
    monkeypatch.setenv(KEY, "secret")
    with pytest.raises(UsageError, match="in clear"):
        open_embedder("http://example.org/v1/embeddings")
    open_embedder("https://example.org/v1/embeddings")
    monkeypatch.delenv(KEY)
    open_embedder("http://example.org/v1/embeddings")


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "https://user:secret@example.org/v1",
        "http://user:secret@host:port/v1",
        "https://api..example.org/v1",
        f"https://{'long' * 16}.example.org/v1",
        "https://example.org/\udcff",  # a byte that is not UTF-8, as the shell hands it on
    ],
)
def test_addresses_that_are_none(url):
    with pytest.raises(UsageError) as caught:
        open_embedder(url)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        (
            "ALL_PROXY",
            "strange://127.0.0.1:9",
            "A proxy that the environment names cannot be used: .*[^.]\\. Check",
        ),
        ("SSL_CERT_FILE", "/no/such/file", "SSL_CERT_FILE or SSL_CERT_DIR names no certificates"),
        ("SSL_CERT_FILE", __file__, "SSL_CERT_FILE or SSL_CERT_DIR names no certificates"),
    ],
)
def test_an_environment_that_cannot_be_used(monkeypatch, name, value, complaint):
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=complaint):
        open_embedder("https://example.org/v1/embeddings")


def test_nobody_there(photos):
    with pytest.raises(UnreachableError, match="cannot be reached"):
        ask("http://127.0.0.1:9/v1/embeddings", photos[:1])


def test_a_certificate_that_does_not_fit(teacher, photos, tmp_path, monkeypatch):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    past, future = datetime(2020, 1, 1, tzinfo=UTC), datetime.now(UTC) + timedelta(days=1)
    for host, until, complaint in (
        ("127.0.0.1", future, ""),
        ("elsewhere.example", future, "mismatch"),
        ("127.0.0.1", past, "certificate has expired"),
    ):
        pem = tmp_path / f"{host}-{until:%Y}"
        authority.issue_cert(host, not_after=until).private_key_and_cert_chain_pem.write_to_path(pem)
        with serving(TeacherServer(teacher), ssl_certfile=str(pem)) as url:
            if not complaint:
                assert ask(url, photos[:1]).shape == (1, 12)
            else:
                with pytest.raises(CallError, match=rf"certificate of .* cannot be trusted: .*{complaint}"):
                    ask(url, photos[:1])


def test_connections_are_used_again(site, server, photos):
    model = EndpointEmbedder(site[1], EmbedderOptions())
    for photo in photos:
        model.embed([model.prepare(photo)])
    assert len(server.calls) == 10
    assert len(server.clients) == 1


def test_what_is_sent_in_place_of_a_file(tmp_path, monkeypatch):
    """Sideways, in a rare format or too large: an upright JPEG goes out, and its own digest with it."""
    model = EndpointEmbedder("http://127.0.0.1/v1", EmbedderOptions())
    upright = picture(3, 60, 40)
    turned = Image.Exif()
    turned[0x0112] = 6
    upright.save(tmp_path / "turned.jpg", exif=turned, quality=95)
    upright.save(tmp_path / "rare.bmp")
    upright.resize((5000, 4000)).save(tmp_path / "large.png", compress_level=1)
    sizes = {"turned.jpg": (40, 60), "rare.bmp": (60, 40), "large.png": (2048, 1638)}
    for name, size in sizes.items():
        photo = read_photo(ImageFile(tmp_path / name, name))
        upload = model.prepare(photo)
        sent = Image.open(BytesIO(upload.data))
        assert (sent.format, sent.size, upload.mime) == ("JPEG", size, "image/jpeg")
        assert upload.digest == decode(upload.data, name).digest != photo.digest
    monkeypatch.setattr(decoding, "MAX_PIXELS", 10_000_000)  # more are written in a phone's photo
    upright.resize((5000, 4000)).save(tmp_path / "phone.jpg")
    sent = Image.open(BytesIO(model.prepare(read_photo(ImageFile(tmp_path / "phone.jpg", "p"), 4)).data))
    assert sent.size == (2048, 1638)
    upright.save(
        tmp_path / "broken.png", exif=b"Exif\0\0no TIFF header"
    )  # is taken for upright, as by `decode`
    photo = read_photo(ImageFile(tmp_path / "broken.png", "broken.png"))
    assert model.prepare(photo).data == photo.data
    info = PngInfo()
    info.add_text("note", "a" * (2 << 20), zip=True)  # longer than Pillow unpacks, and no pixel of it
    upright.save(tmp_path / "noted.png", pnginfo=info)
    upload = model.prepare(read_photo(ImageFile(tmp_path / "noted.png", "noted.png")))
    assert (upload.mime, Image.open(BytesIO(upload.data)).size) == ("image/jpeg", upright.size)
    upright.save(tmp_path / "plain.webp")
    photo = read_photo(ImageFile(tmp_path / "plain.webp", "plain.webp"))
    assert model.prepare(photo).data == photo.data
    assert model.prepare(photo).mime == "image/webp"


@pytest.mark.parametrize(
    ("mode", "clear"), [("LA", None), ("RGBA", None), ("P", 128), ("L", 128), ("RGB", (128, 128, 128))]
)
def test_what_shines_through_is_sent_white(tmp_path, mode, clear):
    """As a student is shown it; each endpoint would make another colour of it."""
    image = Image.new("L", (64, 64), 128)
    image.paste(0, (0, 0, 32, 32))
    image = image.convert(mode)
    if clear is None:
        image.putalpha(image.convert("L").point(lambda level: 255 - level // 128 * 255))
    image.save(tmp_path / "clear.png", **({} if clear is None else {"transparency": clear}))
    model = EndpointEmbedder("http://127.0.0.1/v1", EmbedderOptions())
    upload = model.prepare(read_photo(ImageFile(tmp_path / "clear.png", "clear.png")))
    sent = Image.open(BytesIO(upload.data))
    assert (sent.format, sent.mode) == ("JPEG", "RGB")
    assert (sent.getpixel((60, 60)), sent.getpixel((4, 4))) == ((255, 255, 255), (0, 0, 0))


def body(indices, vectors) -> bytes:
    entries = [{"embedding": v} if i == "left out" else {"index": i, "embedding": v}
               for i, v in zip(indices, vectors, strict=True)]  # fmt: skip
    return json.dumps({"data": entries}).encode()


VECTORS = [[1.0, 0.0], [0.0, 1.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    "indices",
    [[0, 1, 2], [1, 2, 3], [0, 0, 0], [1, 1, 1], ["left out"] * 3, [None] * 3, ["0", "1", "2"]],
    ids=str,
)
def test_numbers_of_answers_as_endpoints_give_them(indices):
    answer = read_answer(body(indices, VECTORS), 3)
    assert answer.rows.tolist() == VECTORS
    assert answer.most is None
    assert answer.ordered == (len(set(indices)) == 1)


def test_numbers_that_turn_the_order_are_followed():
    assert read_answer(body([2, 0, 1], VECTORS), 3).rows.tolist() == [VECTORS[1], VECTORS[2], VECTORS[0]]


@pytest.mark.parametrize(
    ("indices", "count", "most", "told"),
    [
        ([0], 8, 1, 0),
        ([0, 1, 2], 8, 3, 0),
        ([0, 0, 0], 8, 1, 0),
        (["left out"] * 3, 8, 1, 0),
        ([4, 5, 6], 8, 1, 0),
    ],
)
def test_fewer_answers_than_images(indices, count, most, told):
    """Nothing says of which images they are: one may be left out, and the others numbered again."""
    answer = read_answer(body(indices, VECTORS[: len(indices)]), count)
    assert (answer.rows.shape, answer.most) == ((count, 2), most)
    assert np.isfinite(answer.rows).all(axis=1).sum() == told


@pytest.mark.parametrize(
    ("indices", "vectors"),
    [([0, 0, 1], VECTORS), ([0, 2, 4], VECTORS), ([0, 0, 0], [[1.0, 2.0]] * 3), ([0, None, 1], VECTORS)],
)
def test_answers_that_cannot_be_told_apart(indices, vectors):
    with pytest.raises(ValueError, match=r"the indices|one vector for different images"):
        read_answer(body(indices, vectors), 3)


@pytest.mark.parametrize(
    ("complaint", "status"),
    [
        *(
            (said, status)
            for said in ("no base64", "encoding_format: extra field")
            for status in (400, 422, 500)
        ),
        ("", 400),
        ('{"error": "Bad Request"}', 422),
    ],
)
def test_plain_numbers_where_base64_is_refused(teacher, photos, capsys, complaint, status):
    """Found out once, at no cost."""
    server = TeacherServer(teacher)
    write = server._write

    def refuse(request, vectors, encoding, fault):
        return (
            Response(complaint, status) if encoding == "base64" else write(request, vectors, encoding, fault)
        )

    server._write = refuse
    with serving(server) as url:
        model = EndpointEmbedder(url, EmbedderOptions())
        inputs = [model.prepare(photo) for photo in photos]
        rows = [model.embed(inputs) for _ in range(2)]
    np.testing.assert_allclose(
        rows[1], teacher.embed([teacher.prepare(photo) for photo in photos]), atol=1e-6
    )
    assert len(server.calls) == 3
    assert capsys.readouterr().err.count("plain numbers") == 1


def test_a_bare_refusal_blames_the_encoding_only_before_there_is_an_answer(teacher, photos):
    server = TeacherServer(teacher)
    with serving(server) as url:
        model = EndpointEmbedder(url, EmbedderOptions())
        inputs = [model.prepare(photo) for photo in photos]
        for calls in (2, 1):  # with the numbers plain, too; then not
            server.script, before = (400, {}, b""), len(server.calls)
            with pytest.raises(RefusedError):
                model.embed(inputs)
            assert len(server.calls) - before == calls
            server.script = None
            model.embed(inputs)
    assert not model.lessons

"""Links: only public addresses, only images, within limits, whatever the other side tries."""

import ipaddress
import socket
import threading
import time
from contextlib import contextmanager
from io import BytesIO

import httpcore
import pytest
from conftest import picture
from hypothesis import given
from hypothesis import strategies as st

from app.server import fetch
from app.server.fetch import fetch_image
from index.errors import ImageError
from index.images import public_address
from index.images.public_address import is_public


def png(seed: int = 0) -> bytes:
    buffer = BytesIO()
    picture(seed).save(buffer, "PNG")
    return buffer.getvalue()


def answer(body: bytes, kind: str = "image/png", status: str = "200 OK", *more: str) -> bytes:
    lines = [
        f"HTTP/1.1 {status}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    return "\r\n".join([*lines, *more, "", ""]).encode() + body


def redirect(target: str) -> bytes:
    return answer(b"", "text/plain", "302 Found", f"Location: {target}")


@contextmanager
def listening(*answers, pause: float = 0.0):
    """A server that gives these raw answers in turn, the last one for ever; byte by byte if it pauses."""
    listener = socket.create_server(("127.0.0.1", 0))
    requests: list[bytes] = []

    def work() -> None:
        left = list(answers)
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                requests.append(connection.recv(65536))
                reply = left.pop(0) if len(left) > 1 else left[0]
                try:
                    for part in [reply[i : i + 1] for i in range(len(reply))] if pause else [reply]:
                        connection.sendall(part)
                        time.sleep(pause)
                except OSError:
                    pass

    threading.Thread(target=work, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/a.png", requests
    listener.close()


@pytest.fixture
def open_network(monkeypatch):
    """This machine counts as public, so that there is somebody to talk to."""
    monkeypatch.setattr(public_address, "is_public", lambda address: address == "127.0.0.1")


@pytest.mark.parametrize(
    "address",
    (
        "0.0.0.0 10.0.0.1 100.64.0.1 127.0.0.1 127.255.255.254 169.254.169.254 172.16.0.1 172.31.255.255 "
        "192.0.0.192 192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 "
        "239.255.255.255 240.0.0.1 255.255.255.255 :: ::1 ::7f00:1 ::ffff:127.0.0.1 ::ffff:8.8.8.8 "
        "64:ff9b::7f00:1 64:ff9b::808:808 64:ff9b:1::1 100::1 2001::1 2001:db8::1 2002:7f00:1::1 3fff::1 "
        "fc00::1 fd00:ec2::254 fe80::1 fec0::1 ff02::1"
    ).split(),
)
def test_what_is_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", "1.1.1.1 8.8.8.8 93.184.216.34 2606:4700::1111 2a00:1450::1".split())
def test_what_is_public(address):
    assert is_public(address)


@given(st.ip_addresses())
def test_nothing_that_python_calls_private_is_public(ip):
    if not ip.is_global or ip.is_multicast or ip.is_reserved or ip.is_loopback or ip.is_link_local:
        assert not is_public(str(ip))


@given(st.ip_addresses(v=4))
def test_no_way_to_write_an_address_of_ipv4_in_ipv6_is_public(ip):
    for prefix in ("::ffff:0:0", "::", "64:ff9b::"):
        assert not is_public(str(ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) + int(ip))))
    assert not is_public(str(ipaddress.IPv6Address((0x2002 << 112) + (int(ip) << 80))))


@pytest.mark.parametrize(
    "host",
    "127.0.0.1 localhost 2130706433 0x7f000001 0177.0.0.1 127.1 0 [::1] [::ffff:127.0.0.1] [::ffff:7f00:1] "
    "169.254.169.254 [fe80::1%25lo] 127.0.0.1. ①②⑦.⓪.⓪.①".split(),
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_no_connection_is_made_to_this_machine(host, scheme):
    with listening(answer(png())) as (url, requests):
        port = url.rsplit(":", 1)[1]
        with pytest.raises(ImageError, match=r"private network|no such site|not a link"):
            fetch_image(f"{scheme}://{host}:{port}")
        assert not requests


@pytest.mark.parametrize(
    "url",
    ["", "a.png", "/etc/passwd", "file:///etc/passwd", "ftp://a.org/b", "gopher://a.org", "data:image/png,x",
     "http://", "http:///a.png", "http://user:secret@a.org/b.png", "http://a.org:99999/", "http://a.org:-1/",
     "http://[::1", "http://\x00", "javascript:alert(1)", "http://a.org/\ud800", "http://xn--/"],
)  # fmt: skip
def test_what_is_no_link(url, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: pytest.fail("looked up"))
    with pytest.raises(ImageError):
        fetch_image(url)


def test_an_image_is_fetched(open_network):
    with listening(answer(png())) as (url, requests):
        assert fetch_image(f" {url}#part ") == png()
    assert requests[0].startswith(b"GET /a.png HTTP/1.1\r\n")
    assert b"cookie" not in requests[0].lower()


def test_a_name_is_looked_up_once_and_that_very_address_connected_to(open_network, monkeypatch):
    real, looked_up = socket.getaddrinfo, []

    def rebinding(host, port, *rest, **more):
        if host != "photos.example":
            return real(host, port, *rest, **more)
        looked_up.append(host)
        address = "127.0.0.1" if len(looked_up) == 1 else "10.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    with listening(answer(png())) as (url, requests):
        assert fetch_image(url.replace("127.0.0.1", "photos.example")) == png()
    assert looked_up == ["photos.example"]
    assert b"Host: photos.example:" in requests[0]


def test_one_private_address_among_public_ones_is_enough_to_refuse(monkeypatch):
    entries = [(2, 1, 6, "", (address, 80)) for address in ("93.184.216.34", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: entries)
    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", lambda *a, **k: pytest.fail("connected"))
    with pytest.raises(ImageError, match="private network"):
        fetch_image("http://photos.example/")


@pytest.mark.parametrize("host", ["127.0.0.2", "[::1]", "0.0.0.0", "169.254.169.254"])
@pytest.mark.parametrize("scheme", ["http:", ""])
def test_a_redirect_into_the_network_is_not_followed(open_network, scheme, host):
    with listening(answer(png())) as (inner, requests):
        target = f"{scheme}//{host}:{inner.rsplit(':', 1)[1]}"
        with listening(redirect(target)) as (url, _), pytest.raises(ImageError, match="private network"):
            fetch_image(url)
        assert not requests


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/a", "gopher://127.0.0.1:6379/_x"])
def test_a_redirect_to_another_protocol_is_not_followed(open_network, target):
    with listening(redirect(target)) as (url, _), pytest.raises(ImageError, match="only links"):
        fetch_image(url)


def test_a_redirect_to_what_is_no_link(open_network):
    with listening(redirect("http://[x")) as (url, _), pytest.raises(ImageError, match="what is no link"):
        fetch_image(url)


def test_few_redirects_are_followed(open_network):
    with listening(redirect("/b"), redirect("c"), answer(png())) as (url, requests):
        assert fetch_image(url) == png()
        assert requests[1].startswith(b"GET /b ")
    with listening(redirect("/again")) as (url, requests), pytest.raises(ImageError, match="more than 3"):
        fetch_image(url)
    assert len(requests) == 4


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (answer(b"<html>", "text/html"), "leads to a page"),
        (answer(b"<html>", "image/png"), "no image that can be used: not an image"),
        (answer(png()[:60]), "no image that can be used"),
        (answer(b"%PDF-1.7", "application/pdf"), "no image that can be used"),
        (answer(b"", status="404 Not Found"), "status 404"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", "more than 50 MB"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "cannot be reached"),
        (b"SSH-2.0-OpenSSH_9.0\r\n", "cannot be reached"),
        (b"", "cannot be reached"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000, "cannot be reached"),
    ],
)  # fmt: skip
def test_what_is_no_image_is_said(open_network, reply, reason):
    with listening(reply) as (url, _), pytest.raises(ImageError, match=reason):
        fetch_image(url)


def test_the_size_is_limited_while_it_streams(open_network, monkeypatch):
    monkeypatch.setattr(fetch, "MOST_BYTES", 1000)
    endless = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n" + png() * 50
    with listening(endless) as (url, _), pytest.raises(ImageError, match="more than"):
        fetch_image(url)


def test_a_trickle_ends_at_the_deadline(open_network, monkeypatch):
    monkeypatch.setattr(fetch, "SECONDS", 0.4)
    start = time.monotonic()
    with listening(answer(png()), pause=0.05) as (url, _), pytest.raises(ImageError, match="did not answer"):
        fetch_image(url)
    assert time.monotonic() - start < 3


def test_a_port_that_nobody_listens_on(open_network):
    with listening(b"") as (url, _):
        pass
    with pytest.raises(ImageError, match="cannot be reached"):
        fetch_image(url)


def test_no_proxy_of_the_environment_is_used(open_network, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with listening(answer(png())) as (url, _):
        assert fetch_image(url) == png()

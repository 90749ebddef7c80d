"""Sites that a plain file server offers to a browser."""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from app.site import lists
from app.site.build import SiteOptions, build_site_by_name
from app.site.folder import SiteFolder
from app.site.runtime import find_runtime
from index.errors import RetrievalError
from index.io import content_digest


class Host:
    """A file server as anyone has one: it compresses nothing and says nothing of origins, unless it is open.

    Attributes:
        asked: Method and path of each request.
    """

    def __init__(self, folder: Path, open_to_all: bool = False, port: int = 0) -> None:
        self.asked: list[tuple[str, str]] = []
        host = self

        class Handler(SimpleHTTPRequestHandler):
            def parse_request(self) -> bool:
                parsed = super().parse_request()
                host.asked.append((self.command, getattr(self, "path", "")))
                return parsed

            def end_headers(self) -> None:
                if open_to_all:
                    self.send_header("Access-Control-Allow-Origin", "*")
                super().end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), partial(Handler, directory=folder))
        self.address = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


PACKED: dict[str, bytes] = {}  # what was compressed, by the digest of what it was


@pytest.fixture(scope="module", autouse=True)
def packed_once() -> Iterator[None]:
    """The runtime, of which every site has a copy, takes a second to compress."""
    pack = SiteFolder.pack

    def pack_once(self: SiteFolder, data: bytes) -> str:
        if (digest := content_digest(data)) in PACKED:
            return self.put(PACKED[digest])
        name = pack(self, data)
        if len(data) > 1_000_000:
            PACKED[digest] = (self.path / name).read_bytes()
        return name

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SiteFolder, "pack", pack_once)
        yield


@pytest.fixture
def host() -> Iterator[Any]:
    """Serves folders."""
    hosts = []

    def serve(folder: Path, open_to_all: bool = False, port: int = 0) -> Host:
        hosts.append(Host(folder, open_to_all, port))
        return hosts[-1]

    yield serve
    for each in hosts:
        each.server.shutdown()
        each.server.server_close()


@pytest.fixture(scope="module")
def blank(browser) -> Iterator[Any]:
    """A tab that can import the scripts of a site; tests of what they compute share it."""
    served = Host(Path(__file__).parents[3] / "app" / "site")
    page = browser.new_page()
    page.goto(served.address + "site.html")
    yield page
    page.close()
    served.server.shutdown()
    served.server.server_close()


@pytest.fixture
def small_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Galleries of more than twenty photos are large ones."""
    for name, value in {"WHOLE_ROWS": 20, "WHOLE_CODES": 20, "LIST": 8, "PART": 3}.items():
        monkeypatch.setattr(lists, name, value)


@pytest.fixture(scope="session")
def ort() -> None:
    """The runtime, which npm brings once."""
    try:
        find_runtime()
    except RetrievalError as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def built(ort, page_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of thirty pictures with a column and a teacher."""
    out = tmp_path_factory.mktemp("built") / "site"
    build_site_by_name(page_root / "idx", out, SiteOptions(title="Thirty pictures"))
    return out


@pytest.fixture
def tab(browser):
    """An empty tab with storage of its own."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.complaints = []
    page.on("console", lambda said: page.complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    yield page
    context.close()

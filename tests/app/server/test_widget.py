"""The page for a shop, and its search in pages of other origins."""

import re
from pathlib import Path

import httpx
import pytest
from conftest import picture, write_embedder
from page_tools import DESKTOP, PHONE, needs_chromium, open_fresh, settle, start_server
from starlette.testclient import TestClient
from web_site import Site

from app.server.app import ServerOptions, build_app
from app.server.labels import Labels
from index.build.pipeline import build_index
from index.embedders.onnx import OnnxEmbedder
from index.errors import UsageError
from index.search import open_searcher
from index.stores.options import IndexOptions

EXAMPLE = Path(__file__).parents[3] / "examples" / "widget.html"
NAMED = "https://shop.example"
HOSTILE = "<style>* { color: #700; font-size: 3px; } img, ul, a, label { display: none !important; }</style>"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Twelve pictures with title, price and link, and their index."""
    root = tmp_path_factory.mktemp("shop")
    (root / "images").mkdir()
    for i in range(12):
        picture(i, 96, 72).save(root / "images" / f"{i:02}.png")
    rows = [f"{i:02}.png,Shoe <{i}>,{i}.90 EUR,https://shop.example/{i},red\n" for i in range(12)]
    (root / "shop.csv").write_text("path,title,price,url,colour\n" + "".join(rows))
    student = OnnxEmbedder(write_embedder(root / "student.onnx", seed=1))
    teacher = OnnxEmbedder(write_embedder(root / "teacher.onnx", dim=12, side=64, seed=2))
    options = IndexOptions(metadata=root / "shop.csv")
    build_index([root / "images"], student, root / "idx", teacher, options=options)
    picture(99, 160, 120).save(root / "query.png")
    return root


@pytest.fixture(scope="module")
def client(root: Path, tmp_path_factory) -> TestClient:
    """The app that pages of one origin may use, in the process of the test."""
    options = ServerOptions(
        labels=Labels("title", "price", "url"), shop=True, origins=(NAMED,), most_megabytes=0.5
    )
    searcher = open_searcher(root / "idx", with_teacher=False)
    return TestClient(
        build_app(searcher, options, tmp_path_factory.mktemp("cache")), base_url="http://localhost"
    )


OPEN = ("access-control-allow-origin", "access-control-allow-credentials")


def allowed(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name in OPEN}


def test_results_have_title_caption_and_link(client, root: Path):
    first = client.post("/search?k=1", files={"image": (root / "query.png").read_bytes()}).json()["results"][
        0
    ]
    item = first["id"]
    assert (first["title"], first["caption"]) == (f"Shoe <{item}>", f"{item}.90 EUR")
    assert first["link"] == f"https://shop.example/{item}"
    assert client.get(f"/search?id={item}&k=1&format=csv").text.startswith("rank,id,score,name\r\n")


def test_a_shop_has_the_student_alone(client):
    assert client.get("/health").json()["modes"] == ["student"]
    refused = client.get("/search?id=0&mode=teacher")
    assert (refused.status_code, refused.json()["detail"]) == (
        400, "No mode 'teacher' here, only student. --shop serves the student alone.",
    )  # fmt: skip
    assert client.get("/docs", follow_redirects=False).headers["location"] == "./openapi.json"


def test_a_named_origin_may_search_and_no_more(client, root: Path):
    photo = {"image": (root / "query.png").read_bytes()}
    named = {"Origin": NAMED, "Sec-Fetch-Site": "cross-site"}
    found = client.post("/search", files=photo, headers=named)
    assert found.status_code == 200
    assert allowed(found) == {"access-control-allow-origin": NAMED}  # and so no credentials
    assert "origin" in found.headers["vary"].lower()
    assert allowed(client.get("/search?id=0", headers=named)) == allowed(found)
    ask = {**named, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    answer = client.options("/search", headers=ask)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-methods"] == "GET, POST"
    assert "access-control-allow-credentials" not in answer.headers
    assert (
        client.options("/search", headers=ask | {"Access-Control-Request-Method": "PUT"}).status_code == 400
    )
    for path in (
        "/embed",
        "/v1/embeddings",
        "/gradio_api/upload",
        "/gradio_api/component_server",
        "/searches",
    ):
        refused = client.post(path, files=photo, headers=named)
        assert (refused.status_code, allowed(refused)) == (403, {}), path
        assert not allowed(client.options(path, headers=ask)), path
    for path in ("/", "/health", "/metrics", "/images/0", "/openapi.json"):
        assert not allowed(client.get(path, headers=named)), path
    assert client.get("/thumbs/0", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["https://other.example", "http://shop.example", f"{NAMED}.evil", f"{NAMED}:8443", "null", ""]
)
def test_another_origin_is_refused(client, root: Path, origin: str):
    stranger = {"Origin": origin, "Sec-Fetch-Site": "cross-site"}
    refused = client.post("/search", files={"image": (root / "query.png").read_bytes()}, headers=stranger)
    assert (refused.status_code, allowed(refused)) == (403, {})
    assert not allowed(
        client.options("/search", headers={**stranger, "Access-Control-Request-Method": "POST"})
    )
    assert not allowed(client.get("/search?id=0", headers=stranger))


def test_the_other_guards_stay(client):
    named = {"Origin": NAMED, "Sec-Fetch-Site": "cross-site"}
    large = client.post("/search", content=bytes(600_000), headers=named)
    assert large.status_code == 413
    assert allowed(large) == {"access-control-allow-origin": NAMED}  # or the page could not say why
    assert client.get("/search?id=0", headers={**named, "Host": "evil.example"}).status_code == 403


def test_under_another_name_than_localhost_no_page_elsewhere_reads_anything(root: Path, tmp_path: Path):
    app = build_app(open_searcher(root / "idx"), ServerOptions(host="0.0.0.0"), tmp_path)
    stranger = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    client = TestClient(app, base_url="http://photos.lan")
    for path in ("/", "/config", "/gradio_api/info"):
        answer = client.get(path, headers=stranger)
        assert (answer.status_code, allowed(answer)) == (200, {}), path
    assert client.get("/search?id=0", headers=stranger).status_code == 403  # a search may cost money


@pytest.mark.parametrize(
    "origin", "* null shop.example https://shop.example/ https://shop.example/a HTTPS://shop.example".split()
)
def test_an_origin_is_written_as_browsers_send_it(origin: str):
    with pytest.raises(UsageError, match=r"must be as https://shop\.example, without a path"):
        ServerOptions(origins=(origin,))
    assert ServerOptions(origins=("http://localhost:8000",)).rules.origins == ("http://localhost:8000",)


def test_a_page_elsewhere_has_no_password():
    with pytest.raises(UsageError, match="Unset RETRIEVAL_AUTH"):
        ServerOptions(origins=(NAMED,), password="anna:secret")


@pytest.fixture(scope="module")
def shop(root: Path):
    """A page elsewhere with the widget, one that is not named, and the server: each of another origin."""
    pages = [Site(), Site()]
    named, stranger = (page.address.replace("127.0.0.1", "localhost") for page in pages)
    labels = ("--title", "title", "--caption", "price", "--link", "url")
    process, server = start_server(root / "idx", "--shop", *labels, "--origin", named)
    text = EXAMPLE.read_text().replace("https://photos.example", server).replace("<main>", f"{HOSTILE}<main>")
    for page in pages:
        page.files["/"] = text.encode()
    yield named, stranger, server
    process.kill()
    process.wait(10)
    for page in pages:
        page.server.shutdown()
        page.server.server_close()


@pytest.mark.slow
@needs_chromium
def test_the_page_shows_what_is_sold_and_nothing_of_models(profile, shop):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    for size, theme in ((DESKTOP, "light"), (PHONE, "dark")):
        tab = open_fresh(profile, shop[2], size, theme)
        complaints = watch(tab)
        tab.goto(shop[2])
        tab.locator(".example").first.click()
        settle(tab)
        assert not re.search(
            "student|teacher|disagree|vote|map|report", tab.inner_text("body"), re.IGNORECASE
        )
        assert tab.get_by_role("tab").count() == 0
        assert tab.locator(".mode:visible, .switch:visible, .numbers:visible, .score:visible").count() == 0
        item = tab.locator("#first .card").first.get_attribute("data-id")
        card = tab.locator("#first .card").first
        assert card.inner_text().split("\n")[-2:] == [f"Shoe <{item}>", f"{item}.90 EUR"]
        assert card.locator("a").get_attribute("href") == f"https://shop.example/{item}"
        tab.locator(".filters summary").click()
        filters = tab.locator(".column-value:visible")
        assert filters.evaluate_all("all => all.map(each => each.dataset.column)") == ["price", "colour"]
        assert serious(axe, tab) == []
        tab.keyboard.press("Escape")
        tab.locator("#first .open").first.evaluate("button => button.click()")
        tab.wait_for_selector(".large[open] .about a")
        assert serious(axe, tab) == []
        assert complaints == []
        tab.close()


@needs_chromium
def test_the_widget_searches_from_a_page_of_a_named_origin(profile, shop, root: Path):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    named, _, server = shop
    tab = open_fresh(profile, named, PHONE)
    complaints = watch(tab)
    tab.on("filechooser", lambda chooser: chooser.set_files(root / "query.png"))
    tab.goto(named)
    assert serious(axe, tab) == []
    tab.keyboard.press("Tab")  # the first stop is the widget's
    assert tab.evaluate("document.activeElement.shadowRoot.activeElement.type") == "file"
    tab.keyboard.press("Enter")
    tab.wait_for_function(
        "document.querySelector('retrieval-search').shadowRoot.querySelectorAll('li').length === 8"
    )
    assert tab.inner_text("retrieval-search [role=status]") == "8 results"
    form = {"image": (root / "query.png").read_bytes()}
    expected = httpx.post(f"{server}/search?k=8", files=form).json()["results"]
    links = tab.locator("retrieval-search li a")
    assert [link.get_attribute("href") for link in links.all()] == [hit["link"] for hit in expected]
    assert links.first.inner_text().split("\n") == [expected[0]["title"], expected[0]["caption"]]
    first = links.first.locator("img")
    first.scroll_into_view_if_needed()
    tab.wait_for_function("image => image.naturalWidth > 0", arg=first.element_handle())
    assert links.first.evaluate("link => parseFloat(getComputedStyle(link).fontSize)") == 16  # not the page's
    assert links.first.bounding_box()["height"] >= 44
    assert serious(axe, tab) == []
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.shadowRoot.activeElement.href") == expected[0]["link"]
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert complaints == []
    tab.close()


@needs_chromium
def test_the_widget_takes_a_dropped_photo_and_makes_a_large_one_smaller(profile, shop):
    tab = open_fresh(profile, shop[0])
    tab.goto(shop[0])
    tab.evaluate(
        """async () => {
          const ask = fetch;
          window.fetch = async (address, how) => {
            const {width, height} = await createImageBitmap(how.body.get('image'));
            window.sent = [width, height];
            return ask(address, how);
          };
          const canvas = Object.assign(document.createElement('canvas'), {width: 2400, height: 1200});
          const pen = canvas.getContext('2d'), noise = pen.createImageData(2400, 1200);
          for (let i = 0; i < noise.data.length; i++) noise.data[i] = i % 4 === 3 ? 255 : Math.random() * 256;
          pen.putImageData(noise, 0, 0);
          const blob = await new Promise(done => canvas.toBlob(done, 'image/jpeg', 0.9));
          const transfer = new DataTransfer();
          transfer.items.add(new File([blob], 'large.jpg', {type: 'image/jpeg'}));
          document.querySelector('retrieval-search').shadowRoot.querySelector('label')
            .dispatchEvent(new DragEvent('drop', {dataTransfer: transfer, bubbles: true, cancelable: true}));
        }"""
    )
    tab.wait_for_selector("retrieval-search li")
    assert tab.evaluate("sent") == [1024, 512]
    tab.close()


@needs_chromium
def test_the_widget_says_why_there_is_nothing(profile, shop, root: Path, tmp_path: Path):
    named, stranger, _ = shop
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    tab = open_fresh(profile, named)
    for origin, photo, said in (
        (stranger, root / "query.png", "The search cannot be reached."),
        (named, tmp_path / "broken.jpg", "This photo cannot be used: not an image that can be read"),
    ):
        tab.goto(origin)
        tab.set_input_files("retrieval-search input", photo)
        tab.wait_for_function(
            "said => document.querySelector('retrieval-search').shadowRoot.querySelector('[role=status]')"
            ".textContent.startsWith(said)",
            arg=said,
        )
        assert tab.locator("retrieval-search li").count() == 0
    tab.close()


def test_the_widget_is_small(client):
    script = client.get("/widget.js")
    assert script.headers["content-type"].startswith("text/javascript")
    assert len(script.content) < 6000


def watch(tab) -> list[str]:
    """What a tab complains of from now on."""
    complaints = []
    tab.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    return complaints


def serious(axe, tab) -> list[str]:
    found = axe.run(tab).response["violations"]
    return [f"{each['id']}: {each['nodes'][0]['target']}" for each in found if each["impact"] != "minor"]

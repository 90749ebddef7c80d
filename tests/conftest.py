"""Tiny images and tiny models that every test can afford."""

import io
import os
import struct
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import onnx
import pyarrow as pa
import pytest
from forked import FORKS, PRELOAD
from milvus_server import Server
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from page_tools import CHROMIUM, COUNT, DESKTOP, FLAGS, open_fresh, start_server
from PIL import Image
from web_site import Site

from index.images import decode
from index.images.file import ImageFile
from index.progress import show_lines
from index.stores.metadata.columns import Metadata, encode
from index.stores.metadata.join import list_files
from index.stores.tables import ITEM_SCHEMA, ROWS, Items

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
SIDE_BY_SIDE = "PYTEST_XDIST_WORKER" in os.environ
if SIDE_BY_SIDE:  # as many of us run as there are cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine is no reason for a property to fail.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")
show_lines()

PHOTOS = Path(__file__).parents[2] / "shared" / "data" / "grocery"


def known(files: Sequence[Sequence[tuple[str, str]]], table: pa.Table | None = None) -> Metadata:
    """What is known of items, each a list of its files' paths and names, as it is read from a folder."""
    rows = [
        {**dict.fromkeys(("size", "width", "height", "mtime"), 1), "digest": f"{i:032x}"}
        | {"path": path, "name": name, "copies": [{"path": p, "name": n, "mtime": 1} for p, n in copies]}
        for i, ((path, name), *copies) in enumerate(files)
    ]
    batch = pa.RecordBatch.from_pylist(rows, ITEM_SCHEMA)
    batches = [batch.slice(start, ROWS) for start in range(0, len(rows), ROWS)]
    made = None if table is None else encode(table, list_files(Items(batches)))
    return Metadata(lambda: batches, [len(files)], [] if made is None else [made])


@pytest.fixture(scope="session")
def grocery() -> Path:
    """The grocery photos, which do not ship with the project."""
    if not (PHOTOS / "gallery.csv").is_file():
        pytest.skip("the grocery photos are not on this machine")
    return PHOTOS


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> tuple[Counter, Counter]:
    """How often each file was read, and how often each was decoded."""
    reads, decodes = Counter(), Counter()
    read, decoded = ImageFile.read, decode.decode

    def counting_read(self):
        reads[self.name] += 1
        return read(self)

    def counting_decode(data, name, *how):
        decodes[name] += 1
        return decoded(data, name, *how)

    monkeypatch.setattr(ImageFile, "read", counting_read)
    monkeypatch.setattr(decode, "decode", counting_decode)
    return reads, decodes


def picture(seed: int, width: int = 48, height: int = 40) -> Image.Image:
    """A colourful picture of its own: low-frequency noise."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def png(seed: int) -> bytes:
    """The bytes of a picture."""
    buffer = io.BytesIO()
    picture(seed).save(buffer, "PNG")
    return buffer.getvalue()


def write_shard(path: Path, members: list[tuple[str, bytes]], **options: Any) -> Path:
    """Write a tar of files by name."""
    with tarfile.open(path, "w", **options) as tar:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels: cheap to make, costly to believe."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = b"IDAT" + zlib.compress(bytes(1000))
    chunks = [
        struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
        for body in (header, pixels)
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


RUNNING: dict[str, Any] = {}  # the browser, its profile, and what closes both


@pytest.fixture(scope="module")
def browser() -> Any:
    """A running Chromium, which files about the page hand on to the next: `end_browser` closes it."""
    sync_api = pytest.importorskip("playwright.sync_api")
    if not RUNNING:
        with ExitStack() as opened:
            playwright = opened.enter_context(sync_api.sync_playwright())
            running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            opened.callback(running.close)
            RUNNING.update(browser=running, closing=opened.pop_all())
    return RUNNING["browser"]


@pytest.fixture(scope="module")
def profile(browser) -> Any:
    """A profile of it, for `open_fresh`."""
    if "profile" not in RUNNING:
        RUNNING["profile"] = browser.new_context()
    return RUNNING["profile"]


def end_browser() -> None:
    """Close the browser, if one runs."""
    if RUNNING:
        closing = RUNNING.pop("closing")
        RUNNING.clear()
        closing.close()


@pytest.hookimpl(trylast=True)  # after the fixtures of a file have ended
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Keep the browser from one file about the page to the next: starts, and first visits, are dear.

    No longer: while Playwright runs, other tests can start no event loop of their own.
    """
    files = [item.path, nextitem.path] if nextitem else []
    stays = len(set(files)) == 1 or (files and all(file.match("page/test_*.py") for file in files))
    if not stays:
        end_browser()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of twelve pictures, two of them in a subfolder."""
    root = tmp_path / "images"
    (root / "more").mkdir(parents=True)
    for i in range(10):
        picture(i).save(root / f"{i}.png")
    for i in range(10, 12):
        picture(i).save(root / "more" / f"{i}.jpg", quality=95)
    return root


def write_embedder(path: Path, dim: int = 8, side: int = 32, seed: int = 0, **facts: str) -> Path:
    """Write an embedder in our format by hand: mean colours of a 4 x 4 grid, a projection, unit length."""
    path.write_bytes(make_embedder(dim, side, seed, tuple(facts.items())))
    return path


@lru_cache(50)  # most tests ask for one of few
def make_embedder(dim: int, side: int, seed: int, facts: tuple[tuple[str, str], ...]) -> bytes:
    """The bytes of it."""
    weights = np.random.default_rng(seed).normal(size=(48, dim)).astype(np.float32)
    constants = {
        "weights": weights,
        "shape": np.array([0, -1], np.int64),
        "half": np.array(127.5, np.float32),
        "tiny": np.array(1e-12, np.float32),
        "axes": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["floats", "half"], ["centred"]),
        helper.make_node("Transpose", ["centred"], ["channels"], perm=[0, 3, 1, 2]),
        helper.make_node(
            "AveragePool", ["channels"], ["grid"], kernel_shape=[side // 4] * 2, strides=[side // 4] * 2
        ),
        helper.make_node("Reshape", ["grid", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["raw"]),
        helper.make_node("ReduceL2", ["raw", "axes"], ["length"], keepdims=1),
        helper.make_node("Max", ["length", "tiny"], ["divisor"]),
        helper.make_node("Div", ["raw", "divisor"], ["embeddings"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", side, side, 3])],
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["n", dim])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    written = {"format": "1", "size": str(side), "crop": "1.0", "dim": str(dim), "parameters": "384"}
    written.update(facts)
    helper.set_model_props(model, {f"retrieval.{name}": value for name, value in written.items()})
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


@pytest.fixture
def quick_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of the export, which takes seconds and no such test is about: a file of other vectors."""

    def export(module, out, side, dim, facts, crop=1.0, reduced=False):
        return write_embedder(
            out, dim, side, crop=f"{crop:.6f}", **({"reduced": "yes"} if reduced else {}), **facts
        )

    monkeypatch.setattr("distill.pipeline.export_onnx", export)
    monkeypatch.setattr("distill.pipeline.check_parity", lambda *_: 0.0)


@pytest.fixture
def student_file(tmp_path: Path) -> Path:
    """The ONNX file of a tiny student."""
    return write_embedder(tmp_path / "student.onnx", dim=8, seed=1)


@pytest.fixture
def teacher_file(tmp_path: Path) -> Path:
    """The ONNX file of a tiny teacher of another dimension and input size."""
    return write_embedder(tmp_path / "teacher.onnx", dim=12, side=64, seed=2)


@pytest.fixture
def unit_rows() -> Callable[..., NDArray[np.float32]]:
    """Makes `(n, dim)` random unit rows."""

    def make(n: int, dim: int, seed: int = 0) -> NDArray[np.float32]:
        rows = np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    return make


@pytest.fixture(scope="session")
def page_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty pictures of two shops, their index with a student and a teacher, and a photo to search with."""
    from index.build.pipeline import build_index
    from index.embedders.onnx import OnnxEmbedder  # here: threads are counted when its library is loaded
    from index.stores.options import IndexOptions

    root = tmp_path_factory.mktemp("page")
    (root / "images" / "more").mkdir(parents=True)
    names = [f"{'more/' if i % 3 else ''}{i:02}.png" for i in range(COUNT)]
    for i, name in enumerate(names):
        picture(i, 96, 72).save(root / "images" / name)
    rows = [f"{name},{'North' if i % 2 else 'South'}\n" for i, name in enumerate(names)]
    (root / "shops.csv").write_text("path,shop\n" + "".join(rows))
    student = OnnxEmbedder(write_embedder(root / "student.onnx", dim=8, seed=1))
    teacher = OnnxEmbedder(write_embedder(root / "teacher.onnx", dim=12, side=64, seed=2))
    build_index(
        [root / "images"], student, root / "idx", teacher, options=IndexOptions(metadata=root / "shops.csv")
    )
    picture(99, 160, 120).save(root / "query.png")
    return root


@pytest.fixture(scope="session")
def page_site(page_root: Path):
    """A running page of it, which tests look at and leave as it was."""
    process, address = start_server(page_root / "idx", "--price", "1.5", "--max-upload-mb", "2")
    yield address
    process.kill()
    process.wait(10)


@pytest.fixture
def open_tab(profile, page_site):
    """Opens tabs, and in the end finds that none has complained."""
    tabs = []

    def open_at(path: str = "", size: tuple[int, int] = DESKTOP, theme: str = "light"):
        tab = open_fresh(profile, page_site, size, theme)
        tab.complaints = []
        tab.on("console", lambda said: tab.complaints.append(said.text) if said.type == "error" else None)
        tab.on("pageerror", lambda error: tab.complaints.append(str(error)))
        tab.goto(f"{page_site}/{path}")
        tab.wait_for_selector(".search .example", state="attached", timeout=30_000)
        tabs.append(tab)
        return tab

    yield open_at
    for tab in tabs:
        assert tab.complaints == []
        tab.close()


@pytest.fixture(scope="module")  # not longer: at rest, too, it takes time from all that runs beside it
def milvus_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running Milvus server."""
    started = Server(tmp_path_factory.mktemp("milvus"))
    yield started
    started.stop()


@pytest.fixture
def site() -> Iterator[Site]:
    """A running web server, without files."""
    opened = Site()
    yield opened
    opened.server.shutdown()
    opened.server.server_close()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Have ready in the process that others are forked from what the chosen tests will want of it."""
    for file in dict.fromkeys(item.module for item in session.items if isinstance(item, pytest.Function)):
        PRELOAD.extend(getattr(file, "FORKED", ()))
    FORKS.set_forkserver_preload(PRELOAD)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what is quick first; side by side the long files, for the last to begin keeps one core alone."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    if SIDE_BY_SIDE:
        items.sort(key=lambda item: item.path not in slow)
    else:
        items.sort(key=lambda item: item.get_closest_marker("slow") is not None)

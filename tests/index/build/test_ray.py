"""Embedding on a real Ray cluster, which one fixture starts and stops."""

import os
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import picture, write_embedder
from hypothesis import given
from hypothesis import strategies as st

from index.build import ray as ray_embedding
from index.build.embed import Embedded
from index.build.journal import Journal
from index.build.pipeline import build as make
from index.build.pipeline import build_index
from index.build.ray import (
    MOST_TRIES,
    TRIES,
    RayCluster,
    Worker,
    list_files,
    open_cluster,
    pieces_name,
    plan,
    read_piece,
    write_piece,
)
from index.embedders.onnx import OnnxEmbedder
from index.embedders.registry import open_embedder
from index.errors import RetrievalError, UsageError
from index.images.file import ImageFile
from index.images.sources import find_images
from index.stores.folder import ERRORS, ITEMS, Index
from index.stores.milvus.client import Address
from index.stores.milvus.writer import MilvusWriter
from index.stores.models import Models
from index.stores.options import IndexOptions
from index.stores.records import Failure, Item
from index.stores.server import FIELDS

pytestmark = pytest.mark.slow  # a cluster is started

PIECE = 8  # images


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    if find_spec("ray") is None:
        pytest.skip("ray is not installed")
    with open_cluster("auto", "cpu") as opened:
        yield opened


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(ray_embedding, "FEWEST", PIECE)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Images in a folder, a shard and a list; copies and broken ones among them; and two models."""
    root = tmp_path_factory.mktemp("ray")
    (root / "images").mkdir()
    (root / "more").mkdir()
    for i in range(60):
        picture(i).save(root / "images" / f"{i:02}.png")
    for i in range(60, 72):
        picture(i).save(root / "more" / f"{i}.jpg")
    for i in (3, 59):
        shutil.copy(root / "images" / f"{i:02}.png", root / "images" / f"{i:02}-again.png")
    (root / "images" / "broken.png").write_bytes(b"no image")
    with tarfile.open(root / "shard.tar", "w") as shard:
        for i in range(60, 66):
            shard.add(root / "more" / f"{i}.jpg", f"{i}.jpg")
    rest = [f"more/{i}.jpg" for i in range(66, 72)]
    names = [*rest, "more/gone.jpg", "nowhere/gone.jpg", f"{'long' * 100}/gone.jpg"]
    pq.write_table(pa.table({"path": names}), root / "list.parquet")
    write_embedder(root / "student.onnx", dim=8, seed=1)
    write_embedder(root / "teacher.onnx", dim=12, side=64, seed=2)
    return root


def build(root: Path, out: Path, cluster: RayCluster | None = None, **options: bool) -> Index:
    student = OnnxEmbedder(root / "student.onnx", "cpu", threads=1)
    teacher = open_embedder(root / "teacher.onnx", "cpu")
    sources = [root / "images", root / "shard.tar", root / "list.parquet"]
    return build_index(sources, student, out, teacher, cluster=cluster, options=IndexOptions(**options))


@pytest.fixture(scope="module")
def expected(root, tmp_path_factory) -> Index:
    """What the built-in pipeline makes of them."""
    return build(root, tmp_path_factory.mktemp("expected") / "index")


def assert_same(one: Index, other: Index) -> None:
    for name in (ITEMS, ERRORS):
        assert (one.data / name).read_bytes() == (other.data / name).read_bytes(), name
    for space in ("student", "teacher"):
        assert one.vectors(space).tobytes() == other.vectors(space).tobytes(), space


def processes(word: str) -> list[psutil.Process]:
    """Children with a word in their command; Ray's come and go, and one that ends meanwhile is none."""
    found = []
    for one in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # a zombie too
            if word in " ".join(one.cmdline()):
                found.append(one)
    return found


def addresses(process: psutil.Process) -> list[str]:
    """The addresses at which a process listens; none, if it has ended."""
    with suppress(psutil.NoSuchProcess):
        return [one.laddr.ip for one in process.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
    return []


def test_all_of_it_listens_on_loopback_alone(cluster):
    # those of Ray alone: a Milvus server of other tests may run beside it
    listening = [ip for process in processes("ray") for ip in addresses(process)]
    assert listening
    assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}


def leave_pieces(root: Path, out: Path, count: int) -> list[Path]:
    """Make pieces as a run did that was killed before it could take them."""
    models = {name: open_embedder(root / f"{name}.onnx", "cpu") for name in ("student", "teacher")}
    pieces = out / "unfinished" / pieces_name(models.values())
    pieces.mkdir(parents=True)
    specs = {name: (model.spec, model.options, model.key) for name, model in models.items()}
    worker = Worker(specs, "cpu", pieces, 1)
    files = find_images([root / "images"])
    tables = list(list_files(iter(files[: count * PIECE]), PIECE))
    return [pieces / worker(table)["piece"][0] for table in tables]


def test_it_is_the_index_of_the_built_in_pipeline_though_workers_are_killed(
    cluster, root, tmp_path, expected, monkeypatch, capsys
):
    """Beside that, pieces are left of an earlier run: one is damaged, and of one a file has changed."""
    out = tmp_path / "index"
    left = leave_pieces(root, out, 3)
    left[0].write_bytes(left[0].read_bytes()[:-100])
    os.utime(root / "images" / "20.png", ns=(1, 1))
    killed, added = [], []
    add = Journal.add

    def add_and_kill(self, items, *rest):
        added.append([item.name for item in items])
        if len(killed) < 2 and len(added) > 2 and (alive := processes("MapWorker")):
            with suppress(psutil.NoSuchProcess):
                alive[0].kill()
                killed.append(alive[0].pid)
        add(self, items, *rest)

    monkeypatch.setattr(Journal, "add", add_and_kill)
    made = build(root, out, cluster)
    assert killed
    assert [len(added[0]), len(added[1])] == sorted([PIECE, PIECE - 1])[:: 1 if left[1] > left[2] else -1]
    names = [name for part in added for name in part]
    assert len(names) == len(set(names)) == 74, "each image came once"
    assert "is damaged" in capsys.readouterr().err
    assert len(made) == 72
    assert {Path(failure.path).name for failure in made.failures} == {"broken.png", "gone.jpg"}
    assert made.vectors("student").tobytes() == expected.vectors("student").tobytes()
    assert made.vectors("teacher").tobytes() == expected.vectors("teacher").tobytes()
    assert_same(made, build(root, tmp_path / "again"))
    assert not (out / "unfinished").exists()


def test_a_piece_that_kills_its_workers_is_given_up(root, tmp_path):
    (done,) = leave_pieces(root, tmp_path, 1)
    done.with_suffix(TRIES).write_bytes(b"." * MOST_TRIES)
    done.unlink()
    specs = {}
    table = next(list_files(iter(find_images([root / "images"])), PIECE))
    outcome = Worker(specs, "cpu", done.parent, 1)(table)
    assert "4 workers died while they embedded" in outcome["error"][0]
    assert "00.png" in outcome["error"][0]


def test_a_machine_that_does_not_see_the_images_is_one_line(root, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    files = [ImageFile(tmp_path / "elsewhere" / "a.png", "a.png")]
    table = next(list_files(iter(files), PIECE))
    (tmp_path / "elsewhere").rmdir()
    outcome = Worker({}, "cpu", tmp_path, 1)(table)
    assert f"{tmp_path / 'elsewhere'} is not here." in outcome["error"][0]


def test_what_nobody_foresaw_is_told_by_its_name(root, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError("of nothing")

    monkeypatch.setattr("index.build.ray.embed_files", fail)
    table = next(list_files(iter(find_images([root / "images"])), PIECE))
    outcome = Worker({}, "cpu", tmp_path, 1)(table)
    assert outcome["error"][0].endswith(": ZeroDivisionError: of nothing")


def test_a_cluster_that_lacks_the_package_is_one_line(cluster, root, tmp_path, monkeypatch, capfd):
    """A class is sent as the name of its module, which here only this process has."""
    lacking = ModuleType("lacking_package")
    exec("class Worker:\n def __init__(self, job): pass\n def __call__(self, table): pass", vars(lacking))
    monkeypatch.setitem(sys.modules, "lacking_package", lacking)
    monkeypatch.setattr(ray_embedding, "Worker", lacking.Worker)
    with pytest.raises(RetrievalError, match=r"^A machine of the Ray cluster lacks lacking_package\. "):
        build(root, tmp_path / "index", cluster)
    assert not (tmp_path / "index").exists()
    said = capfd.readouterr()
    assert "Traceback" not in said.out + said.err


def test_the_command_joins_a_cluster(cluster, root, tmp_path, expected):
    import ray

    address = ray.get_runtime_context().gcs_address
    command = [
        *(sys.executable, "-m", "retrieval", "index", root / "images", "--model", root / "student.onnx"),
        *("--out", tmp_path / "index", "--ray", address),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = Index(tmp_path / "index")
    assert len(made) == 60
    assert made.vectors("student").tobytes() == expected.vectors("student")[:60].tobytes()


def test_a_collection_is_what_it_is_without_ray(cluster, root, tmp_path, milvus_server, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    student = OnnxEmbedder(root / "student.onnx", "cpu", threads=1)
    models = Models(student, open_embedder(root / "teacher.onnx", "cpu"), None)
    sources = [root / "images", root / "shard.tar", root / "list.parquet"]
    found = []
    for name, where in (("here", None), ("there", cluster)):
        address = Address(milvus_server.uri, f"ray_{name}")
        sent = make(sources, models, MilvusWriter(address, tmp_path / name), cluster=where)
        collection = sent.store
        digests = [row["digest"] for row in collection.scan([])]
        rows = [collection.fetch(space, digests, ["vector", *FIELDS]) for space in ("student", "teacher")]
        found.append((rows, sent.failures, sent.summary.split("; ")[0].split(": ", 1)[1]))
        assert len(rows[0]) == 72
    assert found[0] == found[1]


def test_images_at_addresses_are_read_by_the_workers(cluster, root, tmp_path, site, expected):
    site.files["/shard.tar"] = (root / "shard.tar").read_bytes()
    site.files |= {f"/{i}.jpg": (root / "more" / f"{i}.jpg").read_bytes() for i in range(66, 72)}
    (tmp_path / "list.txt").write_text("\n".join(f"{site.address}/{i}.jpg" for i in (*range(66, 72), 99)))
    sources = [f"{site.address}/shard.tar", tmp_path / "list.txt"]
    student = OnnxEmbedder(root / "student.onnx", "cpu", threads=1)
    here = build_index(sources, student, tmp_path / "here")
    there = build_index(sources, student, tmp_path / "there", cluster=cluster)
    for name in (ITEMS, ERRORS):
        assert (here.data / name).read_bytes() == (there.data / name).read_bytes(), name
    assert there.vectors("student").tobytes() == expected.vectors("student")[60:].tobytes()
    assert here.vectors("student").tobytes() == there.vectors("student").tobytes()


def test_no_cluster_at_the_address_is_one_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UsageError, match=f"^No Ray cluster at {address}: "), open_cluster(address, "cpu"):
            pass


def test_what_listens_at_the_address_and_is_no_cluster_is_told_soon(site):
    """As the port of Ray's dashboard is, which Ray itself takes minutes to give up."""
    address = site.address.removeprefix("http://")
    began = time.monotonic()
    with pytest.raises(UsageError, match=f"^{address} is no Ray cluster"), open_cluster(address, "cpu"):
        pass
    assert time.monotonic() - began < 30


def test_an_environment_that_names_no_cluster_has_one_started(monkeypatch):
    ray = pytest.importorskip("ray")
    started = []
    monkeypatch.setenv("RAY_ADDRESS", "")
    monkeypatch.setattr(ray, "init", lambda address, **_: started.append(address))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with open_cluster("auto", "cpu"):
        assert started == ["local"]


@pytest.mark.parametrize("address", ["nowhere", "ray://host:1", "host:port", "host:99999999", "a..b:1", ""])
def test_an_address_that_is_none_is_one_line(address):
    with pytest.raises(UsageError), open_cluster(address, "cpu"):
        pass


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r'pip install -e "\.\[ray\]"'), open_cluster("auto", "cpu"):
        pass


def test_a_teacher_with_a_price_is_refused(root, tmp_path):
    teacher = open_embedder("json:loads")  # any callable may have a price
    student = OnnxEmbedder(root / "student.onnx", "cpu", threads=1)
    with pytest.raises(UsageError, match="--ray cannot ask"):
        next(RayCluster("cpu")([], 0, {"student": student, "teacher": teacher}, tmp_path, lambda _: True))


def node(cpu: int, gpu: int = 0, alive: bool = True) -> dict:
    return {"Alive": alive, "Resources": {"CPU": float(cpu), "GPU": float(gpu)}}


@pytest.mark.parametrize(
    ("nodes", "device", "workers"),
    [
        ([node(2)], "auto", (1, 2, 0)),
        ([node(64)], "auto", (8, 8, 0)),
        ([node(4), node(9), node(0), node(99, alive=False)], "auto", (3, 4, 0)),
        ([node(16, 2), node(4)], "auto", (2, 8, 1)),
        ([node(16, 2)], "cpu", (2, 8, 0)),
    ],
)
def test_machines_are_divided_among_workers(nodes, device, workers):
    assert plan(nodes, device) == workers


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
rows = st.lists(st.lists(st.floats(width=32, allow_nan=False), min_size=3, max_size=3), max_size=5)


@given(rows, names, names)
def test_a_piece_is_read_as_it_was_written(tmp_path_factory, vectors, path, reason):
    file = tmp_path_factory.mktemp("pieces") / "one.piece"
    items = [Item(f"/{path}{i}", path, "digest", i, 2**40 + i, 3, -i) for i in range(len(vectors))]
    spaces = {"student": np.array(vectors, np.float32)} if vectors else {}
    written = Embedded(items, spaces, [Failure(path, reason)])
    write_piece(file, written)
    read = read_piece(file)
    assert (read.items, read.failures) == (written.items, written.failures)
    assert {name: array.tobytes() for name, array in read.vectors.items()} == {
        name: array.tobytes() for name, array in spaces.items()
    }
    assert [other.name for other in file.parent.iterdir()] == ["one.piece"]


@given(st.integers(0, 1300), st.binary(min_size=1, max_size=30))
def test_a_damaged_piece_is_one_line(tmp_path_factory, at, damage):
    file = tmp_path_factory.mktemp("pieces") / "one.piece"
    write_piece(file, Embedded([Item("/a", "a", "d", 1, 2, 3, 4)], {"s": np.eye(1, 8, dtype="f")}, []))
    whole = file.read_bytes()
    file.write_bytes(whole[: min(at, len(whole) - 1)] + damage)
    with pytest.raises(RetrievalError, match=r"is damaged: .*Remove it") as told:
        read_piece(file)
    assert "\n" not in str(told.value)

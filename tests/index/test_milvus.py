"""Galleries in a real Milvus server, which is started once, and stopped in the midst of things."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import picture, write_embedder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from milvus_server import Server, free_port

from index.embedder import OnnxEmbedder, open_embedder
from index.errors import RetrievalError, UnreachableError, UsageError
from index.images import content_digest
from index.milvus import Address, as_filter, collection_name, connect, parse_address, quote
from index.milvus_collection import Collection
from index.milvus_pipeline import Sent, _create, _finish, send_images
from index.milvus_store import MilvusIndex, open_collection
from index.milvus_tuning import choose_index
from index.milvus_writing import Sender, Stretch, write_all
from index.narrowing import Narrow
from index.pipeline import Models, build_index
from index.search import Searcher, open_searcher
from index.store import Item
from index.teacher import TeacherSpec
from index.tuning import Need

pytest.importorskip("milvus")
pytestmark = pytest.mark.slow  # a server is started


@pytest.fixture
def address(
    milvus_server: Server, request: pytest.FixtureRequest, monkeypatch: Any, tmp_path: Path
) -> Address:
    """A name of its own for each test, and a home of its own for what is kept on this machine."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Address(milvus_server.uri, "t_" + content_digest(request.node.nodeid.encode())[:8])


@pytest.fixture
def send(address: Address, student_file: Path, tmp_path: Path) -> Callable[..., Sent]:
    def run(*sources: Path, model: Path = student_file, teacher: Path | None = None, **options: Any) -> Sent:
        opened = open_embedder(teacher, "cpu") if teacher else None
        models = Models(OnnxEmbedder(model, "cpu"), opened, None)
        return send_images(list(sources), models, address, tmp_path / "work", **options)

    return run


def count(address: Address, space: str = "student") -> int:
    """Rows, each counted as often as it is there."""
    collection = open_collection(str(address)).collection
    name = collection.name(space)
    return connect(address).query(name, output_fields=["count(*)"], consistency_level="Strong")[0]["count(*)"]


def test_finds_what_the_index_folder_finds(
    send: Any, address: Address, folder: Path, student_file: Path, teacher_file: Path, tmp_path: Path
) -> None:
    (folder / "more" / "copy.png").write_bytes((folder / "3.png").read_bytes())
    table = tmp_path / "table.csv"
    lines = [f"{i}.png,{colour}" for i, colour in enumerate(["red", 'é"x'] * 5)]
    table.write_text("\n".join(["path,colour", *lines]))
    sent = send(folder, teacher=teacher_file, metadata=table)
    assert (len(sent.index), sent.written.new) == (12, 12)
    teacher = open_embedder(teacher_file, "cpu")
    local = build_index(
        [folder], OnnxEmbedder(student_file, "cpu"), tmp_path / "idx", teacher, metadata=table
    )
    ours = open_searcher(str(address), TeacherSpec(str(teacher_file)), "cpu")
    theirs = Searcher(local, OnnxEmbedder(student_file, "cpu"), teacher)
    assert ours.modes == theirs.modes == ["student", "teacher", "rerank"]
    ours.index.pin()
    assert ours.columns == theirs.columns
    wishes = [Narrow(), Narrow(prefix="more/"), Narrow(columns={"colour": 'é"x'}), Narrow(cut=0.9)]
    for narrow in wishes:
        for mode in ("student", "teacher", "rerank"):
            found = []
            for searcher in (ours, theirs):
                index = searcher.index
                at = {index.items[i].name: i for i in range(len(index))}
                rows = {s: index.rows(s, np.array([at["5.png"]])) for s in ("student", "teacher")}
                if mode == "rerank":
                    results = searcher.rerank(rows["student"], rows["teacher"], 6, [[]], narrow)
                else:
                    results = searcher.search(rows[mode], mode, 6, [[]], narrow)
                ids = results.ids[0][results.ids[0] >= 0].tolist()
                found.append([index.items[i] for i in ids])
                scores = results.scores[0][: len(ids)]
                found.append(scores)
            assert found[0] == found[2], (narrow, mode)
            np.testing.assert_allclose(found[1], found[3], atol=1e-5)
    copied = next(item for item in ours.index.items if item.name == "3.png")
    assert [copy.name for copy in copied.copies] == ["more/copy.png"]
    with pytest.raises(UsageError, match="no column 'size', only colour"):
        ours.index.keep(Narrow(columns={"size": "1"}))


def test_a_rerun_changes_nothing_and_images_are_added_and_dropped(
    send: Any, address: Address, folder: Path, monkeypatch: Any
) -> None:
    assert send(folder).written.new == 12
    before = open_collection(str(address)).manifest

    def refuse(*_: Any) -> None:
        raise AssertionError("embedded again")

    with monkeypatch.context() as patch:
        patch.setattr(OnnxEmbedder, "embed", refuse)
        assert not send(folder).written.any
    assert open_collection(str(address)).manifest == before
    more = folder.parent / "others"
    more.mkdir()
    (more / "broken.png").write_bytes(b"no image")
    picture(50).save(more / "new.png")
    (more / "moved.png").write_bytes((folder / "1.png").read_bytes())
    written = send(more).written
    assert (written.new, written.changed, written.removed) == (1, 1, 0)
    assert count(address) == 13
    assert [Path(one.path).name for one in open_collection(str(address)).failures] == ["broken.png"]
    written = send(more, update=True).written
    assert (written.new, written.changed, written.removed) == (0, 1, 11)
    assert count(address) == 2


def test_another_student_takes_over_once_it_is_complete(
    send: Any, address: Address, folder: Path, tmp_path: Path, student_file: Path
) -> None:
    send(folder)
    old = open_searcher(str(address), device="cpu")
    other = write_embedder(tmp_path / "other.onnx", dim=16, seed=9)
    with pytest.raises(UsageError, match=r"another student.*without --update"):
        send(folder, model=other, update=True)
    send(folder, model=other)
    assert open_collection(str(address)).manifest.spaces["student"].dim == 16
    with pytest.raises(UsageError, match="made with another student"):
        open_searcher(str(address), device="cpu", model=student_file)
    rows = np.eye(1, 8, dtype=np.float32)
    assert old.search(rows, "student", 3).ids.shape == (1, 3)  # who searches the old one goes on


def test_what_does_not_fit_is_refused_by_name(
    send: Any, milvus_server: Server, address: Address, folder: Path, student_file: Path, tmp_path: Path
) -> None:
    client = connect(address)
    client.create_collection(address.name, 8, metric_type="L2")
    with pytest.raises(UsageError, match="did not make"):
        send(folder)
    client.drop_collection(address.name)
    send(folder)
    open_collection(str(address)).model_file.unlink()
    with pytest.raises(UsageError, match="--model"):
        open_collection(str(address))
    index = open_collection(str(address), student_file)
    name = index.collection.student
    client.release_collection(name)
    client.drop_index(name, "vector")
    wrong = client.prepare_index_params()
    wrong.add_index("vector", index_type="FLAT", metric_type="L2")
    client.create_index(name, wrong)
    with pytest.raises(UsageError, match="compares by L2, not IP"):
        send(folder)
    client.drop_alias(address.name)
    client.drop_collection(name)
    client.create_collection(name, 5, metric_type="IP")
    client.create_alias(name, address.name)
    with pytest.raises(UsageError, match="not made by"):
        send(folder)
    with pytest.raises(UsageError, match="There is no collection nothing"):
        open_collection(f"milvus://{milvus_server.uri.removeprefix('http://')}/nothing")


def test_nobody_at_the_address(folder: Path, student_file: Path, tmp_path: Path) -> None:
    port = free_port()
    with pytest.raises(UnreachableError, match="No Milvus server answers"):
        open_collection(f"milvus://127.0.0.1:{port}/x", student_file)


@pytest.mark.parametrize(
    "where", ["milvus://", "milvus://host", "milvus://host/", "milvus://u:p@host/x", "milvus://host/a-b"]
)
def test_an_address_is_checked(where: str) -> None:
    with pytest.raises(UsageError):
        parse_address(where)


def test_a_key_from_elsewhere_names_no_other_file(tmp_path: Path, monkeypatch: Any) -> None:
    from index.students import find_student

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    for key in ("onnx:../../../etc/passwd", "onnx:" + "0" * 32, "module:function", "https://host"):
        with pytest.raises(UsageError, match="--model"):
            find_student(key, "it")


@pytest.fixture(scope="module")
def texts(milvus_server: Server) -> MilvusIndex:
    """A collection of no vectors to speak of, to try filters on."""
    from pymilvus import DataType

    client = connect(Address(milvus_server.uri, "texts"))
    schema = client.create_schema()
    schema.add_field("digest", DataType.VARCHAR, is_primary=True, max_length=32)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
    schema.add_field("name", DataType.VARCHAR, max_length=1000)
    schema.add_field("more", DataType.JSON)
    client.create_collection("texts", schema=schema, consistency_level="Strong")
    index = client.prepare_index_params()
    index.add_index("vector", index_type="FLAT", metric_type="IP")
    client.create_index("texts", index)
    client.load_collection("texts")
    return client


@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=5),
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_filter_finds_its_text_and_no_other(texts: Any, text: str, column: str) -> None:
    others = ["", "x", text + "x", "x" + text, '" or "" == "']
    rows = [
        {"digest": str(i), "vector": [0, 1], "name": t, "more": {"copies": [], "metadata": {column: t}}}
        for i, t in enumerate([text, *others])
    ]
    texts.upsert("texts", rows)
    equal = [i for i, t in enumerate([text, *others]) if t == text]
    found = texts.query("texts", filter=as_filter(Narrow(columns={column: text}), [column]))
    assert sorted(int(row["digest"]) for row in found) == equal
    if text:
        found = texts.query("texts", filter=as_filter(Narrow(prefix=text), []))
        starts = [i for i, t in enumerate([text, *others]) if t.startswith(text)]
        assert sorted(int(row["digest"]) for row in found) == starts


def test_a_text_that_is_none_is_refused() -> None:
    for text in ("a\0", "a\ud800"):
        with pytest.raises(UsageError):
            quote(text)


def test_types_of_index_follow_count_recall_and_memory() -> None:
    assert choose_index(1000, 256, Need())[0] == "FLAT"
    assert choose_index(100_000, 256, Need())[0] == "HNSW"
    assert choose_index(100_000, 256, Need(recall=1))[0] == "FLAT"
    assert choose_index(1_000_000, 256, Need(recall=0.99))[0] == "IVF_SQ8"
    assert choose_index(10_000_000, 256, Need(memory=1))[0] == "SCANN"
    kind, params = choose_index(100_000_000, 256, Need(memory=4))
    assert (kind, 256 % params["m"]) == ("IVF_PQ", 0)


@pytest.mark.parametrize(
    "kind", ["SCANN", "IVF_PQ"]
)  # those whose parameters and order a server may not like
def test_an_index_of_codes_is_built_and_finds_what_it_says(
    address: Address, student_file: Path, monkeypatch: Any, unit_rows: Any, kind: str
) -> None:
    need = Need()
    chosen, params = choose_index({"SCANN": 10_000_000, "IVF_PQ": 100_000_000}[kind], 256, need)
    assert chosen == kind
    small = {"nlist": 16, "m": 4}
    params = {name: small.get(name, value) for name, value in params.items()}
    monkeypatch.setattr("index.milvus_pipeline.choose_index", lambda *_: (kind, params))
    monkeypatch.setattr("index.milvus_pipeline.QUERIES", 20)
    models = Models(OnnxEmbedder(student_file, "cpu"), None, None)
    target = collection_name(address.name, models.student.key, "student", models.student.key)
    client = connect(address)
    rows, queries = unit_rows(3000, 8), unit_rows(50, 8, seed=1)
    items = [Item(f"/{i}", str(i), f"{i:032x}", 1, 1, 1, 1) for i in range(len(rows))]
    sender = Sender(_create(client, address, target, models))
    vectors = {"student": {item.digest: row for item, row in zip(items, rows, strict=True)}}
    write_all(sender, [Stretch(items, None, vectors)], len(items), replace_files=False)
    _finish(sender, need, [])
    index = MilvusIndex(Collection(address, client, target), student_file)
    made = index.manifest.spaces["student"]
    assert (made.factory, made.recall >= need.recall) == (kind, True)
    scores, ids = index.open_space("student", "cpu").search(queries, 10)
    found = np.array([[int(index.ids_by_digest.digests[i], 16) for i in line] for line in ids])
    exact = queries @ rows.T
    np.testing.assert_allclose(scores, np.take_along_axis(exact, found, 1), atol=1e-5)
    least = -np.sort(-exact, axis=1)[:, 9:10]
    assert (scores >= least - 1e-5).mean() > need.recall - 0.03


def test_a_server_that_starts_again_gets_every_vector_once_and_is_searched_again(
    send: Any, milvus_server: Server, address: Address, folder: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for i in range(60):
        picture(100 + i).save(many / f"{i}.png")
    send(folder)
    searcher = open_searcher(str(address), device="cpu")
    searcher.index.pin()
    query = searcher.index.rows("student", np.array([0]))
    monkeypatch.setattr("index.milvus_writing.MOST_ROWS", 5)
    insert, taken, stopped = Sender.send, [], threading.Event()

    def send_some(sender: Sender, space: str, rows: list[Any], new: bool = True) -> None:
        taken.append(len(rows))
        if len(taken) == 3:
            milvus_server.stop()
            stopped.set()
        insert(sender, space, rows, new)

    monkeypatch.setattr(Sender, "send", send_some)
    failed: list[str] = []

    def bring_back() -> None:
        stopped.wait(60)
        try:
            searcher.search(query, "student", 3)
        except RetrievalError as error:
            failed.append(str(error))
        milvus_server.start()

    back = threading.Thread(target=bring_back)
    back.start()
    written = send(many).written
    back.join()
    assert written.new == 60
    assert count(address) == 72
    assert failed and "No Milvus server answers" in failed[0]
    deadline = time.monotonic() + 60
    while True:
        try:
            assert len(searcher.search(query, "student", 3)) == 1
            break
        except RetrievalError:
            assert time.monotonic() < deadline
            time.sleep(0.5)

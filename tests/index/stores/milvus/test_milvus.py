"""Galleries in a real Milvus server, which is started once, and stopped in the midst of things."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import picture, write_embedder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from milvus_server import Server, free_port

from index.build.pipeline import build, build_index
from index.build.rewrite import compact_index
from index.embedders.onnx import OnnxEmbedder
from index.embedders.registry import open_embedder
from index.errors import RetrievalError, UnreachableError, UsageError
from index.io import content_digest
from index.search import Searcher, open_searcher
from index.stores.base import Batch, BuildReport
from index.stores.filters import Filter
from index.stores.maintenance import describe_index, verify_index
from index.stores.milvus.client import (
    Address,
    Client,
    as_filter,
    as_property,
    create_collection,
    parse_address,
    quote,
)
from index.stores.milvus.store import MilvusIndex, open_collection
from index.stores.milvus.writer import MilvusWriter, choose_index, serves
from index.stores.models import Models
from index.stores.options import IndexOptions, SearchTarget
from index.stores.records import Item, Space
from index.stores.registry import open_writer
from index.stores.server import FIELDS, find_student, keep_student
from index.teachers.spec import TeacherSpec

pytest.importorskip("milvus")
MilvusException = pytest.importorskip("pymilvus.exceptions").MilvusException
MilvusClient = pytest.importorskip("pymilvus").MilvusClient
pytestmark = pytest.mark.slow  # a server is started


@pytest.fixture
def address(
    milvus_server: Server, request: pytest.FixtureRequest, monkeypatch: Any, tmp_path: Path
) -> Iterator[Address]:
    """A name of its own for each test, and a home of its own for what is kept on this machine."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    address = Address(milvus_server.uri, "t_" + content_digest(request.node.nodeid.encode())[:8])
    yield address
    drop(address)


def drop(address: Address) -> None:
    """Drop a gallery, whatever a test has left of it: a server that starts again would load it."""
    client = MilvusClient(address.uri)
    for name in client.list_collections():
        if name.startswith(address.name):
            for alias in client.list_aliases(name)["aliases"]:
                client.drop_alias(alias)
            client.drop_collection(name)
    client.close()


@pytest.fixture
def send(address: Address, student_file: Path, tmp_path: Path) -> Callable[..., BuildReport]:
    def run(
        *sources: Path, model: Path = student_file, teacher: Path | None = None, **options: Any
    ) -> BuildReport:
        opened = open_embedder(teacher, "cpu") if teacher else None
        models = Models(OnnxEmbedder(model, "cpu"), opened, None)
        return build(list(sources), models, MilvusWriter(address, tmp_path / "work"), IndexOptions(**options))

    return run


def any_change(report: BuildReport) -> bool:
    return "0 new, 0 changed, 0 removed" not in report.summary


def count(address: Address, space: str = "student") -> int:
    """Rows, each counted as often as it is there."""
    name = open_collection(str(address)).names[space]
    return Client(address).query(name, output_fields=["count(*)"], consistency_level="Strong")[0]["count(*)"]


def test_finds_what_the_index_folder_finds(
    send: Any, address: Address, folder: Path, student_file: Path, teacher_file: Path, tmp_path: Path
) -> None:
    (folder / "more" / "copy.png").write_bytes((folder / "3.png").read_bytes())
    table = tmp_path / "table.csv"
    lines = [f"{i}.png,{colour},{i},2024-0{i + 1}-01" for i, colour in enumerate(["red", 'é"x'] * 4)]
    lines += ["8.png,red,,", '9.png,"é""x",9,2024-12-01', "more/copy.png,green,1e1,2023-01-01"]
    table.write_text("\n".join(["path,colour,price,seen", *lines, "more/11.jpg,green,2.5,"]))
    sent = send(folder, teacher=teacher_file, metadata=table)
    assert len(sent.store) == 12
    assert "12 new" in sent.summary
    teacher = open_embedder(teacher_file, "cpu")
    local = build_index(
        [folder],
        OnnxEmbedder(student_file, "cpu"),
        tmp_path / "idx",
        teacher,
        options=IndexOptions(metadata=table),
    )
    ours = open_searcher(str(address), TeacherSpec(str(teacher_file)), "cpu")
    theirs = Searcher(local, OnnxEmbedder(student_file, "cpu"), teacher)
    assert ours.modes == theirs.modes == ["student", "teacher", "rerank"]
    ours.index.pin()
    assert ours.index.columns == theirs.index.columns
    wishes = [Filter(), Filter(prefix="more/"), Filter(columns={"colour": 'é"x'}), Filter(cut=0.9)]
    wishes.append(Filter(columns={"colour": "green"}))
    wishes += [
        Filter(columns={"colour": "green, red", "price": bounds}) for bounds in ("<7", ">=1.5&<=6", ">0")
    ]
    wishes.append(Filter(columns={"seen": ">=2024-03&<2024-08-02"}))
    for narrow in wishes:
        for mode in ("student", "teacher", "rerank"):
            found = []
            for searcher in (ours, theirs):
                index = searcher.index
                at = {index.items[i].name: i for i in range(len(index))}
                rows = {s: index.rows(s, np.array([at["5.png"]])) for s in ("student", "teacher")}
                if mode == "rerank":
                    results = searcher.search(rows["student"], mode, 6, [[]], narrow, rows["teacher"])
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
    for searcher in (ours, theirs):
        place = next(i for i, item in enumerate(searcher.index.items) if item.name == "3.png")
        assert searcher.index.metadata_of(place) == {
            "colour": 'é"x; green',
            "price": "3; 1e1",
            "seen": "2024-04-01; 2023-01-01",
        }
    with pytest.raises(UsageError, match="no column 'size', only colour, price, seen"):
        ours.index.keep(Filter(columns={"size": "1"}))
    for wish in ({"colour": "<5"}, {"price": "<2024-05-01"}, {"price": "<red"}, {"price": "<-5"}):
        said = set()
        for searcher in (ours, theirs, open_searcher(str(address), device="cpu")):  # the last is not pinned
            with pytest.raises(UsageError) as told:
                searcher.search(theirs.index.rows("student")[:1], "student", 3, filter=Filter(columns=wish))
            said.add(str(told.value))
        assert len(said) == 1, said


def test_a_rerun_changes_nothing_and_images_are_added_and_dropped(
    send: Any, address: Address, folder: Path, monkeypatch: Any
) -> None:
    assert ": 12 new" in send(folder).summary
    before = open_collection(str(address)).written

    def refuse(*_: Any) -> None:
        raise AssertionError("embedded again")

    with monkeypatch.context() as patch:
        patch.setattr(OnnxEmbedder, "embed", refuse)
        assert not any_change(send(folder))
    assert open_collection(str(address)).written == before
    more = folder.parent / "others"
    more.mkdir()
    (more / "broken.png").write_bytes(b"no image")
    picture(50).save(more / "new.png")
    (more / "moved.png").write_bytes((folder / "1.png").read_bytes())
    written = send(more)
    assert "1 new, 1 changed, 0 removed" in written.summary
    assert count(address) == 13
    assert [Path(one.path).name for one in open_collection(str(address)).failures] == ["broken.png"]
    written = send(more, update=True)
    assert "0 new, 1 changed, 11 removed" in written.summary
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
    client = Client(address)
    client.create_collection(address.name, 8, metric_type="L2")
    with pytest.raises(UsageError, match="did not make"):
        send(folder)
    client.drop_collection(address.name)
    send(folder)
    open_collection(str(address)).model_file.unlink()
    with pytest.raises(UsageError, match="--model"):
        _ = open_collection(str(address)).model_file
    index = open_collection(str(address), student_file)
    name = index.student
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
    with pytest.raises(UsageError, match="did not make"):
        send(folder)
    assert client.describe_collection(address.name)["collection_name"] == name, "their alias is theirs"
    client.drop_alias(address.name)
    with pytest.raises(UsageError, match="not made by"):
        send(folder)
    client.drop_collection(name)
    create_collection(client, name, Space("", "", 5), as_property(index.manifest, []))
    with pytest.raises(UsageError, match="holds vectors of 5, not 8"):
        send(folder)
    with pytest.raises(UsageError, match="There is no collection nothing"):
        open_collection(f"milvus://{milvus_server.uri.removeprefix('http://')}/nothing")


def test_an_alias_of_others_is_not_taken_from_them(send: Any, address: Address, folder: Path) -> None:
    client = Client(address)
    theirs = f"{address.name}_theirs"
    client.create_collection(theirs, 8, metric_type="L2")
    client.create_alias(theirs, address.name)
    with pytest.raises(UsageError, match="did not make"):
        send(folder)
    assert client.describe_collection(address.name)["collection_name"] == theirs
    assert client.list_collections().count(theirs) == 1
    assert not [
        one for one in client.list_collections() if one.startswith(f"{theirs[:-6]}") and one != theirs
    ]


def test_the_collection_of_a_space_that_is_gone_is_made_again_as_the_message_says(
    send: Any, address: Address, folder: Path, teacher_file: Path
) -> None:
    collection = send(folder, teacher=teacher_file).store
    client = collection.client
    client.drop_collection(collection.names["teacher"])
    with pytest.raises(UsageError, match=f"is gone. Drop {collection.student} too"):
        send(folder, teacher=teacher_file)
    client.drop_alias(address.name)
    client.drop_collection(collection.student)
    send(folder, teacher=teacher_file)
    assert count(address, "teacher") == count(address) == 12


def test_a_gallery_is_described_and_checked_and_has_no_files_to_compact(
    send: Any, address: Address, folder: Path, teacher_file: Path
) -> None:
    index = send(folder, teacher=teacher_file).store
    facts = describe_index(str(address))
    assert (facts.path, facts.images, facts.spaces["teacher"].factory) == (str(address), 12, "FLAT")
    assert f"images       {facts.images}\nwritten      {facts.created}\nstudent" in str(facts)
    assert verify_index(str(address)) == []
    with pytest.raises(UsageError, match=r"is no index folder. `retrieval index --update` drops"):
        compact_index(str(address))
    index.pin()
    query = index.rows("student", np.array([0]))
    searcher = open_searcher(str(address), device="cpu")
    with pytest.raises(UsageError, match="No image has a path that starts with 'nowhere/': paths start"):
        searcher.search(query, "student", 3, filter=Filter(prefix="nowhere/"))
    digest = index.ids_by_digest.digests[3]
    (row,) = index.fetch("student", [digest], [*FIELDS, "vector"]).values()
    index.client.upsert(index.student, [row | {"vector": [2 * number for number in row["vector"]]}])
    assert verify_index(str(address)) == ["student: 1 vectors are not of unit length"]
    index.client.delete(index.names["teacher"], filter=f"digest in ['{digest}']")
    assert verify_index(str(address)) == [f"{index.names['teacher']} has 11 items, not 12"]


class Killed(BaseException):
    """What no handler of ours takes for a failure."""


def kill(*_: Any, **__: Any) -> None:
    raise Killed


def test_a_run_that_was_killed_while_an_index_was_built_is_completed_by_the_next(
    send: Any, address: Address, folder: Path, monkeypatch: Any
) -> None:
    """The collection is released, then has no index, then has one and is not loaded."""
    send(folder)
    more = folder.parent / "others"
    more.mkdir()
    picture(50).save(more / "new.png")
    table = folder.parent / "table.csv"
    table.write_text("path,colour\nnew.png,red\n")
    client = Client(address)
    name = open_collection(str(address)).student
    writer = MilvusWriter(address)
    writer.client = client
    with monkeypatch.context() as patch:
        patch.setattr("index.stores.milvus.writer.MilvusWriter.finish", kill)
        with pytest.raises(Killed):
            send(more, metadata=table)
    for step in range(3):
        client.release_collection(name)
        if step > 0:
            client.drop_index(name, "vector")
        if step > 1:
            writer.make_ready(
                name,
                MilvusIndex(client, name).written.spaces["student"],
                "HNSW",
                {"M": 4, "efConstruction": 8},
            )
            client.release_collection(name)
        with pytest.raises(RetrievalError, match="has not loaded the collection"):
            open_collection(str(address))
        assert not any_change(send(more, metadata=table, resume=True)), "all was sent"
        index = open_collection(str(address))
        assert (index.written.count, list(index.columns)) == (13, ["colour"])
        assert client.describe_index(name, "vector")["index_type"] == "FLAT"


def test_a_run_that_is_not_complete_is_told_of(
    address: Address, folder: Path, student_file: Path, monkeypatch: Any
) -> None:
    def run() -> None:
        build([folder], Models(OnnxEmbedder(student_file, "cpu")), MilvusWriter(address), IndexOptions())

    run()
    assert not describe_index(str(address)).unfinished_run
    picture(50).save(folder / "new.png")
    monkeypatch.setattr(MilvusWriter, "finish", kill)
    with pytest.raises(Killed):
        run()
    assert describe_index(str(address)).unfinished_run


def test_a_server_that_fails_while_a_collection_is_loaded_is_asked_again(
    send: Any, address: Address, folder: Path, student_file: Path, monkeypatch: Any
) -> None:
    send(folder)
    monkeypatch.setattr("index.stores.milvus.writer.PATIENCE", 20.0)
    writer = MilvusWriter(address)
    writer.begin(Models(OnnxEmbedder(student_file, "cpu")), IndexOptions(), [])
    client, load, failed = writer.client.bare, writer.client.bare.load_collection, []

    def fail_once(name: str) -> None:
        if not failed:
            failed.append(name)
            raise MilvusException(message="the server goes down")
        load(name)

    monkeypatch.setattr(client, "load_collection", fail_once)
    monkeypatch.setattr(
        "index.stores.milvus.writer.choose_index", lambda *_: ("HNSW", {"M": 4, "efConstruction": 8})
    )
    monkeypatch.setattr("index.stores.milvus.writer.PAUSE", 0.01)
    monkeypatch.setattr("index.stores.milvus.writer.QUERIES", 1)
    monkeypatch.setattr("index.stores.faiss.tuning.DEPTH", 1)
    monkeypatch.setattr("index.stores.milvus.writer.DEEP", 1)
    writer.finish()
    assert failed
    assert open_collection(str(address)).manifest.spaces["student"].factory == "HNSW"


def test_a_space_keeps_no_more_than_the_student_has(
    send: Any, address: Address, folder: Path, teacher_file: Path, monkeypatch: Any
) -> None:
    """A run that is killed between two spaces, and an image that is gone before the next run."""
    send(folder, teacher=teacher_file)
    picture(50).save(folder / "new.png")
    sends = MilvusWriter.upsert

    def teacher_alone(writer: MilvusWriter, space: str, rows: list[Any]) -> None:
        if space == "student":
            raise Killed
        sends(writer, space, rows)

    with monkeypatch.context() as patch:
        patch.setattr(MilvusWriter, "upsert", teacher_alone)
        with pytest.raises(Killed):
            send(folder, teacher=teacher_file)
    (folder / "new.png").unlink()
    (folder / "1.png").unlink()
    assert (count(address, "teacher"), count(address)) == (13, 12)
    assert "1 removed" in send(folder, teacher=teacher_file, update=True, resume=True).summary
    assert (count(address, "teacher"), count(address)) == (11, 11)


def test_images_that_a_killed_run_knew_and_that_are_gone_meanwhile_are_one_line(
    send: Any, address: Address, folder: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    collection = send(folder).store
    picture(50).save(folder / "new.png")
    with monkeypatch.context() as patch:
        patch.setattr(MilvusWriter, "upsert", kill)
        with pytest.raises(Killed):
            send(folder)
    collection.client.delete(collection.student, filter='digest >= ""')
    with pytest.raises(RetrievalError, match=r"12 images that were in .* are gone"):
        send(folder, resume=True)
    with pytest.raises(UsageError, match=r"or remove .*unfinished to start afresh"):
        send(folder)
    shutil.rmtree(tmp_path / "work")
    assert ": 13 new" in send(folder).summary


def test_an_item_has_as_many_copies_as_a_field_takes(send: Any, address: Address, tmp_path: Path) -> None:
    long = tmp_path / "many" / ("é" * 100)
    long.mkdir(parents=True)
    picture(1).save(long / "000.png")
    for i in range(1, 150):
        shutil.copy(long / "000.png", long / f"{i:03}.png")
    assert ": 1 new" in send(tmp_path / "many").summary
    index = open_collection(str(address))
    index.pin()
    (item,) = index.items
    assert 60 < len(item.copies) < 149
    assert not any_change(send(tmp_path / "many"))
    assert not any_change(send(tmp_path / "many", update=True))


def test_metadata_that_no_field_takes_are_refused_at_once(
    send: Any, address: Address, folder: Path, monkeypatch: Any
) -> None:
    table = folder.parent / "table.csv"
    table.write_text(f"path,about\n0.png,{'x' * 65_400}\n")
    send(folder, metadata=table)
    table.write_text(f"path,about\n0.png,{'x' * 65_500}\n")
    monkeypatch.setattr("index.build.pipeline.embed_missing", kill)
    with pytest.raises(UsageError, match=r"says more of 0\.png than"):
        send(folder, metadata=table)


def test_rows_are_read_by_id_before_any_item_was_seen(send: Any, folder: Path) -> None:
    fresh = send(folder).store
    rows = fresh.rows("student", np.arange(0, 12, 3))
    assert rows.shape == (4, 8)
    np.testing.assert_array_equal(fresh.rows("student")[::3], rows)


def test_items_are_read_by_id_before_any_was_seen(send: Any, address: Address, folder: Path) -> None:
    """As evaluation does, which gives each item its label."""
    send(folder)
    names = [item.name for item in open_collection(str(address)).items]
    index = open_collection(str(address))
    assert (len(names), names[5]) == (12, index.items[5].name)
    seen = open_collection(str(address))
    last = seen.ids_by_digest[index.items[11].digest]  # what is seen first has the first id
    assert (last, [item.name for item in seen.items][:2]) == ([0], [names[11], names[0]])


def test_an_item_is_read_though_others_forget_it(send: Any, folder: Path, monkeypatch: Any) -> None:
    index = send(folder).store
    index.pin()
    monkeypatch.setattr(MilvusIndex, "remember", lambda *_: None)  # as if another thread forgot it at once
    assert {item.name for item in index.items} == {f"{i}.png" for i in range(10)} | {
        "more/10.jpg",
        "more/11.jpg",
    }


def test_nobody_at_the_address(folder: Path, student_file: Path, tmp_path: Path) -> None:
    port = free_port()
    with pytest.raises(UnreachableError, match="No Milvus server answers"):
        open_collection(f"milvus://127.0.0.1:{port}/x", student_file)


@pytest.mark.parametrize(
    "where",
    [
        *("milvus://", "milvus://host", "milvus://host/", "milvus://u:p@host/x", "milvus://host/a-b"),
        *("milvus://host:99999/x", "milvus://host:port/x", "milvus://host:0/x", "milvus://[::1/x"),
        *("milvus://u:secret@host:port/x", "milvus://host#y/x", "milvus://host?y/x"),
    ],
)
def test_an_address_is_checked(where: str) -> None:
    with pytest.raises(UsageError) as told:
        parse_address(where)
    assert "secret" not in str(told.value)


def test_a_work_folder_is_no_index_folder() -> None:
    """Of which a dry run with --update would ask what is known."""
    assert open_writer("idx", "faiss", "", None).index_folder == Path("idx")
    writer = open_writer("work", "milvus", "http://host:19530", "x")
    assert (writer.work, writer.index_folder) == (Path("work").absolute(), None)


def test_a_key_from_elsewhere_names_no_other_file(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    for key in ("onnx:../../../etc/passwd", "onnx:" + "0" * 32, "module:function", "https://host"):
        with pytest.raises(UsageError, match="--model"):
            find_student(key, "it")


def test_a_student_that_was_kept_may_be_given_again(
    tmp_path: Path, student_file: Path, monkeypatch: Any
) -> None:
    """Its companions lie where they are to be kept."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    student_file.with_name("run.json").write_text("{}")
    kept = keep_student(OnnxEmbedder(student_file, "cpu"))
    assert keep_student(OnnxEmbedder(kept, "cpu")) == kept
    assert {file.name: file.read_bytes() for file in kept.parent.iterdir()} == {
        "student.onnx": student_file.read_bytes(),
        "run.json": b"{}",
    }


@pytest.fixture(scope="module")
def texts(milvus_server: Server) -> MilvusIndex:
    """A collection of no vectors to speak of, to try filters on."""
    from pymilvus import DataType

    client = Client(Address(milvus_server.uri, "texts"))
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
    others = ["", "x", text + "x", "x" + text, '" or "" == "', *map(str.strip, text.split(","))]
    rows = [
        {"digest": str(i), "vector": [0, 1], "name": t, "more": {"copies": [], "metadata": {column: t}}}
        for i, t in enumerate([text, *others])
    ]
    texts.delete("texts", filter='digest != ""')  # an example before this may have had more
    texts.upsert("texts", rows)
    equal = [i for i, t in enumerate([text, *others]) if t == text]
    wanted = Filter(columns={column: text})
    found = texts.query("texts", filter=as_filter(wanted, [column], lambda _: True))
    assert sorted(int(row["digest"]) for row in found) == equal
    if text:
        found = texts.query("texts", filter=as_filter(Filter(prefix=text), [], lambda _: True))
        starts = [i for i, t in enumerate([text, *others]) if t.startswith(text)]
        assert sorted(int(row["digest"]) for row in found) == starts


def test_a_text_that_is_none_is_refused() -> None:
    for text in ("a\0", "a\ud800"):
        with pytest.raises(UsageError):
            quote(text)


FLOATS, CODED = Space("", "", 256), Space("", "", 16, dtype="uint8", metric="hamming")


def test_types_of_index_follow_count_recall_and_memory() -> None:
    assert choose_index(1000, FLOATS, SearchTarget())[0] == "FLAT"
    assert choose_index(100_000, FLOATS, SearchTarget())[0] == "HNSW"
    assert choose_index(100_000, FLOATS, SearchTarget(recall=1))[0] == "FLAT"
    assert choose_index(1_000_000, FLOATS, SearchTarget(recall=0.99))[0] == "IVF_SQ8"
    assert choose_index(10_000_000, FLOATS, SearchTarget(memory=1))[0] == "SCANN"
    kind, params = choose_index(100_000_000, FLOATS, SearchTarget(memory=4))
    assert (kind, 256 % params["m"]) == ("IVF_PQ", 0)
    assert choose_index(100_000, CODED, SearchTarget()) == ("BIN_FLAT", {})
    assert choose_index(10_000_000, CODED, SearchTarget()) == ("BIN_IVF_FLAT", {"nlist": 8192})
    assert choose_index(10_000_000, CODED, SearchTarget(recall=1)) == ("BIN_FLAT", {})


@pytest.mark.parametrize(
    ("there", "fits"),
    [
        (None, False),
        ({"index_type": "HNSW", "M": "32"}, False),
        ({"index_type": "IVF_SQ8", "nlist": "512"}, True),
        ({"index_type": "IVF_SQ8", "nlist": "128"}, True),
        ({"index_type": "IVF_SQ8", "nlist": "64"}, False),
    ],
)
def test_an_index_is_built_anew_once_it_is_another_or_too_coarse(there: Any, fits: bool) -> None:
    assert serves(there, "IVF_SQ8", {"nlist": 512}) == fits
    assert serves({"index_type": "FLAT"}, "FLAT", {})


@pytest.mark.parametrize(
    "kind", ["SCANN", "IVF_PQ"]
)  # those whose parameters and order a server may not like
def test_an_index_of_codes_is_built_and_finds_what_it_says(
    address: Address, student_file: Path, monkeypatch: Any, unit_rows: Any, kind: str
) -> None:
    need = SearchTarget()
    chosen, params = choose_index({"SCANN": 10_000_000, "IVF_PQ": 100_000_000}[kind], FLOATS, need)
    assert chosen == kind
    small = {"nlist": 16, "m": 4}
    params = {name: small.get(name, value) for name, value in params.items()}
    monkeypatch.setattr("index.stores.milvus.writer.choose_index", lambda *_: (kind, params))
    monkeypatch.setattr("index.stores.milvus.writer.QUERIES", 20)
    models = Models(OnnxEmbedder(student_file, "cpu"))
    rows, queries = unit_rows(3000, 8), unit_rows(50, 8, seed=1)
    items = [Item(f"/{i}", str(i), f"{i:032x}", 1, 1, 1, 1) for i in range(len(rows))]
    writer = MilvusWriter(address)
    writer.begin(models, IndexOptions(), [])
    writer.gallery = writer.create(models.spaces)
    vectors = {"student": {item.digest: row for item, row in zip(items, rows, strict=True)}}
    writer.send([Batch(items, vectors)], len(items))
    writer.finish()
    index = MilvusIndex(writer.client, writer.gallery.student, student_file)
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
    monkeypatch.setattr("index.stores.milvus.writer.MOST_ROWS", 5)
    insert, taken, stopped = MilvusWriter.upsert, [], threading.Event()

    def send_some(writer: MilvusWriter, space: str, rows: list[Any]) -> None:
        taken.append(len(rows))
        if len(taken) == 3:
            milvus_server.stop()
            stopped.set()
        insert(writer, space, rows)

    monkeypatch.setattr(MilvusWriter, "upsert", send_some)
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
    written = send(many)
    back.join()
    assert ": 60 new" in written.summary
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


def test_a_new_table_takes_the_place_of_the_one_before(send: Any, folder: Path, tmp_path: Path) -> None:
    old, new = tmp_path / "old.csv", tmp_path / "new.csv"
    old.write_text("path,colour\n1.png,red\n2.png,blue\n")
    new.write_text("path,price\n1.png,7\n")
    send(folder, metadata=old)
    added = send(folder, metadata=new).store  # which may be of some photos alone
    assert list(added.columns) == ["colour", "price"]
    replaced = send(folder, metadata=new, update=True).store
    assert list(replaced.columns) == ["price"]
    known = {item.name: replaced.metadata_of(i) for i, item in enumerate(replaced.items)}
    assert (known["1.png"], known["2.png"]) == ({"price": "7"}, {})
    assert list(send(folder, update=True).store.columns) == ["price"]


def test_what_was_asked_before_holds(send: Any, folder: Path) -> None:
    assert send(folder, recall=0.9, memory=2.0).store.manifest.spaces["student"].asked == 0.9
    for options in ({}, {"update": True}):
        space = send(folder, **options).store.manifest.spaces["student"]
        assert (space.asked, space.memory) == (0.9, 2.0)


def test_a_few_images_are_added_without_reading_all_that_is_there(
    send: Any, folder: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    store = send(folder).store
    more = tmp_path / "others"
    more.mkdir()
    picture(50).save(more / "new.png")
    (more / "copy.png").write_bytes((folder / "3.png").read_bytes())
    monkeypatch.setattr("index.build.pipeline.MANY", 1)
    with monkeypatch.context() as patch:
        patch.setattr(MilvusIndex, "scan", lambda *_: pytest.fail("It was read."))
        assert store.sample_rows("student", 5).shape == (5, 8)
        written = send(more)
    assert "1 new, 1 changed" in written.summary
    assert len(send(folder, more, update=True).store) == 13

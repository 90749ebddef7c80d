import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.errors import UsageError
from index.stores import tables
from index.stores.base import Store
from index.stores.faiss.tuning import TunedIndex
from index.stores.faiss.vector_index import build_ann
from index.stores.filters import Filter
from index.stores.folder import Index
from index.stores.records import Failure, File, Item, Space
from index.stores.writing.writer import IndexWriter


def item(i: int) -> Item:
    copies = tuple(File(f"/photos/{i}-{j}.jpg", f"{i}-{j}.jpg", j) for j in range(i % 3))
    return Item(f"/photos/{i}.jpg", f"{i}.jpg", f"{i:032x}", 100 + i, 40, 30, 1_700_000_000, copies)


def write(out: Path, rows: np.ndarray, sizes: list[int] | None = None, model: bytes = b"") -> Index:
    out.mkdir(exist_ok=True)
    with IndexWriter(out, ["/photos"]) as writer:
        writer.add_items(map(item, range(len(rows))))
        writer.add_failures([Failure("/photos/bad.jpg", "empty file")])
        stops = np.cumsum(sizes or [len(rows)])[:-1]
        space = Space("key-of-the-student", "student.onnx", rows.shape[1], "", 0.0)
        vectors = writer.add_space("student", space, np.split(rows, stops))
        writer.add_ann("student", build_ann(vectors, "Flat"), TunedIndex("Flat", 1.0, 1.0, 0, 0, 0.1))
        writer.add_model(model, out)
        return writer.commit(None, {})


@settings(max_examples=20)
@given(sizes=st.lists(st.integers(0, 7), min_size=1, max_size=6), dim=st.integers(1, 9))
def test_what_is_written_in_pieces_is_read_whole(tmp_path_factory, sizes, dim):
    out = tmp_path_factory.mktemp("store") / "idx"
    rows = np.random.default_rng(0).normal(size=(sum(sizes), dim)).astype(np.float32)
    if not len(rows):
        return
    index = write(out, rows, sizes)
    assert len(index) == len(rows)
    np.testing.assert_array_equal(index.vectors("student"), rows)
    assert list(index.items) == [item(i) for i in range(len(rows))]
    assert index.manifest.copies == sum(i % 3 for i in range(len(rows)))
    assert index.failures == [Failure("/photos/bad.jpg", "empty file")]
    assert index.ann("student") is None  # its vectors are searched themselves


def test_a_store_of_items_alone_is_read_as_columns_too(tmp_path: Path, unit_rows):
    index = write(tmp_path / "idx", unit_rows(7, 4))
    columns = [row for batch in index.iter_batches() for row in batch.to_pylist()]
    assert [row for batch in Store.iter_batches(index) for row in batch.to_pylist()] == columns
    assert [row["path"] for row in columns] == [f"/photos/{i}.jpg" for i in range(7)]


def test_items_are_found_by_id_and_by_digest(tmp_path: Path, unit_rows):
    index = write(tmp_path / "idx", unit_rows(70, 4))
    assert [index.items[i] for i in (0, 69, -1)] == [item(0), item(69), item(69)]
    assert index.items[2:4] == [item(2), item(3)]
    with pytest.raises(IndexError):
        _ = index.items[70]
    assert [index.ids_by_digest[item(i).digest] for i in range(70)] == [[i] for i in range(70)]
    assert list(index.ids_by_digest) == [item(i).digest for i in range(70)]
    twin = f"1{item(5).digest[1:]}"  # of another image, whose last half is alike
    assert [index.ids_by_digest.get(digest, []) for digest in (twin, "0", "no digest", "")] == [[]] * 4


def test_tables_of_many_batches_are_read_like_one(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(tables, "ROWS", 7)
    tables.write_rows(
        tmp_path / "t", tables.ITEM_SCHEMA, ({**vars(item(i)), "copies": []} for i in range(20))
    )
    items = tables.Items(*tables.map_batches(tmp_path / "t"))
    assert [batch.num_rows for batch in items.batches()] == [7, 7, 6]
    assert (
        [one.digest for one in items]
        == [items[i].digest for i in range(20)]
        == [item(i).digest for i in range(20)]
    )


def test_offsets_that_lead_outside_of_a_table_are_not_followed(tmp_path: Path, unit_rows):
    index = write(tmp_path / "idx", unit_rows(50, 4))
    file = index.data / "items.arrow"
    whole = bytearray(file.read_bytes())
    for length in (len("/photos/1.jpg"), len("1.jpg")):  # of the first paths and names, which end there
        place = whole.index(np.array([0, length, 2 * length], np.int32).tobytes())
        whole[place + 8 : place + 12] = np.int32(1 << 30).tobytes()
    file.write_bytes(whole)
    for read in (lambda: index.items[2], lambda: list(index.items), lambda: index.keep(Filter("1"))):
        with pytest.raises(UsageError, match="A table of this index is damaged"):
            read()


def test_the_first_file_of_an_item_is_its_own():
    assert [file.path for file in item(2).files] == ["/photos/2.jpg", "/photos/2-0.jpg", "/photos/2-1.jpg"]
    assert item(2).files[0] == File("/photos/2.jpg", "2.jpg", 1_700_000_000)


def test_the_model_travels_with_the_index(tmp_path: Path, unit_rows):
    assert (
        write(tmp_path / "idx", unit_rows(5, 8), model=b"the model").model_file.read_bytes() == b"the model"
    )


def test_another_model_is_refused_by_name(tmp_path: Path, unit_rows):
    index = write(tmp_path / "idx", unit_rows(5, 8))
    index.require_model("student", "key-of-the-student", "student.onnx")
    with pytest.raises(UsageError, match=r"made with another student: student\.onnx .* not other\.onnx"):
        index.require_model("student", "another-key", "other.onnx")


def test_a_writer_that_does_not_commit_leaves_the_old_index_and_nothing_else(tmp_path: Path, unit_rows):
    old = write(tmp_path / "idx", unit_rows(5, 8))

    def fail_half_way() -> None:
        with IndexWriter(old.path, []) as writer:
            writer.add_items([item(0)])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_half_way()
    assert Index(old.path).manifest == old.manifest
    assert {path.name for path in old.path.iterdir()} == {"manifest.json", "data-1"}


def test_a_new_index_replaces_the_old_one(tmp_path: Path, unit_rows):
    old = write(tmp_path / "idx", unit_rows(5, 8))
    mapped = old.vectors("student")
    assert len(write(tmp_path / "idx", unit_rows(3, 8))) == 3
    assert {path.name for path in old.path.iterdir()} == {"manifest.json", "data-2"}
    np.testing.assert_array_equal(mapped, unit_rows(5, 8))  # what was open stays readable
    with pytest.raises(UsageError, match=r"was replaced meanwhile\. Open it again"):
        _ = old.failures


def test_what_is_no_index_is_refused(tmp_path: Path, unit_rows):
    with pytest.raises(UsageError, match="is not an index"):
        Index(tmp_path)
    index = write(tmp_path / "idx", unit_rows(2, 8))
    index.model_file.unlink()
    with pytest.raises(UsageError, match=r"student\.onnx is missing. Index the images again"):
        _ = index.model_file
    manifest = index.path / "manifest.json"
    whole = manifest.read_text()
    manifest.write_text(json.dumps({**json.loads(whole), "format": 1}))
    with pytest.raises(UsageError, match=r"has format 1, not 3\. Remove it"):
        Index(index.path)
    for broken in ("{", "[]", "{}", whole[:-40], '{"format": 3}', whole.replace('"count"', '"number"')):
        manifest.write_text(broken)
        with pytest.raises(UsageError, match=r"manifest\.json is damaged. Remove"):
            Index(index.path)


@pytest.mark.parametrize("how", ["cut", "empty", "head"])
def test_a_damaged_file_of_the_data_is_named_when_it_is_read(tmp_path: Path, unit_rows, how: str):
    index = write(tmp_path / "idx", unit_rows(50, 8))
    reading = {
        "items.arrow": lambda: index.items,
        "errors.arrow": lambda: index.failures,
        "student.npy": lambda: index.vectors("student"),
    }
    for name, read in reading.items():
        file = index.data / name
        whole = file.read_bytes()
        head = whole[:16] + b"(" * 60 + whole[76:] if name.endswith("npy") else whole[:-40] + b"(" * 40
        file.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "head": head}[how])
        with pytest.raises(UsageError, match=rf"{name} is damaged\. Index the images again"):
            read()


def test_a_folder_may_be_called_milvus_and_a_collection_is_no_folder(tmp_path: Path, unit_rows, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(Path("milvus-photos"), unit_rows(3, 8))
    assert len(Index(Path("milvus-photos"))) == 3
    for address in ("milvus://host:1/photos", "milvus+https://host:1/photos"):
        with pytest.raises(UsageError, match="takes an index folder, no Milvus collection"):
            Index(Path(address))

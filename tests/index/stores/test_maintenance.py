import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from index.build.pipeline import build_index
from index.build.rewrite import compact_index
from index.embedders.onnx import OnnxEmbedder
from index.errors import RetrievalError, UsageError
from index.io import file_digest
from index.stores.folder import Index
from index.stores.maintenance import describe_index, verify_index
from index.stores.metadata.columns import decode
from index.stores.options import IndexOptions
from index.stores.records import Stored


@pytest.fixture
def index(folder: Path, tmp_path: Path, student_file: Path, teacher_file: Path) -> Index:
    shutil.copy(folder / "0.png", folder / "more" / "copy.png")
    (folder / "3.png").write_text("no picture")
    student, teacher = OnnxEmbedder(student_file, "cpu"), OnnxEmbedder(teacher_file, "cpu")
    return build_index([folder], student, tmp_path / "idx", teacher, options=IndexOptions(factory="HNSW8"))


def rewrite(index: Index, name: str, data: bytes) -> None:
    """Change a file of the data, and the manifest with it, so that only its meaning is wrong."""
    (index.data / name).write_bytes(data)
    files = {**index.manifest.files, name: Stored(len(data), file_digest(index.data / name))}
    manifest = asdict(index.manifest) | {"files": {key: asdict(value) for key, value in files.items()}}
    (index.path / "manifest.json").write_text(json.dumps(manifest))


def test_what_an_index_is(index: Index, folder: Path):
    facts = describe_index(index.path)
    assert (facts.images, facts.copies, facts.refused, facts.sources) == (11, 1, 1, [str(folder)])
    assert facts.spaces["student"].bytes_per_vector > 8 * 4
    text = str(facts)
    for part in ("11 in 12 files", "1 file refused", "student.onnx, 8 dimensions; HNSW8, recall@10 1.000"):
        assert part in text
    assert "unfinished" not in text
    (index.path / "unfinished").mkdir()
    assert "unfinished" in str(describe_index(index.path))


def test_a_sound_index_has_no_faults(index: Index):
    assert verify_index(index.path) == []


def test_exact_search_needs_no_second_copy_of_the_vectors(folder: Path, tmp_path: Path, student_file: Path):
    index = build_index([folder], OnnxEmbedder(student_file, "cpu"), tmp_path / "idx")
    assert index.ann("student") is None
    assert not any(name.endswith(".faiss") for name in index.manifest.files)
    facts = describe_index(index.path).spaces["student"]
    assert (facts.factory, facts.recall, facts.bytes_per_vector) == ("Flat", 1.0, 8 * 4)
    assert verify_index(index.path) == []


def test_every_file_is_checked(index: Index):
    for name in index.manifest.files:
        file = index.data / name
        whole = file.read_bytes()
        for broken, fault in (
            (whole[:-1], "bytes, not"),
            (bytes([whole[0] ^ 1]) + whole[1:], "is not as it was written"),
        ):
            file.write_bytes(broken)
            (line,) = verify_index(index.path)
            assert str(file) in line
            assert fault in line
        file.unlink()
        assert verify_index(index.path) == [f"{file} is missing"]
        file.write_bytes(whole)
    assert set(index.manifest.files) >= {"items.arrow", "errors.arrow", "student.onnx", "teacher.faiss"}


def test_vectors_are_checked_against_items_length_and_faiss(index: Index):
    whole = (index.data / "student.npy").read_bytes()
    vectors = np.frombuffer(whole, "<f4", offset=128).reshape(11, 8).copy()
    vectors[4] *= 2
    vectors[5, 0] = np.nan
    rewrite(index, "student.npy", whole[:128] + vectors.tobytes())
    assert any("2 vectors are not of unit length" in fault for fault in verify_index(index.path))
    others = np.flipud(np.frombuffer(whole, "<f4", offset=128).reshape(11, 8))
    rewrite(index, "student.npy", whole[:128] + others.tobytes())
    (fault,) = verify_index(index.path)
    assert fault.startswith("student: FAISS finds")


def test_a_faiss_file_of_other_vectors_is_found(index: Index, unit_rows):
    other = faiss.index_factory(8, "HNSW8", faiss.METRIC_INNER_PRODUCT)
    other.add(unit_rows(11, 8))
    rewrite(index, "student.faiss", faiss.serialize_index(other).tobytes())
    (fault,) = verify_index(index.path)
    assert fault.startswith("student: FAISS finds")
    other.add(unit_rows(1, 8))
    rewrite(index, "student.faiss", faiss.serialize_index(other).tobytes())
    assert verify_index(index.path) == ["student: the FAISS file has 12 vectors of 8, not (11, 8)"]


def spoil(file: Path, how: str) -> None:
    whole = file.read_bytes()
    middle = len(whole) // 2
    broken = {
        "cut": whole[:middle],
        "empty": b"",
        "head": bytes(byte ^ 255 for byte in whole[:64]) + whole[64:],
        "middle": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        "gone": whole,
    }
    file.write_bytes(broken[how])
    if how == "gone":
        file.unlink()


@pytest.mark.parametrize("how", ["cut", "empty", "head", "middle", "gone"])
def test_a_damaged_index_is_neither_updated_nor_compacted(index: Index, folder: Path, how: str):
    (folder / "1.png").unlink()  # there is something to do
    options = OnnxEmbedder(index.path.with_name("student.onnx"), "cpu"), index.path
    teacher = OnnxEmbedder(index.path.with_name("teacher.onnx"), "cpu")
    for name in ("student.npy", "items.arrow", "errors.arrow"):
        file, whole = index.data / name, (index.data / name).read_bytes()
        spoil(file, how)
        with pytest.raises(UsageError, match=rf"{name} .*Index the images again"):
            build_index([folder], *options, teacher, options=IndexOptions(update=True))
        with pytest.raises(UsageError, match=rf"{name} .*Index the images again"):
            compact_index(index.path)
        file.write_bytes(whole)
    assert Index(index.path).manifest == index.manifest
    assert len(build_index([folder], *options, teacher, options=IndexOptions(update=True))) == len(index) - 1


def test_an_update_without_changes_sees_a_file_that_was_cut(folder: Path, tmp_path: Path, student_file: Path):
    student = OnnxEmbedder(student_file, "cpu")
    index = build_index([folder], student, tmp_path / "idx")
    spoil(index.data / "student.npy", "cut")
    for options in ({"update": True}, {"resume": True}):
        with pytest.raises(UsageError, match=r"student\.npy has .*without --update or --resume"):
            build_index([folder], student, index.path, options=IndexOptions(**options))
    assert verify_index(build_index([folder], student, index.path).path) == []


def test_compacting_drops_what_is_gone_and_keeps_the_copies(index: Index, folder: Path):
    before = index.items
    for name in ("0.png", "1.png", "3.png"):
        (folder / name).unlink()
    (index.path / "data-99").mkdir()
    (index.path / "data-99" / "dead").write_bytes(bytes(100_000))
    vectors = {item.digest: row.tobytes() for item, row in zip(before, index.vectors("teacher"), strict=True)}
    done = compact_index(index.path)
    assert done.files == 3
    assert done.bytes > 90_000
    after = Index(index.path)
    assert [item.name for item in after.items[:2]] == ["more/copy.png", "2.png"]
    assert not after.items[0].copies
    assert after.manifest.failed == 0
    del vectors[before[1].digest]
    rows = after.vectors("teacher")
    assert {item.digest: row.tobytes() for item, row in zip(after.items, rows, strict=True)} == vectors
    assert verify_index(index.path) == []
    assert compact_index(index.path).files == 0
    assert Index(index.path).manifest == after.manifest


def as_former(index: Index) -> None:
    """Make of an index what the version before wrote: tables in Parquet, and no sorted digests."""
    files = dict(index.manifest.files)
    tables = {"items": index.items, "errors": index.failures, "metadata": None}
    for name, records in tables.items():
        rows = (
            decode(index.parts_known[0])
            if records is None
            else pa.Table.from_pylist(list(map(asdict, records)))
        )
        pq.write_table(rows, file := index.data / f"{name}.parquet")
        (index.data / f"{name}.arrow").unlink()
        del files[f"{name}.arrow"]
        files[file.name] = Stored(file.stat().st_size, file_digest(file))
    (index.data / "digests.npy").unlink()
    del files["digests.npy"]
    manifest = asdict(index.manifest) | {
        "format": 2,
        "files": {key: asdict(file) for key, file in files.items()},
    }
    (index.path / "manifest.json").write_text(json.dumps(manifest))


def test_an_index_of_the_version_before_is_refused_with_what_converts_it(index: Index, folder: Path, capsys):
    student, teacher = (
        OnnxEmbedder(index.model_file, "cpu"),
        OnnxEmbedder(index.path.with_name("teacher.onnx")),
    )
    (folder / "table.csv").write_text("path,colour\n0.png,red\nmore/copy.png,blue\n1.png,red\n")
    options = IndexOptions(update=True, metadata=folder / "table.csv")
    index = build_index([folder], student, index.path, teacher, options=options)
    items, failures, rows = list(index.items), index.failures, [index.metadata_of(i) for i in range(11)]
    vectors = {space: index.rows(space).copy() for space in index.manifest.spaces}
    assert rows[:2] == [{"colour": "red; blue"}, {"colour": "red"}]
    as_former(index)
    again = f"is of an earlier version. Convert it: retrieval index compact {index.path}"
    for use in (describe_index, verify_index, Index):
        with pytest.raises(UsageError, match=re.escape(again)):
            use(index.path)
    with pytest.raises(UsageError, match=re.escape(again)):
        build_index([folder], student, index.path, teacher)
    (folder / "1.png").unlink()  # conversion alone drops nothing
    assert compact_index(index.path).files == 0
    assert verify_index(index.path) == []
    now = Index(index.path)
    assert (list(now.items), now.failures) == (items, failures)
    assert [now.metadata_of(i) for i in range(11)] == rows
    for space, kept in vectors.items():
        np.testing.assert_array_equal(now.rows(space), kept)
    assert not list(now.data.glob("*.parquet"))
    assert compact_index(index.path).files == 1


def test_an_index_is_not_compacted_to_nothing(index: Index, folder: Path):
    shutil.rmtree(folder)
    with pytest.raises(RetrievalError, match=r"None of the images .* Is a disk missing\? All was left"):
        compact_index(index.path)
    assert Index(index.path).manifest == index.manifest
    assert verify_index(index.path) == []


def test_only_an_index_is_looked_after(tmp_path: Path):
    for look_after in (compact_index, describe_index, verify_index):
        with pytest.raises(UsageError, match="is not an index"):
            look_after(tmp_path)


def test_compacting_what_is_whole_writes_nothing(folder: Path, tmp_path: Path, student_file: Path):
    (folder / "table.csv").write_text("path,price\n3.png,7\n1.png,20\nmore/10.jpg,\n")
    options = IndexOptions(metadata=folder / "table.csv")
    index = build_index([folder], OnnxEmbedder(student_file), tmp_path / "idx", options=options)
    assert compact_index(index.path).files == 0
    assert Index(index.path).manifest == index.manifest
    (folder / "3.png").unlink()
    assert compact_index(index.path).files == 1
    left = Index(index.path)
    assert left.manifest.generation == 2
    assert sorted(left.metadata_of(i).get("price", "-") for i in range(11)) == ["", *["-"] * 9, "20"]


def test_what_is_left_of_an_index_may_be_too_little_for_its_factory(
    folder: Path, tmp_path: Path, student_file: Path
):
    options = IndexOptions(factory="IVF8,Flat", recall=0.9)
    index = build_index([folder], OnnxEmbedder(student_file), tmp_path / "idx", options=options)
    for i in range(6):
        (folder / f"{i}.png").unlink()
    assert compact_index(index.path).files == 6
    left = Index(index.path).manifest.spaces["student"]
    assert (left.factory, left.asked, left.given) == ("Flat", 0.9, False)
    assert verify_index(index.path) == []

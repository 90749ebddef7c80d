import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.ann import build_ann
from index.embedder import OnnxEmbedder
from index.errors import UsageError
from index.store import Failure, Index, IndexWriter, Item
from index.tuning import Served


def item(i: int) -> Item:
    return Item(f"/photos/{i}.jpg", f"{i}.jpg", f"{i:032x}", 100 + i, 40, 30, 1_700_000_000)


def write(out: Path, rows: np.ndarray, sizes: list[int], model: OnnxEmbedder | None = None) -> Index:
    with IndexWriter(out) as writer:
        writer.add_space("student", "key-of-the-student", "student.onnx", rows.shape[1])
        start = 0
        for size in sizes:
            stop = start + size
            writer.append([item(i) for i in range(start, stop)], {"student": rows[start:stop]}, [])
            start = stop
        writer.append([], {}, [Failure("/photos/bad.jpg", "empty file")])
        vectors = writer.finish_vectors()["student"]
        writer.add_ann("student", build_ann(vectors, "Flat"), Served("Flat", 0, 0, 1.0, 0.1))
        if model:
            writer.keep_model(model)
        return writer.commit(None)


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.integers(0, 7), min_size=1, max_size=6), dim=st.integers(1, 9))
def test_what_is_written_in_pieces_is_read_whole(tmp_path_factory, sizes, dim):
    out = tmp_path_factory.mktemp("store") / "idx"
    rows = np.random.default_rng(0).normal(size=(sum(sizes), dim)).astype(np.float32)
    if not len(rows):
        return
    index = write(out, rows, sizes)
    assert len(index) == len(rows)
    np.testing.assert_array_equal(index.vectors("student"), rows)
    assert index.items == [item(i) for i in range(len(rows))]
    assert index.failures == [Failure("/photos/bad.jpg", "empty file")]
    assert index.ann("student").ntotal == len(rows)


def test_the_model_travels_with_the_index(tmp_path: Path, student_file: Path, unit_rows):
    model = OnnxEmbedder(student_file)
    index = write(tmp_path / "idx", unit_rows(5, 8), [5], model)
    assert OnnxEmbedder(index.model_file).key == model.key


def test_another_model_is_refused_by_name(tmp_path: Path, unit_rows):
    index = write(tmp_path / "idx", unit_rows(5, 8), [5])
    index.require_model("student", "key-of-the-student", "student.onnx")
    with pytest.raises(UsageError, match=r"made with another student: student\.onnx .* not other\.onnx"):
        index.require_model("student", "another-key", "other.onnx")


def test_a_crash_leaves_the_old_index_and_nothing_else(tmp_path: Path, unit_rows):
    out = tmp_path / "idx"
    write(out, unit_rows(5, 8), [5])

    def fail_half_way() -> None:
        with IndexWriter(out) as writer:
            writer.add_space("student", "k", "m", 8)
            writer.append([item(0)], {"student": unit_rows(1, 8)}, [])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_half_way()
    assert len(Index(out)) == 5
    assert list(tmp_path.iterdir()) == [out]


def test_a_new_index_replaces_the_old_one(tmp_path: Path, unit_rows):
    out = tmp_path / "idx"
    write(out, unit_rows(5, 8), [5])
    assert len(write(out, unit_rows(3, 8), [3])) == 3
    assert list(tmp_path.iterdir()) == [out]


def test_nothing_but_an_index_is_ever_replaced(tmp_path: Path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match="exists and is not an index"):
        IndexWriter(precious)
    with pytest.raises(UsageError, match="does not exist"):
        IndexWriter(tmp_path / "no" / "idx")


def test_what_is_no_index_is_refused(tmp_path: Path, unit_rows):
    with pytest.raises(UsageError, match="is not an index"):
        Index(tmp_path)
    out = tmp_path / "idx"
    write(out, unit_rows(2, 8), [2])
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))
    with pytest.raises(UsageError, match="format 99"):
        Index(out)
    (out / "manifest.json").write_text("{")
    with pytest.raises(UsageError, match="is not an index"):
        Index(out)

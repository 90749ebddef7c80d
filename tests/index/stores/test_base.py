"""The store that docs/stores.md shows."""

import re
from errno import ENOSPC
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_embedder

from index import vectors
from index.build.pipeline import build, build_index
from index.embedders.onnx import OnnxEmbedder
from index.errors import RetrievalError, UsageError
from index.evaluation.evaluate import Labelled, evaluate_labelled
from index.evaluation.rankings import Options
from index.images.file import ImageFile
from index.search import Searcher
from index.stores import maintenance
from index.stores.filters import Filter
from index.stores.models import Models
from index.stores.options import IndexOptions
from index.vectors import VectorType

DOCUMENT = Path(__file__).parents[3] / "docs" / "stores.md"


@pytest.fixture
def shown() -> dict[str, Any]:
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.S)
    names: dict[str, Any] = {}
    exec(code, names)
    return names


def test_a_store_in_memory_finds_what_the_index_folder_finds(
    shown, tmp_path: Path, folder: Path, student_file: Path, teacher_file: Path
):
    student, teacher = OnnxEmbedder(student_file), OnnxEmbedder(teacher_file)
    (folder / "broken.png").write_bytes(b"no image")
    report = build([folder], Models(student, teacher), shown["MemoryStore"](tmp_path / "work"))
    assert (report.summary, len(report.failures)) == ("12 images in memory", 1)
    assert not (tmp_path / "work").exists()
    local = build_index([folder], student, tmp_path / "idx", teacher)
    both = Searcher(report.store, student, teacher), Searcher(local, student, teacher)
    assert both[0].modes == both[1].modes == ["student", "teacher", "rerank"]
    queries = {space: local.rows(space, np.arange(3)) for space in ("student", "teacher")}
    for mode in both[0].modes:
        for narrow in (None, Filter(prefix="more/"), Filter(cut=0.9)):
            found = []
            for searcher in both:
                if mode == "rerank":
                    results = searcher.search(queries["student"], mode, 6, (), narrow, queries["teacher"])
                else:
                    results = searcher.search(queries[mode], mode, 6, (), narrow)
                kept = results.ids >= 0
                found.append((results.ids[kept].tolist(), results.scores[kept]))
            assert found[0][0] == found[1][0], (mode, narrow)
            np.testing.assert_allclose(found[0][1], found[1][1], atol=1e-5)
    with pytest.raises(UsageError, match="no column 'size'"):
        report.store.keep(Filter(columns={"size": "1"}))
    with pytest.raises(UsageError, match="made with another student"):
        Searcher(report.store, OnnxEmbedder(write_embedder(tmp_path / "other.onnx", dim=8, seed=9)))


def test_what_a_store_could_not_take_is_kept_for_the_next_run(
    shown, tmp_path: Path, folder: Path, student_file: Path, monkeypatch
):
    class Full(shown["MemoryStore"]):
        def put(self, content):
            raise OSError(ENOSPC, "no space")

    student, work = OnnxEmbedder(student_file), tmp_path / "work"
    with pytest.raises(RetrievalError, match="is full"):
        build([folder], Models(student), Full(work))
    monkeypatch.setattr(OnnxEmbedder, "embed", lambda *_: pytest.fail("embedded again"))
    report = build([folder], Models(student), shown["MemoryStore"](work), IndexOptions(resume=True))
    assert len(report.store) == 12


def test_binary_codes_pass_through_as_soon_as_there_are_their_type_and_an_embedder(
    shown, tmp_path: Path, folder: Path, monkeypatch
):
    """As docs/architecture.md says: journal, store, search, check and evaluation do not change."""

    def similarity(self: VectorType, queries, rows):
        apart = np.unpackbits(queries[:, None] ^ rows[None], axis=2).mean(axis=2, dtype=np.float32)
        return 1 - apart

    class Codes(OnnxEmbedder):
        def __init__(self, path: Path):
            super().__init__(path)
            self.dim, self.vector_type = 2, VectorType("uint8", "hamming")

        def embed(self, batch):
            return np.packbits(super().embed(batch) > 0, axis=1)

    monkeypatch.setattr(vectors, "KNOWN", {("uint8", "hamming")} | vectors.KNOWN)
    monkeypatch.setattr(VectorType, "similarity", similarity)
    monkeypatch.setattr(VectorType, "is_damaged", lambda self, rows: np.zeros(len(rows), bool))
    student = Codes(write_embedder(tmp_path / "codes.onnx", dim=16, seed=1))
    store = build([folder], Models(student), shown["MemoryStore"](tmp_path / "work")).store
    codes = store.rows("student")
    assert (codes.dtype, codes.shape) == (np.uint8, (12, 2))
    monkeypatch.setattr(maintenance, "open_store", lambda where: store)
    assert maintenance.verify_index("memory") == []
    searcher = Searcher(store, student)
    found = searcher.search(codes[:3], "student", 4)
    truth = np.sort(1 - np.unpackbits(codes[:3, None] ^ codes[None], axis=2).mean(axis=2), axis=1)[:, ::-1]
    np.testing.assert_allclose(found.scores, truth[:, :4], atol=1e-6)
    files = [ImageFile(Path(item.path), item.name) for item in store.items]
    labelled = [Labelled(file, str(i % 2)) for i, file in enumerate(files)]
    scores = evaluate_labelled(searcher, labelled, labelled, Options())
    assert 0 < scores["student"]["mAP"] <= 1

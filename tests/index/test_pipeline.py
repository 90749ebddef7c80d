import pytest

from index.embedder import OnnxEmbedder
from index.errors import RetrievalError, UsageError
from index.pipeline import build_index


def test_an_index_lists_what_it_refused(folder, tmp_path, student_file):
    (folder / "3.png").write_text("no picture")
    index = build_index([folder], OnnxEmbedder(student_file), tmp_path / "idx")
    assert len(index) == 11
    assert index.manifest.failed == 1
    assert index.failures[0].path == str(folder / "3.png")
    assert index.manifest.spaces["student"].recall == 1.0


def test_an_index_of_nothing_readable_fails_and_leaves_nothing(tmp_path, student_file):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_text("text")
    with pytest.raises(RetrievalError, match=r"None of 1 images could be read.*a\.jpg: not an image"):
        build_index([tmp_path / "images"], OnnxEmbedder(student_file), tmp_path / "idx")
    assert not (tmp_path / "idx").exists()


def test_a_wrong_factory_leaves_nothing(folder, tmp_path, student_file):
    with pytest.raises(UsageError, match="--factory Wrong"):
        build_index([folder], OnnxEmbedder(student_file), tmp_path / "idx", factory="Wrong")
    assert not (tmp_path / "idx").exists()

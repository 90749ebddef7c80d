import json
import os
from dataclasses import asdict

import pytest

from index.embedder import OnnxEmbedder
from index.errors import RetrievalError, UsageError
from index.image_file import text_to_path
from index.pipeline import build_index
from index.store import Index
from index.upkeep import describe_index


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


def test_sources_and_models_may_have_any_name_and_the_index_one_in_utf8(folder, tmp_path, student_file):
    odd = folder.rename(tmp_path / os.fsdecode(b"pho\xfftos\n"))
    student = OnnxEmbedder(student_file.rename(tmp_path / os.fsdecode(b"stu\xffdent.onnx")))
    made = build_index([odd], student, tmp_path / "idx")
    assert len(made) == len(build_index([odd], student, tmp_path / "idx", update=True)) == 12
    assert [text_to_path(source) for source in made.manifest.sources] == [odd]
    json.dumps(asdict(describe_index(made.path)), ensure_ascii=False).encode()
    out = tmp_path / os.fsdecode(b"i\xffdx")
    with pytest.raises(UsageError, match="is not UTF-8"):
        build_index([odd], student, out)
    assert not out.exists()
    made.path.rename(out)
    with pytest.raises(UsageError, match="is not UTF-8"):
        Index(out)

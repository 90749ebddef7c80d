import json
import os
from dataclasses import asdict

import pytest

from index.build.pipeline import build_index
from index.build.rewrite import compact_index
from index.embedders.onnx import OnnxEmbedder
from index.errors import RetrievalError, UsageError
from index.images.file import text_to_path
from index.stores.folder import Index
from index.stores.maintenance import describe_index
from index.stores.options import IndexOptions, SearchTarget


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
    with pytest.raises(RetrievalError, match=r"None of 1 image could be read.*a\.jpg: not an image"):
        build_index([tmp_path / "images"], OnnxEmbedder(student_file), tmp_path / "idx")
    assert not (tmp_path / "idx").exists()


def test_a_wrong_factory_leaves_nothing(folder, tmp_path, student_file):
    with pytest.raises(UsageError, match="--factory Wrong"):
        build_index(
            [folder], OnnxEmbedder(student_file), tmp_path / "idx", options=IndexOptions(factory="Wrong")
        )
    assert not (tmp_path / "idx").exists()


def test_sources_and_models_may_have_any_name_and_the_index_one_in_utf8(folder, tmp_path, student_file):
    odd = folder.rename(tmp_path / os.fsdecode(b"pho\xfftos\n"))
    student = OnnxEmbedder(student_file.rename(tmp_path / os.fsdecode(b"stu\xffdent.onnx")))
    made = build_index([odd], student, tmp_path / "idx")
    assert (
        len(made)
        == len(build_index([odd], student, tmp_path / "idx", options=IndexOptions(update=True)))
        == 12
    )
    assert [text_to_path(source) for source in made.manifest.sources] == [odd]
    json.dumps(asdict(describe_index(made.path)), ensure_ascii=False).encode()
    out = tmp_path / os.fsdecode(b"i\xffdx")
    with pytest.raises(UsageError, match="is not UTF-8"):
        build_index([odd], student, out)
    assert not out.exists()
    made.path.rename(out)
    with pytest.raises(UsageError, match="is not UTF-8"):
        Index(out)


def test_an_index_larger_than_the_memory_allowed_is_said(folder, tmp_path, student_file, capsys):
    for memory, said in ((1.0, False), (1e-7, True)):
        need = SearchTarget(memory=memory)
        build_index(
            [folder],
            OnnxEmbedder(student_file),
            tmp_path / "idx",
            options=IndexOptions(factory="HNSW8", target=need),
        )
        assert ("GiB, more than --memory 1e-07 allows" in capsys.readouterr().err) == said
    (folder / "0.png").unlink()
    compact_index(tmp_path / "idx")
    assert "more than" not in capsys.readouterr().err

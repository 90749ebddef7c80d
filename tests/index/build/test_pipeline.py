import errno
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from conftest import png, write_shard

from index import io
from index.build import embed_missing
from index.build.pipeline import build_by_name, build_index
from index.build.rewrite import compact_index
from index.embedders.onnx import OnnxEmbedder
from index.embedders.options import EmbedderOptions
from index.embedders.vectors_file import write_vectors
from index.errors import RetrievalError, UsageError
from index.images import tar
from index.images.file import text_to_path
from index.stores.folder import Index
from index.stores.maintenance import describe_index
from index.stores.options import IndexOptions
from index.stores.writing.store import FolderStore
from index.teachers.spec import TeacherSpec


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
        options = IndexOptions(factory="HNSW8", memory=memory)
        build_index([folder], OnnxEmbedder(student_file), tmp_path / "idx", options=options)
        assert ("GiB, more than --memory 1e-07 allows" in capsys.readouterr().err) == said
    (folder / "0.png").unlink()
    compact_index(tmp_path / "idx")
    assert "more than" not in capsys.readouterr().err


def test_an_update_keeps_what_was_asked_before(folder, tmp_path, student_file):
    def make(**options):
        student = OnnxEmbedder(student_file)
        made = build_index([folder], student, tmp_path / "idx", options=IndexOptions(**options)).manifest
        space = made.spaces["student"]
        return made.generation, space.factory, space.asked, space.memory

    assert make(factory="HNSW8", recall=0.9, memory=2.0) == (1, "HNSW8", 0.9, 2.0)
    assert make(update=True) == (1, "HNSW8", 0.9, 2.0)  # not written again
    (folder / "0.png").unlink()
    assert make(update=True) == (2, "HNSW8", 0.9, 2.0)
    assert make(update=True, recall=0.8) == (3, "HNSW8", 0.8, 2.0)
    assert make(update=True, factory="auto") == (4, "Flat", 0.8, 2.0)
    assert make() == (5, "Flat", 0.95, 1.0)  # a new one


def test_an_index_in_the_place_of_one_with_more_says_so(folder, tmp_path, student_file, teacher_file):
    (tmp_path / "table.csv").write_text("path,colour\n0.png,red\n")
    teacher, options = TeacherSpec(str(teacher_file)), IndexOptions(metadata=tmp_path / "table.csv")
    told = "The index that was there had a teacher and metadata; this one was not given any."
    for spec, given, said in ((teacher, options, False), (TeacherSpec(), IndexOptions(), True)):
        store = FolderStore(tmp_path / "idx")
        report = build_by_name([folder], student_file, store, spec, "cpu", given)
        assert (told in report.notes) == said


def test_an_update_to_too_few_images_for_the_factory_of_before_chooses_another(
    folder, tmp_path, student_file
):
    student, out = OnnxEmbedder(student_file), tmp_path / "idx"
    build_index([folder], student, out, options=IndexOptions(factory="IVF8,Flat"))
    for i in range(6):
        (folder / f"{i}.png").unlink()
    made = build_index([folder], student, out, options=IndexOptions(update=True))
    assert (len(made), made.manifest.spaces["student"].factory) == (6, "Flat")


def test_copies_of_what_cannot_be_read_take_one_more_round(folder, tmp_path, student_file, monkeypatch):
    for i in range(40):
        (folder / f"saved-{i}.jpg").write_bytes(b"<html>no photo</html>")
    rounds = []
    embed = embed_missing.embed_files

    def count(*args, **how):
        rounds.append(1)
        return embed(*args, **how)

    monkeypatch.setattr(embed_missing, "embed_files", count)
    index = build_index([folder], OnnxEmbedder(student_file), tmp_path / "idx")
    assert (len(index), index.manifest.failed) == (12, 40)
    assert len({failure.reason for failure in index.failures}) == 1
    assert len(rounds) <= 3


def test_an_index_that_is_interrupted_when_it_is_named_stays(folder, tmp_path, student_file, monkeypatch):
    out = tmp_path / "idx"
    build_index([folder], OnnxEmbedder(student_file), out)
    (folder / "new.png").write_bytes((folder / "1.png").read_bytes() + b"more")
    real = io.sync

    def sync(path):
        real(path)
        if path == out:  # the new manifest is in its place
            raise KeyboardInterrupt

    monkeypatch.setattr(io, "sync", sync)
    with pytest.raises(KeyboardInterrupt):
        build_index([folder], OnnxEmbedder(student_file), out, options=IndexOptions(update=True))
    assert len(Index(out).items) == 13


def test_an_image_that_may_not_be_looked_at_is_not_gone(folder, tmp_path, student_file, monkeypatch):
    index = build_index([folder], OnnxEmbedder(student_file), tmp_path / "idx")
    names, stat = {item.name for item in index.items}, Path.stat

    def refuse(path, **how):
        if path.name == "3.png":
            raise PermissionError(errno.EACCES, "Permission denied")
        return stat(path, **how)

    (folder / "4.png").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", refuse)
        compact_index(index.path)
    assert {item.name for item in Index(index.path).items} == names - {"4.png"}


def test_members_of_a_shard_that_cannot_be_opened_are_not_gone(tmp_path, student_file, monkeypatch):
    shard = write_shard(tmp_path / "a.tar", [(f"{i}.png", png(i)) for i in range(3)])
    student = OnnxEmbedder(student_file)
    index = build_index([shard], student, tmp_path / "idx")
    os.utime(shard, ns=(0, 0))  # what was known of it counts no more

    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(tar, "FileIO", refuse)
        assert compact_index(index.path).files == 0
        with pytest.raises(UsageError, match=r"a\.tar cannot be read: Permission denied"):
            build_index([shard], student, index.path, options=IndexOptions(update=True))
    assert len(Index(index.path)) == 3
    write_shard(shard, [("1.png", png(1))])
    assert compact_index(index.path).files == 2


def test_a_copy_whose_twin_has_no_vector_by_its_name_is_kept(folder, tmp_path, student_file):
    shutil.copyfile(folder / "0.png", folder / "twin.png")
    names = ["twin.png", *(f"{i}.png" for i in range(1, 10)), "more/10.jpg", "more/11.jpg"]
    write_vectors(tmp_path / "t.npz", 3, [(names, np.eye(3, dtype=np.float32)[np.arange(12) % 3])])
    teacher = TeacherSpec(str(tmp_path / "t.npz"), EmbedderOptions(allow_missing=True))
    made = build_by_name([folder], student_file, FolderStore(tmp_path / "idx"), teacher, "cpu").store
    assert "twin.png" in {file.name for item in made.items for file in item.files}


def test_of_many_copies_the_one_that_has_a_vector_by_its_name_is_kept(tmp_path, student_file):
    """More than are read ahead: none is refused for what another of them lacks."""
    copies = tmp_path / "copies"
    copies.mkdir()
    for i in range(70):
        (copies / f"{i:02}.png").write_bytes(png(1))
    write_vectors(tmp_path / "t.npz", 3, [(["69.png"], np.eye(1, 3, dtype=np.float32))])
    teacher = TeacherSpec(str(tmp_path / "t.npz"), EmbedderOptions(allow_missing=True))
    report = build_by_name([copies], student_file, FolderStore(tmp_path / "idx"), teacher, "cpu")
    assert [item.path for item in report.store.items] == [str(copies / "69.png")]
    assert len(report.store.failures) == 69

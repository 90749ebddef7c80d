"""Distilling reads each photo once and decodes it once: for its digest, its features and its answer."""

import copy
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import picture, png

from distill import photos
from distill.ask import Task, TeacherAnswers, consult
from distill.options import Options
from distill.photos import PhotoReader
from distill.pipeline import read_student_pool
from distill.pool import MOST, Pool
from distill.training.device import open_fabric
from index.embedders.onnx import OnnxEmbedder
from index.embedders.options import EmbedderOptions
from index.embedders.registry import open_embedder
from index.errors import ImageError
from index.images.file import ImageFile
from index.images.sources import find_images
from index.teachers.ledger import Ledger

fsspec = pytest.importorskip("fsspec")
OPTIONS = Options(budget=8, student="test_efficientnet", weights="none", size=32, dim=6, device="cpu")


@pytest.fixture(params=["folder", "memory"])
def source(request, tmp_path: Path):
    """Ten pictures here, or in an object store."""
    if request.param == "folder":
        (tmp_path / "pool").mkdir()
        for i in range(10):
            picture(i).save(tmp_path / "pool" / f"{i}.png")
        yield str(tmp_path / "pool")
        return
    store = fsspec.filesystem("memory")
    for i in range(10):
        store.pipe(f"/photos/{i}.png", png(i))
    store.pipe("/photos/list.txt", "\n".join(f"{i}.png" for i in range(10)).encode())
    yield "memory://photos/list.txt"
    store.store.clear()
    store.pseudo_dirs[:] = [""]


def ask(source: str, teacher, ledger: Path, options: Options = OPTIONS) -> tuple[Pool, TeacherAnswers]:
    with Ledger(ledger, teacher.key) as paid:
        task = Task(teacher, paid, options, open_fabric("cpu"))
        pool = read_student_pool(task, find_images([source]), MOST)
        return pool, consult(task, pool)


def mean(images):
    return np.stack([np.asarray(image, np.float32).mean((0, 1)) for image in images])


def once(names: Counter) -> bool:
    pictures = {name: times for name, times in names.items() if name.endswith((".png", ".jpg"))}
    return len(pictures) == 10 and set(pictures.values()) == {1}


@pytest.mark.parametrize("price", [False, True])
def test_a_photo_is_read_and_decoded_once(source, tmp_path, counted, teacher_file, price):
    teacher = OnnxEmbedder(teacher_file, "cpu")
    if price:
        teacher = open_embedder(mean, options=EmbedderOptions(batch=3))
    _, answered = ask(source, teacher, tmp_path / "l.sqlite")
    assert answered.asked == 8
    assert all(map(once, counted))
    for names in counted:
        names.clear()
    assert ask(source, teacher, tmp_path / "l.sqlite")[1].asked == 0
    assert all(map(once, counted))


def test_so_is_a_photo_like_those_that_will_be_searched_with(source, tmp_path, counted, teacher_file):
    (tmp_path / "queries").mkdir()
    for i in range(20, 26):
        picture(i).save(tmp_path / "queries" / f"q{i}.jpg")
    options = replace(OPTIONS, budget=10, queries=(str(tmp_path / "queries"),))
    _, answered = ask(source, OnnxEmbedder(teacher_file, "cpu"), tmp_path / "l.sqlite", options)
    assert answered.asked == 10
    assert len(answered.queries.pixels) == 2
    reads, decodes = ({name: times for name, times in names.items() if name[0] == "q"} for names in counted)
    assert list(reads.values()) == [1] * 6
    assert set(decodes.values()) == {1}


@pytest.mark.parametrize(("room", "read", "decoded"), [(0, 3, 2), (9000, 1, 2)])
def test_without_room_photos_are_read_or_decoded_again(
    source, tmp_path, counted, teacher_file, monkeypatch, room, read, decoded
):
    """Bytes are kept before pixels, which take more."""
    kept = ask(source, OnnxEmbedder(teacher_file, "cpu"), tmp_path / "kept.sqlite")[1]
    for names in counted:
        names.clear()
    sizes = sum(len(file.read()[0]) for file in find_images([source]))
    monkeypatch.setattr(photos, "ROOM", room and sizes)
    counted[0].clear()
    again = ask(source, OnnxEmbedder(teacher_file, "cpu"), tmp_path / "again.sqlite")[1]
    assert again.digests == kept.digests
    np.testing.assert_array_equal(again.vectors, kept.vectors)
    assert [max(names.values()) for names in counted] == [read, decoded]


def test_a_photo_that_cannot_be_read_is_tried_once(tmp_path, counted):
    reader, gone = PhotoReader(), ImageFile(tmp_path / "gone.png", "gone.png")
    digests = reader.digest([gone])
    assert reader.digest([gone]) == digests
    with pytest.raises(ImageError, match="No such file"):
        reader.read(gone, 8)
    assert counted[0]["gone.png"] == 1


def test_what_is_kept_does_not_go_to_another_process(folder, counted):
    reader, file = PhotoReader(), find_images([folder])[0]
    photo = reader.read(file, 8)
    assert reader.read(file, 8) is photo
    assert reader.__reduce__() == (PhotoReader, (0,)), "what another process is sent"
    other = copy.copy(reader)
    assert other.read(file, 8) == photo
    reader.forget()
    assert reader.read(file, 8) == photo
    assert counted[0][file.name] == 3

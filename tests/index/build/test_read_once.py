"""Each photo is read once and decoded once: for what it costs, for its answer and for its vectors."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import picture, png, write_embedder
from PIL import Image
from teacher_server import TeacherServer, serving

import index.build.embed_missing
from index.build.pipeline import build_index
from index.embedders.base import Calls
from index.embedders.callable import CallableEmbedder
from index.embedders.onnx import OnnxEmbedder
from index.embedders.options import EmbedderOptions
from index.embedders.registry import open_embedder
from index.errors import BudgetError
from index.images.sources import find_images
from index.stores.options import IndexOptions
from index.teachers.spec import TeacherSpec

fsspec = pytest.importorskip("fsspec")


@pytest.fixture(params=["folder", "memory"])
def source(request, folder: Path):
    """Twelve pictures here, or the first ten of them in an object store; all of one size but two."""
    if request.param == "folder":
        yield str(folder), 12
        return
    store = fsspec.filesystem("memory")
    names = [f"{i}.png" for i in range(10)]
    for i, name in enumerate(names):
        store.pipe(f"/photos/{name}", png(i))
    store.pipe("/photos/list.txt", "\n".join(names).encode())
    yield "memory://photos/list.txt", 10
    store.store.clear()
    store.pseudo_dirs[:] = [""]


def colours(images: list[Image.Image]) -> np.ndarray:
    """A teacher: the mean colour."""
    return np.stack([np.asarray(image, np.float32).mean((0, 1)) for image in images])


def student(tmp_path: Path) -> OnnxEmbedder:
    return OnnxEmbedder(write_embedder(tmp_path / "s.onnx"), "cpu")


def with_callable(tmp_path: Path, budget: int, batch: int = 4):
    options = EmbedderOptions(batch=batch)
    opened = CallableEmbedder(colours, options)
    ledger = tmp_path / "callable.sqlite"
    return TeacherSpec("colours", options, ledger, budget, opened).open("cpu")


def once(names: Counter, wanted: int) -> bool:
    photos = {name: count for name, count in names.items() if name.endswith((".png", ".jpg"))}
    return len(photos) == wanted and set(photos.values()) == {1}


@pytest.mark.parametrize("teacher", [None, "onnx", "vectors"])
def test_without_a_price(source, tmp_path, counted, teacher_file, teacher):
    place, count = source
    opened = OnnxEmbedder(teacher_file, "cpu") if teacher == "onnx" else None
    if teacher == "vectors":
        names = [file.name for file in find_images([place])]
        np.savez(tmp_path / "v.npz", ids=names, vectors=np.eye(count, dtype=np.float32))
        opened = open_embedder(tmp_path / "v.npz")
        counted[0].clear()
    assert len(build_index([place], student(tmp_path), tmp_path / "i", opened)) == count
    assert all(once(names, count) for names in counted)


@pytest.mark.parametrize("spare", [0, 1, 100])
def test_with_a_callable(source, tmp_path, counted, spare):
    """The first time, and again when all answers are known."""
    place, count = source
    for out in ("first", "again"):
        for names in counted:
            names.clear()
        paid = with_callable(tmp_path, count + spare)
        made = build_index([place], student(tmp_path), tmp_path / out, paid)
        assert (len(made), paid.asked) == (count, count if out == "first" else 0)
        assert all(once(names, count) for names in counted)


def test_with_an_endpoint(source, tmp_path, counted, teacher_file):
    place, count = source
    with serving(TeacherServer(OnnxEmbedder(teacher_file, "cpu"))) as url:
        spec = TeacherSpec(url, EmbedderOptions(batch=4), tmp_path / "l.sqlite", count)
        build_index([place], student(tmp_path), tmp_path / "i", spec.open("cpu"))
    assert all(once(names, count) for names in counted)


@pytest.mark.parametrize("paid", [False, True])
def test_photos_of_one_size_are_read_once_and_copies_not_decoded(folder, tmp_path, counted, paid):
    """Any of them may be a copy: that is found out from the bytes that were read."""
    for i in range(8):
        picture(i).save(folder / f"{i}.bmp")
    for i in range(3):
        (folder / f"copy{i}.bmp").write_bytes((folder / f"{i}.bmp").read_bytes())
    made = build_index(
        [folder], student(tmp_path), tmp_path / "i", with_callable(tmp_path, 20) if paid else None
    )
    reads, decodes = counted
    assert (len(made), made.manifest.copies) == (20, 3)
    assert len(reads) == 23
    assert set(reads.values()) == {1}
    assert len(decodes) == 20
    assert set(decodes.values()) == {1}


def test_a_budget_that_copies_make_enough_is_enough(folder, tmp_path, counted):
    """That is known only when all is read, which is once."""
    (folder / "copy.png").write_bytes((folder / "0.png").read_bytes())
    made = build_index([folder], student(tmp_path), tmp_path / "i", with_callable(tmp_path, 12))
    assert len(made) == 12
    reads, decodes = counted
    assert once(reads, 13)
    assert once(decodes, 12)


def test_what_memory_has_no_room_for_is_read_again(folder, tmp_path, counted, monkeypatch):
    monkeypatch.setattr(index.build.embed_missing, "HELD", 1)
    (folder / "copy.png").write_bytes((folder / "0.png").read_bytes())
    embedder, paid = student(tmp_path), with_callable(tmp_path, 12)
    embedder.calls = Calls(batch=4)
    made = build_index([folder], embedder, tmp_path / "i", paid)
    assert (len(made), paid.asked) == (12, 12)
    assert max(counted[0].values()) == 2


def test_a_budget_that_is_too_small_asks_nothing_and_reads_once(folder, tmp_path, counted):
    with pytest.raises(BudgetError, match=r"12 images to be asked about.*Nothing was asked.*--budget 12"):
        build_index([folder], student(tmp_path), tmp_path / "i", with_callable(tmp_path, 11))
    assert all(once(names, 12) for names in counted)
    assert not (tmp_path / "i").exists()


def test_what_is_answered_already_is_kept_when_the_budget_is_too_small_for_the_rest(folder, tmp_path, capsys):
    build_index([folder / "more"], student(tmp_path), tmp_path / "part", with_callable(tmp_path, 2))
    with pytest.raises(BudgetError, match="--budget 12"):
        build_index([folder], student(tmp_path), tmp_path / "i", with_callable(tmp_path, 11))
    assert "2 images embedded, and kept. Go on with --resume." in capsys.readouterr().err
    paid = with_callable(tmp_path, 12)
    resumed = IndexOptions(resume=True)
    made = build_index([folder], student(tmp_path), tmp_path / "i", paid, options=resumed)
    assert (len(made), paid.asked) == (12, 10)

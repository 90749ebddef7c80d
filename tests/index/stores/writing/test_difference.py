import os
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from conftest import picture

from index.build.journal import Journal
from index.build.pipeline import build_index
from index.embedders.onnx import OnnxEmbedder
from index.images.sources import find_images
from index.stores.folder import Index
from index.stores.maintenance import verify_index
from index.stores.metadata.join import list_files
from index.stores.options import IndexOptions
from index.stores.writing.difference import Difference


@pytest.fixture
def index(folder: Path, tmp_path: Path, student_file: Path) -> Index:
    for name in ("copy.png", "copy2.png"):
        shutil.copy(folder / "0.png", folder / "more" / name)
    return build_index([folder], OnnxEmbedder(student_file, "cpu"), tmp_path / "idx")


def holds_just(index: Index, files) -> bool:
    return Difference.between(index, files).is_none


def test_what_is_as_it_was_is_known_whatever_else_lies_there(index: Index, folder: Path):
    assert len(index) == 12
    (folder / "note.txt").write_text("no image")
    assert holds_just(index, find_images([folder]))


def test_texts_have_room_for_more_than_2_gib_together(index: Index, folder: Path):
    assert Difference.between(index, find_images([folder])).paths.type == pa.large_string()
    files = list_files(index.items)
    assert (files.schema.field("path").type, files.schema.field("digest").type) == (pa.large_string(),) * 2


def change_content(folder: Path) -> None:
    picture(99).save(folder / "5.png")


def touch(folder: Path) -> None:
    os.utime(folder / "5.png", ns=(1, 1))


def touch_copy(folder: Path) -> None:
    os.utime(folder / "more" / "copy2.png", ns=(1, 1))


def add(folder: Path) -> None:
    picture(98).save(folder / "z.png")


def add_copy(folder: Path) -> None:
    shutil.copy(folder / "0.png", folder / "z.png")


def remove_last(folder: Path) -> None:
    (folder / "more" / "copy2.png").unlink()


def remove_first(folder: Path) -> None:
    (folder / "0.png").unlink()


def rename(folder: Path) -> None:
    (folder / "5.png").rename(folder / "50.png")


def break_link(folder: Path) -> None:
    (folder / "5.png").unlink()
    (folder / "5.png").symlink_to(folder / "nothing")


@pytest.mark.parametrize(
    "change",
    [change_content, touch, touch_copy, add, add_copy, remove_last, remove_first, rename, break_link],
    ids=lambda change: change.__name__,
)
def test_every_change_is_seen(index: Index, folder: Path, change):
    change(folder)
    assert not holds_just(index, find_images([folder]))


def test_the_order_counts_where_it_shows(index: Index, folder: Path):
    files = list(find_images([folder]))
    place = {file.name: i for i, file in enumerate(files)}

    def swapped(one: str, other: str) -> list:
        i, j, changed = place[one], place[other], files.copy()
        changed[i], changed[j] = changed[j], changed[i]
        return changed

    assert not holds_just(index, swapped("4.png", "5.png"))
    assert not holds_just(index, swapped("0.png", "more/copy.png"))
    assert not holds_just(index, swapped("more/copy.png", "more/copy2.png"))
    assert holds_just(index, swapped("more/11.jpg", "more/copy.png"))  # as before, a copy of the first item


def test_a_refused_file_is_tried_again(folder: Path, tmp_path: Path, student_file: Path):
    (folder / "5.png").write_bytes(b"no image")
    index = build_index([folder], OnnxEmbedder(student_file, "cpu"), tmp_path / "idx")
    assert not holds_just(index, find_images([folder]))


def test_an_update_of_it_writes_nothing(index: Index, folder: Path, student_file: Path, monkeypatch):
    def update(**options: str) -> Index:
        return build_index(
            [folder],
            OnnxEmbedder(student_file, "cpu"),
            index.path,
            options=IndexOptions(update=True, **options),
        )

    monkeypatch.setattr(Journal, "adopt", lambda *_: pytest.fail("was written"))
    before = {path: path.stat().st_mtime_ns for path in index.path.rglob("*")}
    assert update().manifest == index.manifest
    assert {path: path.stat().st_mtime_ns for path in index.path.rglob("*")} == before
    monkeypatch.undo()
    assert update(factory="HNSW8").manifest.generation == 2  # what is asked of it can change, too


def test_what_has_the_same_contents_keeps_its_vectors(
    index: Index, folder: Path, student_file: Path, monkeypatch
):
    def update(**options: Path) -> Index:
        student = OnnxEmbedder(student_file, "cpu")
        return build_index([folder], student, index.path, options=IndexOptions(update=True, **options))

    vectors = (index.data / "student.npy").stat().st_ino
    (folder / "5.png").rename(folder / "50.png")  # which keeps its place
    (folder / "table.csv").write_text("path,colour\n50.png,red\n")
    made = update(metadata=folder / "table.csv")
    assert (made.manifest.generation, (made.data / "student.npy").stat().st_ino) == (2, vectors)
    assert [made.metadata_of(i) for i in range(12) if made.items[i].name == "50.png"] == [{"colour": "red"}]
    assert verify_index(index.path) == []
    (folder / "table.csv").write_text("path,colour\n50.png,blue\n")
    monkeypatch.setattr(Journal, "adopt", lambda *_: pytest.fail("looked through what is known"))
    made = update(metadata=folder / "table.csv")
    monkeypatch.undo()
    assert (made.columns, (made.data / "student.npy").stat().st_ino) == ({"colour": ["blue"]}, vectors)
    picture(99).save(folder / "5.png")
    assert (update().data / "student.npy").stat().st_ino != vectors

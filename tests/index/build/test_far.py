"""Whether an index says that its images are far from all that the student was taught on."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from index.build.pipeline import build_by_name
from index.build.taught import Taught
from index.images.sources import find_images
from index.stores.writing.store import FolderStore
from index.teachers.spec import TeacherSpec


@pytest.fixture
def taught(folder: Path, tmp_path: Path, student_file: Path) -> Taught:
    """The student of an index was taught on the very photos in it."""
    store = build_by_name([folder], student_file, FolderStore(tmp_path / "first"), TeacherSpec(), "cpu").store
    vectors = np.array(store.rows("student"))
    return Taught.measure(find_images([folder]), [item.digest for item in store.items], vectors)


@pytest.mark.parametrize(("farther", "warned"), [(0.0, False), (2.0, True)])
def test_far_images_are_counted(farther, warned, taught, folder, tmp_path, student_file, capsys):
    others = -taught.vectors if farther else taught.vectors  # what was taught is never far
    notes = replace(taught, radius=taught.radius + farther, vectors=others)
    notes.save(student_file.with_name("taught.npz"))
    build_by_name([folder], student_file, FolderStore(tmp_path / "second"), TeacherSpec(), "cpu")
    told = "Warning: 12 of 12 images are far from all that the student was taught on"
    said = capsys.readouterr().err
    assert (told in said) == warned == ("Warning" in said)


def test_a_few_of_the_very_photos_are_not_far(taught):
    notes = replace(taught, radius=2.0)
    assert not notes.are_far(taught.vectors[:3]).any()
    assert notes.are_far(-taught.vectors[:3]).all()


def test_what_lies_beside_the_student_fails_no_run(taught, folder, tmp_path, student_file, capsys):
    notes = student_file.with_name("taught.npz")
    for write, said in (
        (lambda: notes.write_bytes(b"text"), "does not say what the student was taught on"),
        (lambda: replace(taught, vectors=taught.vectors[:, :3]).save(notes), "is of another student"),
    ):
        write()
        store = FolderStore(tmp_path / "second")
        assert len(build_by_name([folder], student_file, store, TeacherSpec(), "cpu").store) == 12
        assert said in capsys.readouterr().err
        shutil.rmtree(tmp_path / "second")

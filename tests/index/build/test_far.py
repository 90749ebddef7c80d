"""Whether an index says that its images are far from all that the student was taught on."""

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
    notes = replace(taught, radius=taught.radius + farther)
    notes.save(student_file.with_name("taught.npz"))
    build_by_name([folder], student_file, FolderStore(tmp_path / "second"), TeacherSpec(), "cpu")
    told = "Warning: 12 of 12 images are far from all that the student was taught on"
    said = capsys.readouterr().err
    assert (told in said) == warned == ("Warning" in said)

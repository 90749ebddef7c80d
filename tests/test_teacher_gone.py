"""Everything works when the teacher is gone."""

from pathlib import Path

import pytest
from conftest import picture
from fastapi import FastAPI
from starlette.testclient import TestClient

from app.server.api import build_api
from app.server.concurrency import SharedSearcher
from index.build.pipeline import build_by_name
from index.errors import UsageError
from index.evaluation.evaluate import evaluate_by_name
from index.evaluation.rankings import Options
from index.images.decode import read_photo
from index.images.sources import find_images
from index.search import open_searcher
from index.stores.folder import Index
from index.stores.options import IndexOptions
from index.stores.writing.store import FolderStore
from index.teachers.spec import TeacherSpec

UPDATE = IndexOptions(update=True)


@pytest.fixture
def index(folder: Path, tmp_path: Path, student_file: Path, teacher_file: Path) -> Path:
    """An index with a teacher that was deleted since."""
    teacher = TeacherSpec(str(teacher_file))
    build_by_name([folder], student_file, FolderStore(tmp_path / "idx"), teacher, "cpu")
    teacher_file.unlink()
    return tmp_path / "idx"


def test_it_is_searched_served_and_scored_by_the_student(index, folder, tmp_path):
    searcher = open_searcher(index)
    assert searcher.modes == ["student"]
    photo = read_photo(find_images([folder])[0])
    with pytest.raises(UsageError, match="cannot be searched in mode 'teacher'"):
        searcher.find([photo], "teacher", 3)
    assert len(searcher.find([photo], "student", 3).results) == 1
    labels = tmp_path / "labels.csv"
    labels.write_text("path,label\n" + "".join(f"{folder}/{i}.png,{i % 2}\n" for i in range(10)))
    scores = evaluate_by_name(index, labels, labels, None, TeacherSpec(), "cpu", Options())
    assert "student" in scores
    app = FastAPI()
    app.include_router(build_api(SharedSearcher(searcher)))
    client = TestClient(app)
    sent = {"image": (folder / "0.png").read_bytes()}
    assert client.post("/search?mode=student&k=5", files=sent).status_code == 200
    assert "does not exist" in client.post("/search?mode=teacher", files=sent).text


def test_what_is_new_is_embedded_by_the_student_alone(index, folder, student_file, capsys):
    store = FolderStore(index)
    same = build_by_name([folder], student_file, store, TeacherSpec(), "cpu", UPDATE).store
    assert set(same.manifest.spaces) == {"student", "teacher"}  # nothing changed: its answers stay
    picture(77).save(folder / "new.png")
    made = build_by_name([folder], student_file, FolderStore(index), TeacherSpec(), "cpu", UPDATE).store
    assert "is gone" in capsys.readouterr().err
    assert len(made) == 13
    assert set(Index(index).manifest.spaces) == {"student"}


def test_a_teacher_that_is_there_is_not_forgotten(folder, tmp_path, student_file, teacher_file):
    teacher = TeacherSpec(str(teacher_file))
    build_by_name([folder], student_file, FolderStore(tmp_path / "idx"), teacher, "cpu")
    with pytest.raises(UsageError, match="Give the same models"):
        build_by_name([folder], student_file, FolderStore(tmp_path / "idx"), TeacherSpec(), "cpu", UPDATE)

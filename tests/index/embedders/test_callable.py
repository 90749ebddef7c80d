"""A callable as a teacher."""

import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import picture

from index.embedders.registry import open_embedder
from index.errors import CallError, UsageError
from index.images.decode import read_photo
from index.images.file import ImageFile
from index.images.sources import find_images
from index.teachers.ask import ask_about
from index.teachers.spec import TeacherSpec

MODULE = """
import numpy as np

def mean(images):
    assert all(image.mode == "RGB" for image in images)
    return [np.asarray(image).reshape(-1, 3).mean(axis=0) for image in images]

def picky(images):
    if any(np.asarray(image)[0, 0, 0] > LIMIT for image in images):
        raise ValueError("not this\\none")
    return mean(images)

class Deep:
    key = "2"
    def __call__(self, images):
        return mean(images)

class room:
    deep = Deep()

def text(images):
    return "no array"

def flat(images):
    return np.zeros(3)

constant = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch) -> str:
    (tmp_path / "teachers_of_test.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "teachers_of_test"
    sys.modules.pop("teachers_of_test", None)


def ask(files, paid):
    asked = list(ask_about(files, paid, len(files)))
    return [failure for some in asked for failure in some.failures]


def test_its_answers_are_kept_and_have_unit_length(module, folder, tmp_path):
    files = find_images([folder])
    paid = TeacherSpec(f"{module}:mean", ledger=tmp_path / "l.sqlite", budget=12).open("cpu")
    assert not ask(files, paid)
    photo = read_photo(files[0])
    wanted = np.asarray(photo.image, np.float64).reshape(-1, 3).mean(axis=0)
    np.testing.assert_allclose(
        paid.embed([paid.prepare(photo)])[0], wanted / np.linalg.norm(wanted), atol=1e-6
    )
    np.testing.assert_allclose(
        paid.ledger.answers([photo.digest])[photo.digest], wanted, rtol=1e-6
    )  # as it came
    assert (paid.dim, paid.asked) == (3, 12)


def test_one_that_raises_on_some_images_names_them(module, folder, tmp_path):
    files = find_images([folder])
    shades = {file.path: int(np.asarray(read_photo(file).image)[0, 0, 0]) for file in files}
    limit = shades[files[0].path]
    light = [path for path, shade in shades.items() if shade > limit]
    assert 0 < len(light) < 11
    paid = TeacherSpec(f"{module}:picky", ledger=tmp_path / "l.sqlite", budget=12).open("cpu")
    sys.modules[module].LIMIT = limit
    failures = ask(files, paid)
    assert sorted(failure.path for failure in failures) == sorted(map(str, light))
    assert all("picky raised ValueError: not this one" in failure.reason for failure in failures)
    assert paid.ledger.spent == len(paid.ledger) == 12 - len(light)


def test_its_identity_is_its_name_and_its_key(module):
    assert open_embedder(f"{module}:room.deep").key == f"python:{module}:room.deep#2"
    assert open_embedder(f"{module}:mean").key != open_embedder(f"{module}:picky").key


@pytest.mark.parametrize("name", ["text", "flat"])
def test_what_is_no_array_of_rows_is_refused(module, folder, name):
    model = open_embedder(f"{module}:{name}")
    photo = read_photo(find_images([folder])[0])
    with pytest.raises(CallError, match=r"returned str, no array|returned \(3,\) for 1 images"):
        model.embed([model.prepare(photo)])


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("no_such_module:mean", "cannot be imported: ModuleNotFoundError"),
        ("teachers_of_test:nothing", "cannot be imported: AttributeError"),
        ("teachers_of_test:constant", "cannot be called"),
    ],
)
def test_what_cannot_be_had(module, spec, complaint):
    with pytest.raises(UsageError, match=complaint):
        open_embedder(spec)


@pytest.mark.parametrize("body", ["import sys; sys.exit('bye')", "raise RuntimeError('bye')"])
def test_a_module_that_ends_itself_does_not_end_us(tmp_path, monkeypatch, body):
    (tmp_path / "unwilling_teacher.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match=r"cannot be imported: (SystemExit|RuntimeError): bye"):
        open_embedder("unwilling_teacher:embed")


def test_large_images_are_made_smaller(module, tmp_path):
    picture(0, 3000, 1500).save(tmp_path / "large.png")
    model = open_embedder(f"{module}:mean")
    assert model.prepare(read_photo(ImageFile(tmp_path / "large.png", "large.png"))).size == (1024, 512)

"""A callable as a teacher."""

import importlib
import sys
from functools import partial
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
from index.teachers.client import BudgetedTeacher
from index.teachers.ledger import Ledger
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
    with pytest.raises(CallError, match=r"returned str, no array|returned \(3,\) for 1 image"):
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


PROJECT = """
from app.weights import SCALE
import numpy as np

def embed(images):
    return [SCALE * np.asarray(image.resize((2, 2))).ravel() for image in images]
"""


@pytest.mark.parametrize("package", ["app", "index", "distill"])
@pytest.mark.parametrize("by", ["name", "file"])
def test_a_project_may_name_its_packages_as_we_do(tmp_path, monkeypatch, package, by):
    (tmp_path / package).mkdir()
    (tmp_path / package / "weights.py").write_text("SCALE = 3.0")
    (tmp_path / package / "model.py").write_text(PROJECT.replace("app", package))
    (tmp_path / "start.py").write_text(f"from {package}.model import embed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    ours, module = sys.modules["index"], sys.modules.get(f"{package}.model")
    model = open_embedder(f"{package}.model:embed" if by == "name" else str(tmp_path / "start.py:embed"))
    rows = model.embed([picture(0)])
    assert rows.shape == (1, 12)
    assert rows.max() > 255  # by the project's own weights
    assert sys.modules["index"] is ours
    assert package == "index" or sys.modules.get(f"{package}.model") is module


def test_a_file_is_named_by_its_path_and_known_by_its_code(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "deep").mkdir()
    path = tmp_path / "deep" / "model.py"
    path.write_text("import helper\ndef embed(images):\n    return [[helper.ONE, 2.0]] * len(images)\n")
    (tmp_path / "deep" / "helper.py").write_text("ONE = 1.0")
    model = open_embedder(f"{path}:embed")
    assert model.spec == f"{path}:embed"
    assert model.key.startswith("python:model.py:embed#")
    assert model.embed([picture(0)]).tolist() == [[1, 2]]
    with pytest.raises(UsageError, match=r"none\.py does not exist"):
        open_embedder(f"{tmp_path}/none.py:embed")
    sys.modules.pop("helper")


def test_its_identity_changes_with_its_code_and_with_what_it_imports_beside_it(tmp_path, monkeypatch):
    """Not with a comment: nobody pays for one."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def key(code: str, helper: str) -> str:
        (tmp_path / "m.py").write_text(code)
        (tmp_path / "helper_of_test.py").write_text(helper)
        sys.modules.pop("helper_of_test", None)
        importlib.invalidate_caches()
        return open_embedder(f"{tmp_path}/m.py:embed").key

    code = "from helper_of_test import scale\ndef embed(images):\n    return scale(images)\n"
    helper = "SIZE = 1\ndef scale(images):\n    return images\n"
    first = key(code, helper)
    assert key(f"# of this year\n\n{code}", f"{helper}# more\n") == first
    assert key(code, helper.replace("SIZE = 1", "SIZE = 22")) != first
    assert key(f"{code}LIMIT = 3\n", helper) != first
    sys.modules.pop("helper_of_test")


FACTOR = 2.0


def _double(values):
    return FACTOR * values


def double_mean(images):
    return _double(np.stack([np.asarray(image).reshape(-1, 3).mean(axis=0) for image in images]))


def mean(images):
    return np.stack([np.asarray(image).reshape(-1, 3).mean(axis=0) for image in images])


def test_a_function_itself_is_a_teacher(folder, tmp_path, monkeypatch):
    model = open_embedder(double_mean)
    assert model.name.endswith(":double_mean")
    assert model.key != open_embedder(mean).key
    key = model.key
    monkeypatch.setattr(sys.modules[__name__], "FACTOR", 3.0)
    assert open_embedder(double_mean).key != key  # what its code uses counts too
    with Ledger(tmp_path / "l.sqlite", model.key) as ledger:
        paid = BudgetedTeacher(model, ledger, 20)
        assert not ask(find_images([folder]), paid)
        assert (paid.dim, paid.asked) == (3, 12)


def test_an_object_whose_state_cannot_be_seen_needs_a_key():
    class Model:
        def encode(self, images):
            return mean(images)

    with pytest.raises(UsageError, match=r"Nothing tells .*encode from another teacher. Give it a key"):
        open_embedder(Model().encode)
    model = partial(mean)
    with pytest.raises(UsageError, match="Give it a key"):
        open_embedder(model)
    model.key = "weights 3"
    assert open_embedder(model).key.endswith("#weights 3")


@pytest.mark.parametrize("kind", ["grad", "bfloat16", "half", "list of tensors", "list of lists"])
def test_tensors_are_taken_as_they_are(kind):
    torch = pytest.importorskip("torch")
    tensor = torch.arange(6.0, requires_grad=True).reshape(2, 3)
    answer = {
        "grad": tensor,
        "bfloat16": tensor.detach().bfloat16(),
        "half": tensor.half(),
        "list of tensors": list(tensor),
        "list of lists": tensor.tolist(),
    }[kind]

    def embed(images):
        return answer

    rows = open_embedder(embed).embed([picture(0)] * 2)
    assert (rows.dtype, rows.tolist()) == (np.float32, [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize("answer", [{"embedding": [1.0]}, [[1.0], [1.0, 2.0]], [object()], None])
def test_what_it_returned_instead_is_named(answer):
    def embed(images):
        return answer

    with pytest.raises(
        CallError, match=rf"returned {type(answer).__name__}, no array of numbers: .*Return a"
    ):
        open_embedder(embed).embed([picture(0)] * 2)

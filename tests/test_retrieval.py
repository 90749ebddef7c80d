"""The module that programs import, and the lines in the README that use it."""

import json
import logging
import re
import shutil
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from conftest import picture
from PIL import Image

import retrieval
from distill.report.report import read_run
from index.arguments import name_arguments, read_value
from index.build.pipeline import build_index
from index.embedders.callable import CallableEmbedder
from index.embedders.onnx import OnnxEmbedder
from index.embedders.options import EmbedderOptions
from index.io import file_digest

TINY = {"student": "test_efficientnet", "weights": "none", "size": 32, "dim": 6, "device": "cpu", "steps": 2}


@pytest.fixture
def index(folder: Path, tmp_path: Path, student_file: Path, teacher_file: Path) -> retrieval.Index:
    table = tmp_path / "table.csv"
    table.write_text("path,parity\n" + "".join(f"{i}.png,{'odd' if i % 2 else 'even'}\n" for i in range(10)))
    models = {"student": student_file, "teacher": teacher_file}
    return retrieval.build_index(folder, **models, out=tmp_path / "idx", metadata=table, progress=False)


class MeanColours:
    """A model of a notebook."""

    key = "mean colours 1"

    def __call__(self, images: list[Image.Image]) -> np.ndarray:
        return np.stack([np.asarray(image.resize((2, 2))).reshape(-1) for image in images])


def test_the_lines_in_the_readme_run(tmp_path, folder, teacher_file, monkeypatch, capsys):
    """They are run as they stand, with a student that is trained for less time."""
    lines = re.search(
        r"```python\n(.+?)```", (Path(__file__).parents[1] / "README.md").read_text(), re.DOTALL
    )
    assert lines is not None
    here = tmp_path / "here"
    shutil.copytree(folder, here / "photos")
    shutil.copy(teacher_file, here / "teacher.onnx")
    picture(3).save(here / "query.jpg")
    monkeypatch.chdir(here)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    distil = retrieval.distill
    monkeypatch.setattr(retrieval, "distill", lambda images, **given: distil(images, **given, **TINY))
    exec(lines[1], {})
    assert len(capsys.readouterr().out.splitlines()) == 10


def test_hits_have_what_a_program_needs(index, folder):
    hits = index.search(folder / "1.png", k=3, where={"parity": "odd"})
    assert [hit.rank for hit in hits] == [1, 2, 3]
    assert [hit["metadata"] for hit in hits.to_list()] == [{"parity": "odd"}] * 3
    assert hits[0].path == str(folder / hits[0].name)
    assert sorted((hit.score for hit in hits), reverse=True) == [hit.score for hit in hits]
    assert len(index.search(folder / "1.png", mode="rerank")) == 10


def test_a_photo_may_be_a_path_bytes_an_image_or_an_array(index, folder):
    path = folder / "3.png"
    image = Image.open(path)
    forms = [path, str(path), path.read_bytes(), image, image.convert("RGBA"), np.asarray(image)]
    rows = index.embed(forms)
    assert rows.shape == (6, 8)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, rows[:1].repeat(6, 0), atol=1e-6)
    assert index.embed(forms[:1], model="teacher").shape == (1, 12)
    assert index.embed([]).shape == (0, 8)
    assert index.search(image)[0].path == str(path)
    assert index.embed([image.convert("CMYK")]).shape == (1, 8)


def test_photos_without_pixels_are_one_line(index, folder):
    closed = Image.open(folder / "3.png")
    closed.close()
    cut = BytesIO()
    picture(5).save(cut, "PNG")
    broken = Image.open(BytesIO(cut.getvalue()[:-60]))
    for photo in (closed, broken, Image.new("La", (9, 9))):
        with pytest.raises(retrieval.ImageError, match="broken image"):
            index.search(photo)
    with pytest.raises(retrieval.UsageError, match="has no pixels"):
        index.search(np.zeros((0, 5, 3), np.uint8))


@pytest.mark.parametrize("target", [33, ["33mflops", 40], 0])
def test_a_target_without_a_unit_is_one_line(folder, target):
    with pytest.raises(retrieval.UsageError, match=r"A target is as 1\.5ms"):
        retrieval.distill(folder, teacher="t.onnx", out="s", target=target)


def test_a_notebook_shows_pictures_and_no_markup_of_names(index, folder):
    hits = index.search(picture(77))
    html = hits._repr_html_()
    assert html.count('src="data:image/jpeg;base64,') == 10
    (folder / hits[0].name).unlink()
    named = retrieval.Hits([retrieval.Hit(1, 0, 0.5, str(folder / "gone.png"), "<b>.png", {})])
    assert "<b>" not in named._repr_html_()
    assert hits._repr_html_().count("base64") == 9


@pytest.mark.slow
def test_a_callable_teaches_and_compares(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model, out = MeanColours(), tmp_path / "student"
    asked = retrieval.Teacher(model, budget=8)
    student = retrieval.distill([folder], teacher=asked, out=out, progress=False, **TINY)
    assert student == out / "student.onnx"
    assert read_run(out)["queried"] == 8  # a teacher's budget is that of `distill`
    teacher = retrieval.Teacher(model, budget=12, batch=5)
    index = retrieval.build_index(str(folder), out, teacher=teacher, out=tmp_path / "idx", progress=False)
    assert index.modes == ["student", "teacher", "asymmetric", "rerank"]
    again = retrieval.open_index(tmp_path / "idx")
    assert again.modes == ["student", "asymmetric"]
    with pytest.raises(retrieval.UsageError, match=r"Give teacher\b"):
        again.search(picture(50), mode="teacher")
    with pytest.raises(retrieval.BudgetError):
        retrieval.open_index(tmp_path / "idx", teacher=model).search(picture(50), mode="teacher")


def test_vectors_with_ids_teach(folder, tmp_path, student_file, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    names = [f"{i}.png" for i in range(10)] + ["more/10.jpg", "more/11.jpg"]
    vectors = np.random.default_rng(0).normal(size=(12, 5))
    index = retrieval.build_index(folder, student_file, teacher=(names, vectors), out=tmp_path / "idx")
    assert index.searcher.index.rows("teacher").shape == (12, 5)
    with pytest.raises(retrieval.UsageError, match="n ids"):
        retrieval.build_index(folder, student_file, teacher=(names[:3], vectors), out=tmp_path / "idx")


def test_a_ranker_is_given_as_a_teacher_is(folder, tmp_path, student_file, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    retrieval.build_index(folder, student_file, out=tmp_path / "idx", progress=False)

    def last(query: Image.Image, candidates: list[Image.Image]) -> list[int]:
        return list(range(len(candidates)))[::-1]

    last.key = "1"
    index = retrieval.open_index(tmp_path / "idx", ranker=retrieval.Teacher(last, budget=20))
    assert index.modes == ["student", "rerank"]
    plain = [hit.name for hit in index.search(picture(50), k=12)]
    # Two windows of ten, each turned round: the last ten, then the first ten.
    turned = [*plain[4:], plain[1], plain[0]]
    assert [hit.name for hit in index.search(picture(50), mode="rerank")] == turned
    with pytest.raises(retrieval.BudgetError, match="needs up to 2 lists, and 0 of the budget of 0"):
        retrieval.open_index(tmp_path / "idx", ranker=last).search(picture(51), mode="rerank")
    with pytest.raises(retrieval.UsageError, match=r"^teacher and ranker do not go together"):
        retrieval.open_index(tmp_path / "idx", ranker=last, teacher=last)
    with pytest.raises(retrieval.UsageError, match=r"^nothing\.csv does not exist\. Give the address"):
        retrieval.open_index(tmp_path / "idx", ranker="nothing.csv")


@pytest.mark.usefixtures("quick_export")
def test_a_helper_may_be_what_a_teacher_may_be(folder, tmp_path, teacher_file, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = MeanColours()
    vectors = [f"{i}.png" for i in range(10)] + ["more/10.jpg", "more/11.jpg"], np.eye(12)
    out = tmp_path / "student"
    retrieval.distill(
        folder, teacher=teacher_file, budget=12, out=out, helpers=[model, vectors], progress=False, **TINY
    )
    run = json.loads((out / "run.json").read_text())
    names, keys = run["options"]["helpers"], run["helpers"]
    assert names[0].endswith(":MeanColours")
    assert names[1].endswith(".npz")
    assert keys == [CallableEmbedder(model, EmbedderOptions()).key, f"vectors:{file_digest(Path(names[1]))}"]


@pytest.mark.parametrize(
    ("photo", "error"),
    [
        ("nowhere.jpg", retrieval.ImageError),
        (b"no image", retrieval.ImageError),
        (np.zeros((4, 4)), retrieval.UsageError),
    ],
)
def test_what_is_no_photo_is_an_error_of_ours(index, photo, error):
    with pytest.raises(error):
        index.search(photo)


def test_a_callable_without_a_lasting_name_is_refused(folder, tmp_path):
    class Model:
        def __call__(self, images):
            return images

    with pytest.raises(retrieval.UsageError, match="Give it a key"):
        retrieval.distill(folder, teacher=Model(), out=tmp_path / "s")


def test_an_index_of_a_folder_is_that_of_the_command(index, folder, student_file, teacher_file, tmp_path):
    made = build_index([folder], OnnxEmbedder(student_file), tmp_path / "other", OnnxEmbedder(teacher_file))
    opened = retrieval.open_index(str(tmp_path / "other"))
    assert len(opened) == len(made) == len(index)
    assert repr(opened) == f"Index({tmp_path / 'other'}, 12 images, modes student, teacher, rerank)"
    query = picture(60)
    assert [hit.id for hit in opened.search(query)] == [hit.id for hit in index.search(query)]


def test_bars_can_be_switched_off_and_lines_go_to_a_logger(folder, tmp_path, student_file, capsys, caplog):
    def build(name: str, progress: bool) -> str:
        retrieval.build_index(folder, student_file, out=tmp_path / name, progress=progress)
        return capsys.readouterr().err

    with caplog.at_level(logging.INFO, "retrieval"):
        assert "img/s" in build("a", progress=True)
        assert "img/s" not in build("b", progress=False)
    assert any("12 images, 0 refused." in record.message for record in caplog.records)


def test_a_search_is_narrowed_as_on_the_command_line(index, folder):
    assert {hit.name for hit in index.search(folder / "1.png", prefix="more/")} == {
        "more/10.jpg", "more/11.jpg",
    }  # fmt: skip
    hits = index.search(folder / "1.png", cut=0.99)
    assert 1 <= len(hits) < 11
    assert hits == index.search(folder / "1.png")[: len(hits)]


def test_messages_name_arguments_and_not_options(index, folder, tmp_path, student_file, caplog):
    """Errors and lines alike; a command to type stays as it is typed."""
    with pytest.raises(retrieval.UsageError, match=r"^recall must lie above 0 and up to 1, not 2"):
        retrieval.build_index(folder, student_file, out=tmp_path / "i", recall=2)
    with pytest.raises(retrieval.UsageError, match=r"^size must be at least 32 pixels, not 8"):
        retrieval.distill(folder, teacher="t.onnx", out=tmp_path / "s", size=8)
    with pytest.raises(retrieval.UsageError, match=r"^batch must be above 0"):
        retrieval.Teacher("t.onnx", batch=0)
    with pytest.raises(retrieval.UsageError, match=r"open_index\('some/where'\)"):
        retrieval.Index("some/where")
    (folder / "1.png").unlink()
    (folder / "2.png").write_text("none")
    (folder / "a.jxl").write_text("none")
    models = {"student": student_file, "teacher": tmp_path / "teacher.onnx"}
    with caplog.at_level(logging.INFO, "retrieval"):
        retrieval.build_index(folder, **models, out=tmp_path / "idx", update=True, progress=False)
    assert "--" not in caplog.text
    assert "Once it is back, update=True adds it." in caplog.text
    assert caplog.messages[-1] == ("left out: 1 file of formats that are not read (1 .jxl): convert them")
    line = "Give --budget 12. Then: retrieval index x --update"
    assert name_arguments(line) == "Give budget=12. Then: retrieval index x --update"


def test_importing_it_loads_nothing_heavy():
    code = (
        "import sys, retrieval; print(*{'torch', 'faiss', 'gradio', 'onnxruntime', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "retrieval", "--help"], capture_output=True, text=True, check=True
    )
    assert "Usage: retrieval [OPTIONS] COMMAND" in done.stdout


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"teacher": None}, r"^Give teacher\.$"),
        ({"teacher": 3}, r"^A teacher is a path, a URL, \(ids, vectors\) or a callable, not 3\.$"),
        ({"teacher": (["1.png"], 2, 3)}, "^A teacher is a path"),
        ({"teacher": retrieval.Teacher("t.onnx", budget=9), "budget": 50}, "^budget=50 is above .* own, 9"),
        ({"budget": []}, r"^budget must be a whole number, or several, not \[\]\.$"),
        ({"budget": "50"}, r"^budget must be a whole number, or several, not '50'\.$"),
        ({"budget": [50, "60"]}, r"^budget must be a whole number, not '60'\.$"),
        ({"bits": "64"}, r"^bits must be a whole number, not '64'\.$"),
        ({"dim": True}, r"^dim must be a whole number, not True\.$"),
        ({"price": "1"}, r"^price must be a number, not '1'\.$"),
        ({"helpers": 5}, r"not 5\.$"),
        ({"helpers": "https://host/v1"}, r"^helper sees every photo: https://host/v1 may cost money\."),
        ({"helpers": [""]}, r"^helper takes an ONNX file"),
        ({"variants": "fp8"}, r"^No variant 'fp8'"),
        ({"variants": 8}, r"^variants must be text, or several, not 8\.$"),
        ({"foo": 1}, r"unexpected keyword argument 'foo'\. There are budget, student, "),
        ({"images": 3}, r"^images must be a path, or several, not 3\.$"),
        ({"progress": "no"}, r"^progress must be True or False, not 'no'\.$"),
    ],
)
def test_a_wrong_argument_of_distill_is_named(folder, tmp_path, given, message):
    with pytest.raises(retrieval.UsageError, match=message):
        retrieval.distill(**{"images": folder, "teacher": "t.onnx", "out": tmp_path / "s"} | given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"codes": "128"}, r"^codes must be a whole number, not '128'\.$"),
        ({"recall": "1"}, r"^recall must be a number, not '1'\.$"),
        ({"metadata": 3}, r"^metadata must be a path, not 3\.$"),
        ({"exclude": b"x"}, r"^exclude must be text, or several, not b'x'\.$"),
        ({"rescore": 50}, r"^rescore is for codes\. Give codes, too, or leave it out\.$"),
        ({"rescore": -1}, r"^codes and rescore must be 0 or more, not 0 and -1\.$"),
        ({"foo": 1}, r"unexpected keyword argument 'foo'\. There are images, student, "),
    ],
)
def test_a_wrong_argument_of_build_index_is_named(folder, tmp_path, student_file, given, message):
    with pytest.raises(retrieval.UsageError, match=message):
        retrieval.build_index(folder, student_file, out=tmp_path / "i", **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"k": "3"}, r"^k must be a whole number, not '3'\.$"),
        ({"k": 1.5}, r"^k must be a whole number, not 1\.5\.$"),
        ({"k": 0}, r"^k must be at least 1, not 0\.$"),
        ({"cut": "a"}, r"^cut must be a number, not 'a'\.$"),
        ({"prefix": 3}, r"^prefix must be text, not 3\.$"),
        ({"where": {"parity": 3}}, r"^where\['parity'\] must be text, not 3\.$"),
        ({"where": ["parity"]}, r"^where must be a mapping of columns to values, not \['parity'\]\.$"),
    ],
)
def test_a_wrong_argument_of_search_is_named(index, folder, given, message):
    with pytest.raises(retrieval.UsageError, match=message):
        index.search(folder / "1.png", **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": 3}, "^A teacher is a path"),
        ({"budget": -1}, r"^budget must be 0 or more, not -1\.$"),
        ({"ledger": 3}, r"^ledger must be a path, not 3\.$"),
        ({"batch": [3]}, r"^batch must be a whole number, not \[3\]\.$"),
        ({"batch": 1.5}, r"^batch must be a whole number, not 1\.5\.$"),
        ({"output": 3}, r"^output must be text, not 3\.$"),
        ({"size": 1.5}, r"^size takes pixels, as in 224 or 256x128, not 1\.5"),
        ({"mean": 3}, "^mean takes three numbers"),
        ({"foo": 1}, r"unexpected keyword argument 'foo'\. There are model, dialect, "),
    ],
)
def test_a_wrong_argument_of_a_teacher_is_named(given, message):
    with pytest.raises(retrieval.UsageError, match=message):
        retrieval.Teacher(**given)


def test_what_is_wrong_with_opening_an_index_is_said_in_its_arguments(index):
    with pytest.raises(retrieval.UsageError, match=r"^Open an index with retrieval\.open_index\('folder'\)"):
        retrieval.Index(None)
    with pytest.raises(retrieval.UsageError, match=r"keeps its student itself\. Leave model out\.$"):
        retrieval.open_index(str(index.searcher.index), model="student.onnx")


def test_a_photo_that_is_not_there_is_named(index):
    with pytest.raises(retrieval.ImageError, match=r"^nofile\.jpg: No such file"):
        index.search("nofile.jpg")


@pytest.mark.parametrize(
    "form", [Path, str, Image.open, Path.read_bytes, lambda path: np.asarray(Image.open(path))]
)
def test_one_photo_alone_is_embedded(index, folder, form):
    path = folder / "3.png"
    np.testing.assert_allclose(index.embed(form(path)), index.embed([path]), atol=1e-6)


def test_one_pattern_alone_is_one(folder, tmp_path, student_file):
    made = retrieval.build_index(folder, student_file, out=tmp_path / "i", exclude="*.png")
    assert {item.name for item in made.searcher.index.items} == {"more/10.jpg", "more/11.jpg"}


def test_numbers_of_numpy_are_numbers(index, folder):
    found = index.search(folder / "1.png", k=np.int64(3), cut=np.float32(0))
    assert found == index.search(folder / "1.png", k=3)
    assert read_value("dim", np.int64(8), int | None).__class__ is int


def test_a_column_that_is_no_text_is_refused_by_name(index, folder):
    with pytest.raises(retrieval.UsageError, match="a column of where must be text, not 1"):
        index.search(folder / "1.png", where={1: "odd"})

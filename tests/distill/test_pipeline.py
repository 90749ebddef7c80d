import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
from conftest import picture, write_embedder
from huggingface_hub import ModelCard
from safetensors.torch import save_file
from teacher_server import TeacherServer, serving

from distill import pipeline
from distill.ask import ask_teacher
from distill.examples import gather
from distill.fit import build_student, open_backbone
from distill.model import quantize as variants
from distill.options import Options, Target, check_out
from distill.pipeline import Distilled, distill, distill_by_name
from distill.report.report import judge, judge_asking, read_run
from distill.shrinking.costs import measure_students
from distill.training.recipes import AS_JUDGED, Recipe, find_recipe
from index.embedders.onnx import OnnxEmbedder
from index.embedders.options import EmbedderOptions
from index.embedders.registry import open_embedder
from index.embedders.teacher_space import TeacherSpace
from index.errors import RetrievalError, UsageError
from index.images.decode import read_photo
from index.images.file import ImageFile, digest_pool
from index.images.sources import find_images
from index.stores.records import Failure
from index.teachers.ask import Asked
from index.teachers.ledger import Ledger
from index.teachers.spec import TeacherSpec

OPTIONS = Options(  # each stage takes the export a second
    budget=8, student="test_efficientnet", weights="none", stages=3, size=32, dim=6, device="cpu", steps=4
)


class Counting(OnnxEmbedder):
    """A teacher that counts what it is asked."""

    asked = 0

    def embed(self, batch):
        self.asked += len(batch)
        return super().embed(batch)


@pytest.fixture
def teacher(teacher_file: Path) -> Counting:
    return Counting(teacher_file, "cpu")


@pytest.fixture
def ledger(tmp_path: Path, teacher: Counting):
    with Ledger(tmp_path / "ledger.sqlite", teacher.key) as opened:
        yield opened


def ask(files, teacher, ledger, budget, order=None):
    digests = digest_pool(files)
    known = ledger.known(digests)
    order = order or sorted(range(len(files)), key=lambda i: digests[i] not in known)
    return ask_teacher(files, digests, order, teacher, ledger, budget)


def test_the_budget_is_a_limit_for_ever(folder, teacher, ledger):
    files = find_images([folder])
    assert ask(files, teacher, ledger, 5).asked == teacher.asked == len(ledger) == 5
    again = ask(files, teacher, ledger, 5)
    assert again.asked == 0
    assert len(again.digests) == 5
    assert ask(files, teacher, ledger, 7).asked == 2
    assert teacher.asked == len(ledger) == 7


def test_an_endpoint_is_asked_first_about_what_it_has_answered(folder, tmp_path, teacher):
    """Where there is budget for that and for another image; another model under its name ends it."""
    files, server = find_images([folder]), TeacherServer(teacher)
    with serving(server) as url, Ledger(tmp_path / "l.sqlite", f"{url}#") as paid:
        assert ask(files, open_embedder(url), paid, 4).asked == len(server.charged) == 4
        assert ask(files, open_embedder(url), paid, 5).asked == 1  # there is no room to compare
        assert sum(server.charged.values()) == paid.spent == 5
        assert ask(files, open_embedder(url), paid, 8).asked == 2  # one of the three was for comparing
        assert sum(server.charged.values()) == paid.spent == 8
        real = server._embed
        server._embed = lambda data: real(data)[:, ::-1].copy()
        with pytest.raises(RetrievalError, match=r"answers otherwise about .*\.png than before"):
            ask(files, open_embedder(url), paid, 12)
        assert (len(paid), paid.spent) == (7, 9)
        trusting = open_embedder(url, options=EmbedderOptions(probe=False))
        assert ask(files, trusting, paid, 12).asked == 3


def test_answers_belong_to_their_images(folder, teacher, ledger):
    files = find_images([folder])
    answered = ask(files, teacher, ledger, 12, order=list(range(11, -1, -1)))
    by_digest = {read_photo(file).digest: file for file in files}
    for digest, vector in zip(answered.digests, answered.vectors, strict=True):
        photo = read_photo(by_digest[digest])
        np.testing.assert_allclose(teacher.embed([teacher.prepare(photo)])[0], vector, atol=1e-6)


def test_a_spent_budget_says_what_to_do(folder, tmp_path, teacher, ledger, unit_rows):
    ledger.add([f"{i:032x}" for i in range(9)], unit_rows(9, 12))  # about other images
    with pytest.raises(
        RetrievalError, match=r"budget of 8 is spent: .* holds 9 answers, 0 of them about these"
    ):
        ask(find_images([folder]), teacher, ledger, 8)
    assert teacher.asked == 0


def test_unreadable_images_cost_nothing_and_are_replaced(folder, teacher, ledger):
    (folder / "0.png").write_text("text")
    (folder / "1.png").write_bytes(b"")
    answered = ask(find_images([folder]), teacher, ledger, 6)
    assert answered.asked == teacher.asked == 6
    assert {Path(failure.path).name for failure in answered.failures} == {"0.png", "1.png"}


def test_too_few_images_are_an_error(tmp_path, folder, teacher, ledger):
    with pytest.raises(RetrievalError, match="Only 1 usable image"):
        ask([ImageFile(folder / "0.png", "0.png")], teacher, ledger, 5)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Distilled:
    """A student of twelve pictures in `images`, with its teacher and its ledger beside it; all only read."""
    root = tmp_path_factory.mktemp("made")
    (root / "images").mkdir()
    for i in range(12):
        picture(i).save(root / "images" / f"{i}.png")
    teacher = Counting(write_embedder(root / "teacher.onnx", dim=12, side=64, seed=2), "cpu")
    with Ledger(root / "ledger.sqlite", teacher.key) as ledger:
        done = distill(find_images([root / "images"]), teacher, ledger, root / "student", OPTIONS)
    assert teacher.asked == 8
    return done


def distill_again(made: Distilled, source: Path, out: Path, **other: Any) -> Distilled:
    """Distil with the same teacher, which must not be asked again."""
    teacher = Counting(made.folder.with_name("teacher.onnx"), "cpu")
    with Ledger(made.folder.with_name("ledger.sqlite"), teacher.key) as ledger:
        done = distill(find_images([source]), teacher, ledger, out, replace(OPTIONS, **other))
    assert teacher.asked == 0
    return done


def test_a_student_folder_from_end_to_end(made, tmp_path, monkeypatch):
    done, key = made, Counting(made.folder.with_name("teacher.onnx"), "cpu").key
    assert {path.name for path in done.folder.iterdir()} == {
        "student.onnx", "student.safetensors", "teacher_space.npz", "taught.npz", "run.json", "README.md",
        "report.html",
    }  # fmt: skip
    student = OnnxEmbedder(done.folder / "student.onnx")
    assert (student.dim, student.side) == (6, 32)
    assert student.metadata["retrieval.queried"] == "8"
    assert student.metadata["retrieval.teacher"].endswith(key)
    assert TeacherSpace.load(done.folder / "teacher_space.npz").fits(12, 6)
    run = json.loads((done.folder / "run.json").read_text())
    assert run["queried"] == run["asked_now"] == 8
    assert run["images"] == 12
    assert len(run["training"]["loss"]) == run["options"]["recipe"]["steps"] == 4
    assert run["export"]["key"] == student.key
    card = (done.folder / "README.md").read_text()
    assert "8 of 12 images" in card
    first, last = (f"{done.run['training']['loss'][at]:.4f}" for at in (0, -1))
    assert f"| loss | {first} at first, {last} at last (mean of 1 step) |" in card
    assert f"the weights of step {done.run['training']['kept_step']} kept" in card
    assert card.startswith("---\nlibrary_name: onnx\n")
    assert ModelCard.load(done.folder / "README.md").data.pipeline_tag == "image-feature-extraction"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "student.onnx").write_bytes((done.folder / "student.onnx").read_bytes())
    for size in ((60, 44), (90, 80), (500, 300), (20, 30)):  # some are reduced before they are resized
        picture(5, *size).save(tmp_path / "photo.jpg", quality=95)
        known: dict = {}
        exec(card.split("```python\n")[1].split("```")[0], known)
        photo = read_photo(ImageFile(tmp_path / "photo.jpg", "photo.jpg"))
        np.testing.assert_allclose(known["embedding"], student.embed([student.prepare(photo)])[0], atol=1e-5)
    assert 'session.run(["embeddings"],' in card  # a student with codes has other outputs, too
    assert "8 teacher queries in this run" in done.summary


@pytest.mark.slow
def test_variants_are_noted_and_do_not_outlive_their_student(folder, tmp_path, teacher, ledger, monkeypatch):
    for name, value in {"CALIBRATION": 4, "FEWEST": 6, "LEAST_OVERLAP": 0.0}.items():
        monkeypatch.setattr(variants, name, value)
    files, out = find_images([folder]), tmp_path / "student"
    with pytest.raises(RetrievalError, match="Variants need 10 different images"):
        distill(files[:9], teacher, ledger, out, replace(OPTIONS, variants=("fp16",)))
    assert teacher.asked == 0
    made = distill(files, teacher, ledger, out, replace(OPTIONS, variants=("fp16",)))
    assert json.loads((out / "run.json").read_text()) == json.loads(json.dumps(made.run))
    assert [variant["name"] for variant in made.run["variants"]] == ["fp32", "fp16"]
    assert "| fp16 |" in (out / "README.md").read_text()

    assert made.run["variants"][1]["population"] == "photos of the pool that did not calibrate it"
    old = json.loads((out / "run.json").read_text())
    del old["cost"]["failed_calls"]
    (out / "run.json").write_text(json.dumps(old))
    variants.make_variants_by_name(out, [folder, folder], ["int8"])
    assert sorted(path.name for path in out.glob("*.onnx")) == ["student.int8.onnx", "student.onnx"]
    again = json.loads((out / "run.json").read_text())
    assert [variant["name"] for variant in again.pop("variants")] == ["fp32", "int8"]
    assert again == {
        key: value for key, value in json.loads(json.dumps(made.run)).items() if key != "variants"
    }

    distill(files, teacher, ledger, out, OPTIONS)
    assert [path.name for path in out.glob("*.onnx")] == ["student.onnx"]
    assert "## Variants" not in (out / "README.md").read_text()
    del again["export"]["megabytes"]
    (out / "run.json").write_text(json.dumps(again))
    with pytest.raises(UsageError, match=r"lacks something \(.*megabytes.*\): an earlier version wrote it"):
        variants.make_variants_by_name(out, [folder], ["int8"])


@pytest.mark.slow
def test_variants_are_judged_by_query_photos_if_there_are_some(
    folder, tmp_path, teacher, ledger, monkeypatch
):
    for name, value in {"CALIBRATION": 4, "FEWEST": 6, "LEAST_OVERLAP": 0.0}.items():
        monkeypatch.setattr(variants, name, value)
    (tmp_path / "queries").mkdir()
    for i in range(20, 25):
        picture(i).save(tmp_path / "queries" / f"{i}.png")
    options = replace(OPTIONS, budget=10, variants=("fp16",), queries=(str(tmp_path / "queries"),))
    files = find_images([folder])
    with pytest.raises(RetrievalError, match="6 queries that are not in the pool are needed; here are 5"):
        distill(files, teacher, ledger, tmp_path / "student", options)
    assert teacher.asked == 0
    for i in range(25, 30):
        picture(i).save(tmp_path / "queries" / f"{i}.png")
    made = distill(files, teacher, ledger, tmp_path / "student", options).run["variants"]
    assert [(one["population"], one["queries"]) for one in made] == [("query photos", 10)] * 2


def test_a_second_run_pays_nothing_and_makes_the_same_student_and_no_label_is_read(made, tmp_path):
    """The same images under names that say nothing, by which a label could be told."""
    images, anonymous = find_images([made.folder.with_name("images")]), tmp_path / "anonymous"
    anonymous.mkdir()
    for i, file in enumerate(images):
        (anonymous / f"{i:03}{file.path.suffix}").symlink_to(file.path)
    again = distill_again(made, anonymous, tmp_path / "two")
    assert "0 teacher queries in this run, 8 answers from the ledger" in again.summary
    assert again.run["training"]["loss"] == made.run["training"]["loss"]
    photo = read_photo(images[0])
    one, two = (OnnxEmbedder(done.folder / "student.onnx") for done in (made, again))
    np.testing.assert_array_equal(one.embed([one.prepare(photo)]), two.embed([two.prepare(photo)]))


@pytest.mark.usefixtures("quick_export")
def test_by_name(folder, tmp_path, teacher_file):
    out = tmp_path / "student"
    options = replace(OPTIONS, budget=100)
    done = distill_by_name(
        [folder], TeacherSpec(str(teacher_file), ledger=tmp_path / "l.sqlite"), out, options, [100]
    )
    assert done.run["training"]["kept_step"] == len(done.run["training"]["loss"])  # nothing is held out
    assert done.run["queried"] == 12  # a budget above the pool asks about all of it
    with Ledger(tmp_path / "l.sqlite", done.run["teacher"]["key"]) as ledger:
        assert len(ledger) == 12


@pytest.mark.usefixtures("quick_export")
def test_a_helper_is_noted(folder, tmp_path, teacher, ledger, teacher_file):
    options = replace(OPTIONS, helpers=teacher_file)
    assert options.helpers == (str(teacher_file),)
    made = distill(find_images([folder]), teacher, ledger, tmp_path / "out", options)
    assert made.run["helpers"] == [teacher.key]
    assert made.run["options"]["helpers"] == (str(teacher_file),)


@pytest.mark.usefixtures("quick_export")
def test_what_judge_wrote_is_learnt_as_it_is(folder, tmp_path, teacher, ledger):
    """It is whitened and averaged already; who asks for another place of photos gets that."""
    teacher.ranker = {"spec": "judge.py:judge", "options": {}}
    made = distill(find_images([folder]), teacher, ledger, tmp_path / "judged", OPTIONS)
    assert made.run["teacher"]["ranker"] == teacher.ranker
    assert "not with the ranker" in made.summary
    assert "What asking brought" not in made.summary
    assert made.run["options"]["recipe"] | AS_JUDGED == made.run["options"]["recipe"]
    axes = TeacherSpace.load(made.folder / "teacher_space.npz").components
    np.testing.assert_allclose(axes @ axes.T, np.eye(len(axes)), atol=1e-5)  # it turns, and scales nothing
    given = replace(OPTIONS, recipe=Recipe(trust=0.0))
    other = distill(find_images([folder]), teacher, ledger, tmp_path / "other", given)
    assert other.run["options"]["recipe"]["whiten"] == Recipe.whiten
    given = replace(OPTIONS, recipe=find_recipe("no-free-network"))
    alone = distill(find_images([folder]), teacher, ledger, tmp_path / "alone", given)
    assert alone.run["options"]["recipe"] | AS_JUDGED == alone.run["options"]["recipe"]


@pytest.mark.slow
def test_what_the_teacher_taught_nothing_has_no_space_of_the_teacher(made, tmp_path, monkeypatch):
    def taught_nothing(*given):
        fitted = fit_student(*given)
        return replace(fitted, placement=replace(fitted.placement, trust=0.0))

    fit_student, images = pipeline.fit_student, made.folder.with_name("images")
    distill_again(made, images, tmp_path / "out")
    assert (tmp_path / "out" / "teacher_space.npz").is_file()
    monkeypatch.setattr(pipeline, "fit_student", taught_nothing)
    distill_again(made, images, tmp_path / "out")
    assert not (tmp_path / "out" / "teacher_space.npz").exists()


@pytest.mark.slow
def test_a_student_is_made_with_codes(folder, tmp_path, teacher, ledger):
    options = replace(OPTIONS, budget=12, dim=16, bits=8)
    made = distill(find_images([folder]), teacher, ledger, tmp_path / "student", options)
    codes = OnnxEmbedder(made.folder / "student.onnx", "cpu", bits=8)
    pixels = [codes.prepare(read_photo(file)) for file in find_images([folder])]
    assert len({row.tobytes() for row in codes.embed(pixels)}) > 1
    assert made.run["export"]["key"] == OnnxEmbedder(made.folder / "student.onnx").key != codes.key
    assert made.run["options"]["bits"] == 8


@pytest.mark.slow
def test_more_dimensions_than_answers(folder, tmp_path, teacher, ledger):
    done = distill(find_images([folder]), teacher, ledger, tmp_path / "s", replace(OPTIONS, budget=4, dim=9))
    student = OnnxEmbedder(done.folder / "student.onnx")
    photo = read_photo(find_images([folder])[0])
    assert np.isfinite(student.embed([student.prepare(photo)])).all()
    assert student.dim == 9


class Faulty(Counting):
    """A teacher that answers the same, or nonsense."""

    answer = 1.0

    def embed(self, batch):
        self.asked += len(batch)
        return np.full((len(batch), self.dim), self.answer / self.dim**0.5, np.float32)


def test_a_teacher_that_tells_nothing_apart_is_named(folder, tmp_path, teacher_file):
    faulty = Faulty(teacher_file, "cpu")
    complaint = r"teacher.onnx gives all 8 images the same vector"
    with Ledger(tmp_path / "l.sqlite", faulty.key) as ledger, pytest.raises(RetrievalError, match=complaint):
        distill(find_images([folder]), faulty, ledger, tmp_path / "s", OPTIONS)


def test_nonsense_is_neither_stored_nor_learnt(folder, tmp_path, teacher_file):
    faulty = Faulty(teacher_file, "cpu")
    faulty.answer = np.nan
    with Ledger(tmp_path / "l.sqlite", faulty.key) as ledger:
        with pytest.raises(RetrievalError, match=r"answered with a vector that is not finite"):
            distill(find_images([folder]), faulty, ledger, tmp_path / "s", OPTIONS)
        assert len(ledger) == 0


def test_too_few_stages_are_refused_before_anything_is_paid(folder, tmp_path, teacher, ledger):
    with pytest.raises(UsageError, match="sees only edges and colours in so few stages"):
        distill(find_images([folder]), teacher, ledger, tmp_path / "s", replace(OPTIONS, stages=1))
    assert teacher.asked == 0


def test_copies_are_one_image(tmp_path, teacher, ledger):
    for i in range(5):
        picture(0).save(tmp_path / f"{i}.png")
    with pytest.raises(RetrievalError, match="Only 1 usable image with different content"):
        distill(find_images([tmp_path]), teacher, ledger, tmp_path / "s", OPTIONS)
    assert teacher.asked == 0


@pytest.mark.usefixtures("quick_export")
def test_a_curve_pays_for_each_image_once_and_measures_all_on_the_same(
    tmp_path, teacher, ledger, monkeypatch
):
    parts = []

    def note(pool, kept, held, *rest):
        parts.append((set(kept.tolist()), set(held.tolist())))
        return gather(pool, kept, held, *rest)

    monkeypatch.setattr("distill.fit.gather", note)
    root = tmp_path / "pool"
    root.mkdir()
    for i in range(60):
        picture(i).save(root / f"{i}.png")
    options = replace(OPTIONS, recipe=Recipe(batch=8))
    out = tmp_path / "student"
    done = distill(find_images([root]), teacher, ledger, out, options, [50, 10, 20])
    assert teacher.asked == len(ledger) == done.run["asked_now"] == 50
    assert done.folder == out
    assert (out / "budget-10" / "student.onnx").is_file()
    assert [point["queried"] for point in done.run["curve"]] == [10, 20, 50]
    _, measured = parts[-1]
    assert len(measured) == len(done.lists.queries)
    assert all(not kept & measured and held >= measured for kept, held in parts)
    assert all(0 < point["overlap@10"] <= 1 for point in done.run["curve"])
    page = (out / "report.html").read_text()
    assert "Quality against cost" in page
    assert "Quality against cost" not in (out / "budget-20" / "report.html").read_text()
    assert page.count("<svg") == 3
    assert 'src="data:image/jpeg;base64,' in page
    assert "<script" not in page  # nothing is run or fetched
    assert not re.search(r'(src|href)="http', page)
    assert done.lists.agreement.mean() == pytest.approx(done.run["agreement"]["overlap@10"])
    assert "photos of the pool that it did not learn from: " in done.summary


def test_agreement_is_told_with_its_interval_and_what_it_was_measured_on():
    assert judge(None).startswith("Not evaluated: use a larger --budget")
    measured = {
        "held_out": 104,
        "overlap@10": 0.466,
        "interval": [0.43, 0.502],
        "population": "query photos",
    }
    assert judge(measured) == (
        "Held-out check, 104 query photos: 47 % (95 %: 43 to 50) of the teacher's top 10 found."
    )


def test_what_asking_brought_is_told_and_a_teacher_that_teaches_nothing_is_noticed():
    placement = {
        "trust": 0.75,
        "chosen": True,
        "free_network": 0.53,
        "with_answers": 0.56,
        "gain": 0.03,
        "gain_error": 0.005,
        "explained": 0.3,
    }
    assert "53 % of the teacher's first ten, and 56 % with the answers" in judge_asking(placement, 500)
    assert "(+3.0; 95 %: +2.0 to +4.0)" in judge_asking(placement, 500)
    assert judge_asking({**placement, "averaged": True}, 500).endswith("brings them nearer still.")
    assert "own ImageNet network with its helpers returns 53 %" in judge_asking(placement, 500, helped=True)
    assert judge_asking({**placement, "trust": 0.0}, 100).startswith(
        "Nothing was learnt from the answers: for"
    )
    noise = {**placement, "trust": 0.0, "explained": -0.1}
    assert "taught it nothing" in judge_asking(noise, 500)
    assert judge_asking({**placement, "trust": 0.0}, 2).startswith("2 answers are too few to tell")
    assert judge_asking({**placement, "gain": -0.03}, 500).endswith("the answers make lists worse.")
    assert judge_asking({**placement, "trust": 0.0, "chosen": False}, 500).startswith("No answer was learnt")


@pytest.mark.usefixtures("quick_export")
def test_agreement_is_measured_on_query_photos_if_there_are_some(tmp_path, teacher, ledger):
    for name, photos in (("pool", range(40)), ("queries", range(35, 60))):
        (tmp_path / name).mkdir()
        for i in photos:
            picture(i).save(tmp_path / name / f"{i}.png")
    options = replace(OPTIONS, budget=40, recipe=Recipe(batch=8), queries=(str(tmp_path / "queries"),))
    done = distill(find_images([tmp_path / "pool"]), teacher, ledger, tmp_path / "student", options)
    assert teacher.asked == len(ledger) == ledger.spent == 40
    assert done.run["queried"] == 32
    assert done.run["query_photos"] == done.run["agreement"]["held_out"] == 8  # a fifth of the budget
    assert done.run["agreement"]["population"] == "query photos"
    assert done.run["training"]["held_out"] == 0  # every answer about the pool is learnt from
    pool = set(digest_pool(find_images([tmp_path / "pool"])))
    assert len(ledger.known(sorted(pool))) == 32  # a query photo that is in the pool was not asked as one
    again = distill(find_images([tmp_path / "pool"]), teacher, ledger, tmp_path / "again", options)
    assert teacher.asked == 40
    assert again.run["training"]["loss"] == done.run["training"]["loss"]


def interrupt(*_, **__):
    raise KeyboardInterrupt


def test_a_student_is_replaced_whole_or_not_at_all(made, tmp_path, monkeypatch):
    shutil.copytree(made.folder, tmp_path / "student")
    files = {path.name: path.read_bytes() for path in (tmp_path / "student").iterdir()}
    monkeypatch.setattr("distill.pipeline.export_onnx", interrupt)
    with pytest.raises(KeyboardInterrupt):
        distill_again(made, made.folder.with_name("images"), tmp_path / "student", seed=1)
    now = {path.name: path.read_bytes() for path in (tmp_path / "student").iterdir()}
    assert {name: now[name] for name in files} == files


def test_what_too_few_photos_cannot_give_is_refused_before_anything_is_paid(tmp_path, teacher, ledger):
    for i in range(40):
        picture(i % 5).save(tmp_path / f"{i}.png")
    files = find_images([tmp_path])
    for wish, said in (
        ({"bits": 8, "dim": 8}, "need as many photos"),
        ({"variants": ("int8",)}, "Variants need"),
    ):
        with pytest.raises(RetrievalError, match=said):
            distill(files, teacher, ledger, tmp_path / "s", replace(OPTIONS, **wish))
    (tmp_path / "snaps").mkdir()
    picture(3).save(tmp_path / "snaps" / "same.png")
    asking = replace(OPTIONS, budget=10, queries=(str(tmp_path / "snaps"),))
    with pytest.raises(UsageError, match=r"--queries needs 2 photos that are not in the pool; 0 here"):
        distill(files, teacher, ledger, tmp_path / "s", asking)
    assert teacher.asked == 0


@pytest.mark.usefixtures("quick_export")
def test_a_killed_run_goes_on_and_pays_nothing_twice(made, tmp_path, monkeypatch):
    images = made.folder.with_name("images")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("distill.pipeline.export_onnx", interrupt)
        refused = Asked([], [Failure("0.png", "refused")])  # of which the second run is not told again
        patch.setattr("distill.ask.ask_about", lambda *_: iter([refused]))
        distill_again(made, images, tmp_path / "killed")
    assert (tmp_path / "killed" / "checkpoint.pt").is_file()
    monkeypatch.setattr("distill.training.loop.Learner.learn", interrupt)  # all of it is done
    again = distill_again(made, images, tmp_path / "killed")
    assert (
        again.run["export"]["key"] == made.run["export"]["key"]
        or again.run["training"]["loss"] == made.run["training"]["loss"]
    )
    assert not (tmp_path / "killed" / "checkpoint.pt").exists()


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"budget": 0}, "--budget must be at least 2, not 0"),
        ({"size": 8}, "--size must be at least 32"),
        ({"dim": 0}, "--dim must be at least 1"),
        ({"bits": 12}, "--bits must be a multiple of 8, such as 64, 128 or 256, not 12"),
        ({"bits": 512}, "--bits 512 is more than the student.s 256 dimensions. Give 256"),
        ({"steps": 0}, "--steps must be at least 1"),
        ({"select": "luck"}, "--select must be one of kmeans, kcenter, random, not 'luck'"),
        ({"stages": 0}, "--stages must be at least 1"),
        ({"seed": -1}, "--seed must be at least 0"),
        ({"seed": 4_000_000_000}, "--seed must be at most 2147483647"),
        ({"queries": ("snaps",), "budget": 9}, "Give --budget 10 or more, or leave out --queries"),
        ({"device": "tpu"}, "--device must be one of auto, cpu, cuda, not 'tpu'"),
        ({"variants": ("int4",)}, "No variant 'int4'"),
        ({"weights": "nowhere.pth"}, "nowhere.pth does not exist"),
        ({"price": -1.0}, "--price must be 0 or more"),
    ],
)
def test_options_check_themselves(wrong, complaint):
    with pytest.raises(UsageError, match=complaint):
        Options(**wrong)


def test_a_file_in_the_way_is_refused_before_anything_is_paid(folder, tmp_path, teacher, ledger):
    (tmp_path / "student").write_text("in the way")
    for out in (tmp_path / "student", tmp_path / "student" / "of" / "today"):
        with pytest.raises(UsageError, match="student is a file"):
            distill(find_images([folder]), teacher, ledger, out, OPTIONS)
    assert teacher.asked == 0


def test_a_folder_that_may_not_be_written_is_refused_before_anything_is_paid(
    folder, tmp_path, teacher, ledger, monkeypatch
):
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
    with pytest.raises(UsageError, match="cannot be written"):
        distill(find_images([folder]), teacher, ledger, tmp_path / "new" / "student", OPTIONS)
    assert teacher.asked == 0


@pytest.mark.usefixtures("quick_export")
def test_photos_to_ask_about_come_before_all_others(folder, tmp_path, teacher, ledger):
    others = tmp_path / "others"
    others.mkdir()
    for seed in range(90, 93):
        picture(seed).save(others / f"{seed}.png")
    chosen = replace(OPTIONS, also=(str(others), str(folder / "0.png")))
    done = distill(find_images([folder, others]), teacher, ledger, tmp_path / "student", chosen)
    asked = ledger.known(digest_pool(find_images([others, folder])))
    assert set(digest_pool(find_images(chosen.also))) <= asked
    assert len(asked) == done.run["queried"] == 8


@pytest.mark.slow
def test_several_targets_learn_from_the_same_answers_and_are_drawn_by_their_time(tmp_path, teacher, ledger):
    folder = tmp_path / "pool"
    folder.mkdir()
    for i in range(60):
        picture(i).save(folder / f"{i}.png")
    save_file(timm.create_model(OPTIONS.student).state_dict(), tmp_path / "weights.safetensors")
    options = replace(
        OPTIONS, budget=40, weights=str(tmp_path / "weights.safetensors"), stages=None, steps=None,
        recipe=Recipe(batch=8, steps=20),
    )  # fmt: skip
    whole = measure_students("parameters", [build_student(open_backbone(options), options)], options.size)[0]
    targets = [Target("parameters", round(share * whole, 3)) for share in (0.6, 0.8)]
    out = tmp_path / "student"
    done = distill(find_images([folder]), teacher, ledger, out, options, [40], targets[::-1])
    assert teacher.asked == done.run["asked_now"] == 40
    small = read_run(out / f"target-{targets[0]}".replace(" ", "-"))
    assert small["student"]["parameters"] < done.run["student"]["parameters"]
    # It is cheaper, and takes more steps.
    assert small["options"]["recipe"]["steps"] == pytest.approx(20 / 0.6, abs=1)
    assert done.run["options"]["recipe"]["steps"] == pytest.approx(20 / 0.8, abs=1)
    assert small["data_digest"] == done.run["data_digest"]
    assert [point["ms"] for point in done.run["curve"]] == [
        1000 * run["cost"]["student_seconds"] for run in (small, done.run)
    ]
    assert "Agreement with the teacher by milliseconds" in (out / "report.html").read_text()
    with pytest.raises(UsageError, match="not both"):
        distill(find_images([folder]), teacher, ledger, out, options, [20, 40], targets)
    with pytest.raises(UsageError, match="all in ms, all in parameters or all in mflops"):
        distill(find_images([folder]), teacher, ledger, out, options, [40], [Target("ms", 1), *targets])


def test_a_folder_of_something_else_is_not_written_to(folder, tmp_path):
    notes = tmp_path / "notes"
    (notes / "budget-10").mkdir(parents=True)
    check_out(notes)  # the first of several students may be there
    (notes / "budget-10").rmdir()
    (notes / "ledger.sqlite").touch()
    check_out(notes)
    (notes / "README.md").write_text("mine")
    for other in (notes, folder):
        with pytest.raises(UsageError, match="is no student folder, and not empty"):
            check_out(other)
    (notes / "run.json").touch()
    check_out(notes)

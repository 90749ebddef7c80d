"""A student that shrinks while it learns."""

from pathlib import Path

import numpy as np
import pytest
import torch

from distill.examples import Examples
from distill.fit import aim, build_student
from distill.model.backbone import create_backbone
from distill.model.student import Student
from distill.options import Options, Target
from distill.shrinking.channels import find_inner
from distill.shrinking.costs import Costs, measure_students
from distill.shrinking.importance import measure
from distill.shrinking.shrink import Shrinking, choose_widths, match_widths
from distill.training.checkpoint import Checkpoint
from distill.training.device import open_fabric
from distill.training.loop import train_student
from distill.training.recipes import Mixing, Recipe
from index.errors import UsageError

SIDE = 32


def make(**options) -> tuple[Student, Options]:
    """A small student as `open_backbone` makes one of ImageNet weights, which these are not."""
    chosen = Options(student="test_efficientnet", size=SIDE, dim=6, **options)
    torch.manual_seed(0)
    backbone = create_backbone(chosen.student, "none")
    backbone.fold_batch_norm()
    backbone.origin = "a file"
    return build_student(backbone, chosen), chosen


def widths(student: Student) -> list[int]:
    return [
        group.width
        for group in find_inner(student.backbone, torch.zeros(2, SIDE, SIDE, 3, dtype=torch.uint8))
    ]


def train(
    student: Student, shrinking: Shrinking | None, checkpoint: Checkpoint | None = None, steps: int = 20
):
    rng = np.random.default_rng(0)
    targets = rng.normal(size=(12, 6)).astype(np.float32)
    targets /= np.linalg.norm(targets, axis=1, keepdims=True)
    examples = Examples(rng.integers(0, 256, (12, 36, 36, 3), np.uint8), targets, 12)
    recipe = Recipe(steps=steps, batch=6, mixing=Mixing(8), flip=False)
    return train_student(student, examples, None, SIDE, recipe, open_fabric("cpu"), checkpoint, shrinking)


@pytest.mark.parametrize("kind", ["parameters", "mflops"])
def test_what_costs_say_is_what_a_thin_student_costs(kind):
    student, _ = make()
    costs = Costs.measure(kind, student, SIDE)
    assert [costs.most] == measure_students(kind, [student], SIDE)
    assert costs.total(widths(student)) == pytest.approx(costs.most)
    found = find_inner(student.backbone, torch.zeros(2, SIDE, SIDE, 3, dtype=torch.uint8))
    for group in found:
        half = torch.arange(max(group.width // 32, 1) * 16)
        group.keep(half, torch.eye(group.width)[:, half], torch.zeros(group.width))
    assert costs.total(widths(student)) == pytest.approx(measure_students(kind, [student], SIDE)[0], rel=1e-6)


@pytest.mark.slow
def test_milliseconds_rise_with_the_width_and_are_measured_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    student, _ = make()
    costs = Costs.recall("ms", student, 96)
    assert 0 < costs.least < costs.most
    assert all((np.diff(each) >= 0).all() for each in costs.costs)
    monkeypatch.setattr(Costs, "measure", None)
    assert Costs.recall("ms", student, 96) == costs
    (kept,) = tmp_path.rglob("*.json")
    whole = kept.read_text()
    kept.write_text(whole[:50])
    monkeypatch.setattr(Costs, "measure", lambda *_: costs)  # again, which takes as long as the first time
    assert Costs.recall("ms", student, 96).least > 0
    assert kept.read_text() == whole


def test_widths_go_where_least_is_lost_for_what_it_costs():
    costs = Costs([[16, 48], [16, 48]], [[1.0, 4.0], [2.0, 8.0]], [5.0, 14.0], [3.0, 12.0])
    cheap, dear = [0.1] * 48, [0.1] * 48
    assert choose_widths([48, 48], [cheap, dear], costs, 9.0) == [48, 16]
    assert choose_widths([48, 48], [[0.01] * 48, dear], costs, 11.0) == [16, 48]
    assert choose_widths([48, 48], [cheap, dear], costs, 0.0) == [16, 16]
    assert choose_widths([48, 48], [cheap, dear], costs, 14.0) == [48, 48]


def test_a_student_takes_more_steps_as_far_as_it_gets_cheaper():
    costs = Costs([[16, 32]], [[1.0, 8.0]], [1.0, 8.0], [1.0, 8.0])
    steps = [Shrinking(Target("ms", value), costs).lengthen(1000) for value in (7.9, 6.4, 4, 2)]
    assert steps == [1013, 1250, 2000, 2000]


def test_a_student_meets_its_target_while_it_learns_and_then_learns_on():
    student, _ = make(target=Target("parameters", 0.1))
    (whole,), before = measure_students("parameters", [student], SIDE), widths(student)
    target = Target("parameters", 0.6 * whole)
    shrinking = Shrinking.towards(target, student, SIDE)
    at = [step for step in range(1, 41) if shrinking.due(step, 40)]
    assert (at[0], at[-1], len(at)) == (4, 26, 5)
    assert shrinking.due(at[-1], 40) == pytest.approx(target.value)
    done = train(student, shrinking, steps=40)
    assert len(done.losses) == 40
    assert 0.5 * whole < measure_students("parameters", [student], SIDE)[0] <= target.value
    assert f", with {target} as target" in shrinking.report(student, SIDE)
    assert all(now <= was for now, was in zip(widths(student), before, strict=True))
    assert np.isfinite(done.losses).all()


def test_cuts_that_fall_on_one_step_are_one_and_the_last_meets_the_target():
    student, _ = make()
    whole = Costs.measure("parameters", student, SIDE).most
    shrinking = Shrinking.towards(Target("parameters", 0.8 * whole), student, SIDE)
    due = [shrinking.due(step, 3) for step in range(1, 4)]
    assert [each for each in due if each][-1] == pytest.approx(0.8 * whole)


def test_few_photos_are_enough_to_shrink_by():
    student, _ = make()
    rng = np.random.default_rng(0)
    targets = torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(3, 6)).astype(np.float32)))
    images = torch.from_numpy(rng.integers(0, 256, (3, SIDE, SIDE, 3), np.uint8))
    inner = find_inner(student.backbone, images[:2])
    found = measure(student, inner, images, targets, torch.arange(3))
    assert all(torch.isfinite(one.sensitivity).all() for one in found)


def test_the_seed_decides_which_channels_stay():
    found = []
    for _ in range(2):
        student, _ = make()
        train(student, Shrinking.towards(Target("mflops", 1.4), student, SIDE))
        found.append(torch.cat([value.flatten().float() for value in student.state_dict().values()]))
    assert torch.equal(*found)


@pytest.mark.slow
def test_an_interrupted_student_shrinks_on_as_if_nothing_had_happened(tmp_path: Path, monkeypatch):
    def run(name: str, stop: int | None) -> tuple[list[float], torch.Tensor]:
        student, _ = make()
        shrinking = Shrinking.towards(Target("mflops", 1.4), student, SIDE)
        real = Checkpoint.save

        def save(self, done, parts):
            real(self, done, parts)
            if len(done.losses) == stop:
                raise KeyboardInterrupt

        monkeypatch.setattr(Checkpoint, "save", save)
        try:
            done = train(student, shrinking, Checkpoint(tmp_path / name, "run"))
        except KeyboardInterrupt:
            monkeypatch.setattr(Checkpoint, "save", real)
            student, _ = make()
            done = train(student, shrinking, Checkpoint(tmp_path / name, "run"))
        monkeypatch.setattr(Checkpoint, "save", real)
        return done.losses, torch.cat([value.flatten().float() for value in student.state_dict().values()])

    losses, weights = run("whole", None)
    for stop in (2, 8, 18):
        again, same = run(f"stopped-{stop}", stop)
        assert again == losses
        assert torch.equal(same, weights)


def test_weights_of_a_thin_student_fit_a_whole_one_that_is_matched():
    thin, _ = make()
    train(thin, Shrinking.towards(Target("mflops", 1.4), thin, SIDE))
    whole, _ = make()
    assert widths(whole) != widths(thin)
    match_widths(whole, torch.zeros(2, SIDE, SIDE, 3, dtype=torch.uint8), thin.state_dict())
    whole.load_state_dict(thin.state_dict())
    shown = torch.randint(0, 256, (3, SIDE, SIDE, 3), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.allclose(whole.eval()(shown), thin.eval()(shown), atol=1e-6)


def test_targets_that_cannot_be_met_are_refused_with_what_can(capsys):
    student, options = make(target=Target("parameters", 0.001))
    with pytest.raises(UsageError, match=r"cannot shrink to 0.001M parameters: what stays of it costs 0\."):
        aim(student, options)
    assert aim(*make(target=Target("parameters", 50))) is None
    assert "as it is" in capsys.readouterr().err
    assert aim(*make()) is None


def test_students_that_cannot_shrink_are_refused(monkeypatch):
    student, options = make(target=Target("parameters", 0.1))
    student.backbone.origin = "random"
    with pytest.raises(UsageError, match="random weights"):
        aim(student, options)
    student.backbone.origin = "a file"
    monkeypatch.setattr("distill.shrinking.shrink.find_inner", lambda *_: [])
    with pytest.raises(UsageError, match="test_efficientnet has no channels that can be taken away"):
        aim(student, options)


@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan")])
def test_a_target_is_above_zero(value):
    with pytest.raises(UsageError, match="--target-ms must be above 0"):
        Target("ms", value)


def test_targets_are_read_as_they_are_written():
    assert Target.read("1.5 ms") == Target("ms", 1.5)
    assert Target.read("0.7M") == Target("parameters", 0.7)
    assert Target.read(" 40mflops") == Target("mflops", 40)
    for text in ("", "fast", "1.5", "1..5ms", "-1 ms", "ms"):
        with pytest.raises(UsageError, match=r"A target is as 1\.5ms"):
            Target.read(text)


def test_presets_are_options_and_what_is_given_stays():
    assert Options(student="small") == Options()
    assert Options(student="tiny") == Options(target=Target("mflops", 33))
    assert Options(student="base", size=160) == Options(stages=7, size=160)
    assert Options(student="tiny", target=Target("ms", 1)).target == Target("ms", 1)


def test_a_size_that_is_given_stays_though_it_is_the_usual_one():
    assert Options(student="base").size == 192
    assert Options(student="base", size=128).size == Options().size == 128


@pytest.mark.slow
def test_a_network_that_adds_in_place_shrinks_too():
    chosen = Options(student="resnet18", size=SIDE, dim=6, target=Target("mflops", 20))
    backbone = create_backbone(chosen.student, "none")
    backbone.fold_batch_norm()
    backbone.origin = "a file"
    student = build_student(backbone, chosen)
    shrinking = aim(student, chosen)
    train(student, shrinking, steps=10)
    assert 15 < measure_students("mflops", [student], SIDE)[0] < 22


def test_random_weights_cannot_shrink():
    with pytest.raises(UsageError, match="random weights"):
        Options(weights="none", target=Target("ms", 1))

import resource
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from distill.examples import Answered, Examples
from distill.model.backbone import create_backbone
from distill.model.student import Student, embed
from distill.ranking.learn import Agreement
from distill.report.held_out import HeldOut, search_with_teacher
from distill.training.checkpoint import Checkpoint, Progress
from distill.training.device import choose_accelerator, keep_freed_memory, open_fabric
from distill.training.loop import agreement, one_cycle, train_student
from distill.training.losses import Bank, gram, joint_loss, regression
from distill.training.mixing import join
from distill.training.recipes import MANY, RECIPES, Mixing, Recipe, find_recipe, steps_for
from distill.training.views import center_crop, random_view, stored_side
from index.errors import RetrievalError, UsageError
from index.progress import StoppedError, watched
from index.rankers.base import to_row

SIDE = 32


def examples(n: int, seed: int = 0, answered: int | None = None) -> Examples:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (n, stored_side(SIDE), stored_side(SIDE), 3), dtype=np.uint8)
    targets = rng.normal(size=(n, 6)).astype(np.float32)
    targets /= np.linalg.norm(targets, axis=1, keepdims=True)
    return Examples(pixels, targets, n if answered is None else answered)


def check(count: int) -> HeldOut:
    some, others = examples(count, 1), examples(12)
    return search_with_teacher(*((center_crop(e.pixels, SIDE), e.targets) for e in (some, others)))


def train(
    seed: int = 0, n: int = 12, held_out: int = 0, checkpoint: Checkpoint | None = None, **options
) -> tuple[Student, Progress]:
    torch.manual_seed(seed)
    student = Student(create_backbone("test_efficientnet", "none"), 6)
    recipe = Recipe(seed=seed, **{"steps": 30, "batch": 6, "mixing": Mixing(8), "flip": False, **options})
    held = check(held_out) if held_out else None
    done = train_student(student, examples(n), held, SIDE, recipe, open_fabric("cpu"), checkpoint)
    return student, done


@pytest.fixture(scope="module")
def whole() -> tuple[Student, Progress]:
    """A run that nothing disturbs, which others are held against; only read."""
    return train(held_out=5)


def weights(student: Student) -> torch.Tensor:
    return torch.cat([value.flatten().float() for value in student.state_dict().values()])


def test_training_learns_and_leaves_the_student_ready():
    student, done = train(steps=160, rate=3e-3, joint_losses={})
    assert len(done.losses) == 160
    assert np.mean(done.losses[-10:]) < 0.6 * np.mean(done.losses[:10])
    assert not student.training


def test_the_seed_decides_everything():
    (one, first), (two, second), (other, _) = (train(seed, steps=12) for seed in (1, 1, 2))
    assert first.losses == second.losses
    assert torch.equal(weights(one), weights(two))
    assert not torch.equal(weights(one), weights(other))


@pytest.mark.slow
def test_lists_of_a_ranker_are_learnt_from_beside_the_targets():
    lot = np.random.default_rng(3)
    rows = [tuple(lot.permutation(12)[:5].tolist()) for _ in range(6)]
    told = Answered.of(rows, [to_row(lot.permutation(4).tolist()) for _ in rows])
    data, taus, recipe = examples(12), [], Recipe(steps=60, batch=6, mixing=Mixing(8), flip=False)
    for lists in (None, told):
        torch.manual_seed(0)
        student = Student(create_backbone("test_efficientnet", "none"), 6)
        how = replace(recipe, lists=3.0)
        train_student(student, replace(data, lists=lists), None, SIDE, how, open_fabric("cpu"))
        vectors = embed(student, center_crop(torch.from_numpy(data.pixels), SIDE), open_fabric("cpu")).numpy()
        taus.append(Agreement.of(vectors, told).tau)
    assert taus[1] > taus[0] + 0.2


@pytest.mark.parametrize("n", [2, 5, 7])
def test_fewer_images_than_the_batch(n):
    _, done = train(n=n, steps=5)
    assert np.isfinite(done.losses).all()


def test_all_images_equal_is_no_obstacle():
    same = examples(6)
    same = Examples(np.repeat(same.pixels[:1], 6, axis=0), np.repeat(same.targets[:1], 6, axis=0), 6)
    student = Student(create_backbone("test_efficientnet", "none"), 6)
    done = train_student(student, same, None, SIDE, Recipe(steps=5, batch=4), open_fabric("cpu"))
    assert np.isfinite(done.losses).all()
    assert torch.isfinite(weights(student)).all()


def test_the_loss_adds_up_over_the_batch_and_the_joint_set():
    student, teacher = (F.normalize(torch.randn(8, 5), dim=1) for _ in range(2))
    bank = Bank(teacher)
    alone = Recipe(losses={"regression": 2.0}, joint_losses={})
    assert joint_loss(student, teacher, bank, alone) == 2 * regression(student, teacher, bank)
    both = Recipe(losses={"regression": 2.0}, joint_losses={"gram": 3.0}, mixing=Mixing(20))
    torch.manual_seed(3)
    found = joint_loss(student, teacher, bank, both)
    torch.manual_seed(3)
    expected = 2 * regression(student, teacher, bank) + 3 * gram(*join(student, teacher, Mixing(20)), bank)
    assert torch.isclose(found, expected)
    unmixed = Recipe(losses={}, joint_losses={"gram": 1.0}, mixing=Mixing(0))
    assert torch.isclose(joint_loss(student, teacher, bank, unmixed), gram(student, teacher, bank))


def test_no_image_comes_twice_while_there_are_fresh_ones(monkeypatch):
    seen = []

    def watch(images, *options):
        seen.append(images.flatten(1).double().mean(dim=1))
        return random_view(images, *options)

    monkeypatch.setattr("distill.training.loop.random_view", watch)
    train(n=30, steps=10)
    drawn = torch.cat(seen)
    assert all(part.unique().numel() == 30 for part in drawn.split(30))


def test_agreement_is_the_share_of_the_teachers_list_that_is_found():
    lists = check(5)
    student = Student(create_backbone("test_efficientnet", "none"), 6).eval()
    assert agreement(student, lists, open_fabric("cpu")).shape == (5,)

    class Oracle(torch.nn.Module):
        def forward(self, images):
            rows = [places[image.numpy().tobytes()] for image in images]
            return torch.from_numpy(np.stack(rows))

    some, others = examples(5, 1), examples(12)
    places = {
        center_crop(image[None], SIDE)[0].tobytes(): target
        for e in (some, others)
        for image, target in zip(e.pixels, e.targets, strict=True)
    }
    assert agreement(Oracle(), lists, open_fabric("cpu")) == pytest.approx(np.ones(5))


def test_who_watches_is_told_of_each_step_and_check_and_changes_nothing(whole):
    told = []
    with watched(lambda **facts: told.append(facts)):
        seen, done = train(held_out=5)
    unseen, _ = whole
    assert torch.equal(weights(seen), weights(unseen))
    assert [facts["stage"].done for facts in told if "stage" in facts][-1] == 30
    assert [facts["training"] is done and facts["steps"] for facts in told if "training" in facts] == [
        30
    ] * 30
    checks = [facts["lists"] for facts in told if "lists" in facts]
    assert [lists.agreement.mean() for lists in checks] == [score for _, score in done.agreement]


class KilledError(Exception):
    pass


@pytest.mark.parametrize("steps_before", [3, 14, 29])
def test_an_interrupted_run_ends_like_an_undisturbed_one(tmp_path, monkeypatch, whole, steps_before):
    undisturbed, expected = whole
    checkpoint = Checkpoint(tmp_path / "new" / "checkpoint.pt", "a run")
    calls = 0

    def dying_loss(*rows):
        nonlocal calls
        calls += 1
        if calls > steps_before:
            raise KilledError
        return joint_loss(*rows)

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr("distill.training.loop.joint_loss", dying_loss)
        train(held_out=5, checkpoint=checkpoint)
    student, done = train(held_out=5, checkpoint=checkpoint)
    assert done.losses == expected.losses
    assert done.agreement == expected.agreement
    assert torch.equal(weights(student), weights(undisturbed))


@pytest.mark.parametrize("told", ["training", "lists"])
@pytest.mark.parametrize("last", [14, 15])  # scores are noted every third step
def test_who_watches_ends_a_run_that_loses_no_step(tmp_path, whole, last, told):
    undisturbed, expected = whole
    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", "a run")
    steps = 0

    def stop(**facts):
        nonlocal steps
        steps = len(facts["training"].losses) if "training" in facts else steps
        if steps >= last and told in facts:
            raise StoppedError("Enough.")

    with watched(stop), pytest.raises(StoppedError):
        train(held_out=5, checkpoint=checkpoint)
    assert len(checkpoint.read()["done"]["losses"]) == (last if told == "training" else 15)
    student, done = train(held_out=5, checkpoint=checkpoint)
    assert done.losses == expected.losses
    assert done.agreement == expected.agreement
    assert torch.equal(weights(student), weights(undisturbed))


def test_a_full_disk_is_one_line(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(RetrievalError, match=r"checkpoint\.pt cannot be written: File too large"):
            train(3, checkpoint=Checkpoint(tmp_path / "checkpoint.pt", "a run"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_another_runs_state_or_a_broken_one_is_not_used(tmp_path):
    _, expected = train()
    path = tmp_path / "checkpoint.pt"
    train(3, checkpoint=Checkpoint(path, "another run"))
    _, done = train(checkpoint=Checkpoint(path, "a run"))
    assert done.losses == expected.losses
    path.write_bytes(b"half a file")
    assert Checkpoint(path, "a run").read() is None


def test_of_checks_that_chance_cannot_tell_apart_the_latest_is_kept():
    done = Progress()
    for value, spread in ((0.5, 0.1), (0.6, 0.1), (0.58, 0.1), (0.3, 0.01), (0.2, 0.01)):
        done.losses.append(0.0)
        done.note(np.array([value - spread, value + spread]), {"w": torch.tensor(value)})
    assert done.kept == 3
    assert done.best["w"].item() == pytest.approx(0.58)
    assert [step for step, _ in done.agreement] == [1, 2, 3, 4, 5]


def test_training_that_does_not_help_leaves_the_student_as_it_was_fitted(monkeypatch):
    values = iter([0.9, *[0.1] * 20])
    monkeypatch.setattr("distill.training.loop.agreement", lambda *_: np.full(5, next(values)))
    student, done = train(held_out=5)
    assert len(done.losses) == 30
    assert done.kept == 0
    assert torch.equal(student.state_dict()["head.weight"], done.best["head.weight"])
    fitted, _ = train(steps=1, rate=0.0)
    assert torch.equal(student.head.weight, fitted.head.weight)


def test_recipes_by_name():
    assert find_recipe("default") == Recipe()
    assert {"regression", "rkd", "csd"} <= RECIPES.keys()
    with pytest.raises(UsageError, match=r"No recipe .luck.\. There are default, "):
        find_recipe("luck")
    with pytest.raises(UsageError, match="No loss luck"):
        Recipe(losses={"luck": 1.0})
    with pytest.raises(UsageError, match="not between 0 and 1"):
        Recipe(trust=1.5)
    for views in ({"shown": (0.9, 0.5)}, {"shown": (0, 1)}, {"shown": (1, 1.5)}, {"turn": -1}):
        with pytest.raises(UsageError, match="No part of an image can be shown"):
            Recipe(**views)


def test_more_images_mean_more_steps_but_fewer_passes():
    assert steps_for(MANY, Recipe(steps=300)) == steps_for(10 * MANY, Recipe(steps=300)) == 300
    assert steps_for(MANY // 4, Recipe(steps=300)) == 150
    assert steps_for(2, Recipe()) >= 20


def test_the_learning_rate_goes_up_and_down_once():
    for steps in (1, 2, 5, 300):
        shares = [one_cycle(step, steps) for step in range(steps)]
        peak = shares.index(max(shares))
        assert max(shares) == 1
        assert shares[:peak] == sorted(shares[:peak])
        assert shares[peak:] == sorted(shares[peak:], reverse=True)
        assert min(shares) > 0


def test_the_middle_is_cut_out():
    images = torch.arange(3 * 9 * 9).view(3, 9, 9, 1).expand(3, 9, 9, 3)
    assert torch.equal(center_crop(images, 5), images[:, 2:7, 2:7])


def test_a_view_of_everything_is_the_image_or_its_mirror_image():
    images = torch.randint(256, (40, 9, 9, 3), dtype=torch.uint8)
    assert torch.equal(random_view(images, 9, (1, 1), flip=False), images)
    views = random_view(images, 9, (1, 1))
    mirrored = [torch.equal(view, image.flip(1)) for view, image in zip(views, images, strict=True)]
    assert 0 < sum(mirrored) < 40
    assert all(
        same or torch.equal(view, image) for same, view, image in zip(mirrored, views, images, strict=True)
    )


def slopes(count: int, **options) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels of an image by which a view of 16 goes on from one of its own to the next, and its middle."""
    across = torch.arange(0, 256, 4, dtype=torch.uint8).expand(64, 64)
    images = torch.stack([across, across.T, torch.zeros_like(across)], dim=-1).expand(count, 64, 64, 3)
    middle = random_view(images, 16, **options).float()[:, 5:11, 5:11] / 4
    return middle.diff(dim=2).mean(dim=(1, 2))[:, :2], middle.mean(dim=(1, 2))[:, :2]


def test_views_show_the_share_that_was_asked_for_at_every_place():
    torch.manual_seed(0)
    step, place = slopes(400, shown=(0.5, 0.75), flip=False)
    seen = step[:, 0] * 16 / 64
    assert 0.49 < seen.min() < 0.53 and 0.72 < seen.max() < 0.76
    assert step[:, 1].abs().max() < 0.05  # nothing is turned
    assert (place.min(dim=0).values < 18).all() and (place.max(dim=0).values > 45).all()


def test_views_are_turned_by_the_angle_at_most():
    torch.manual_seed(0)
    step, _ = slopes(400, shown=(0.5, 0.5), turn=20, flip=False)
    angles = torch.atan2(step[:, 1], step[:, 0]).rad2deg()
    assert -21 < angles.min() < -18 and 18 < angles.max() < 21


@pytest.mark.parametrize(
    ("device", "cuda", "bf16", "choice"),
    [
        ("auto", False, False, ("cpu", "32-true")),
        ("auto", True, True, ("cuda", "bf16-mixed")),
        ("auto", True, False, ("cuda", "32-true")),
        ("cpu", True, True, ("cpu", "32-true")),
        ("cuda", True, True, ("cuda", "bf16-mixed")),
    ],
)
def test_accelerator(device, cuda, bf16, choice):
    assert choose_accelerator(device, cuda, bf16) == choice


def test_devices_that_cannot_be_had():
    with pytest.raises(UsageError, match="torch sees no GPU"):
        choose_accelerator("cuda", False, False)
    with pytest.raises(UsageError, match="No device 'abacus'"):
        choose_accelerator("abacus", True, True)


def test_memory_settings_do_no_harm():
    keep_freed_memory()
    assert torch.ones(1000, 1000).sum() == 1e6

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from distill.backbone import create_backbone
from distill.device import choose_accelerator, keep_freed_memory, open_fabric
from distill.losses import gram, regression
from distill.mixing import Mixing, join
from distill.student import Student
from distill.train import Recipe, center_crop, joint_loss, one_cycle, random_crop, stored_side, train_student
from index.errors import UsageError

SIDE = 32


def train(seed: int = 0, n: int = 12, **options) -> tuple[Student, list[float]]:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (n, stored_side(SIDE), stored_side(SIDE), 3), dtype=np.uint8)
    targets = rng.normal(size=(n, 6)).astype(np.float32)
    targets /= np.linalg.norm(targets, axis=1, keepdims=True)
    torch.manual_seed(seed)
    student = Student(create_backbone("test_efficientnet", "none"), 6)
    recipe = Recipe(seed=seed, **{"steps": 30, "batch": 6, "mixing": Mixing(8), "flip": False, **options})
    return student, train_student(student, pixels, targets, SIDE, recipe, open_fabric("cpu"))


def test_training_learns_and_leaves_the_student_ready():
    student, losses = train(steps=160, rate=3e-3, losses={"regression": 1.0}, mixing=Mixing(0))
    assert len(losses) == 160
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])
    assert not student.training


def test_the_seed_decides_everything():
    (one, losses), (two, again), (other, _) = train(1), train(1), train(2)
    assert losses == again
    states = [torch.cat([p.flatten() for p in model.parameters()]) for model in (one, two, other)]
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


@pytest.mark.parametrize("n", [2, 5, 7])
def test_fewer_images_than_the_batch(n):
    _, losses = train(n=n, steps=5)
    assert np.isfinite(losses).all()


def test_the_joint_loss_adds_up_its_losses_over_the_joint_set():
    student, teacher = (F.normalize(torch.randn(8, 5), dim=1) for _ in range(2))
    alone = Recipe(losses={"regression": 2.0}, mixing=Mixing(0))
    both = Recipe(losses={"regression": 2.0, "gram": 3.0}, mixing=Mixing(0))
    assert joint_loss(student, teacher, teacher, alone) == 2 * regression(student, teacher, teacher)
    expected = 2 * regression(student, teacher, teacher) + 3 * gram(student, teacher, teacher)
    assert torch.isclose(joint_loss(student, teacher, teacher, both), expected)
    torch.manual_seed(3)
    mixed = joint_loss(student, teacher, teacher, Recipe(losses={"gram": 1.0}, mixing=Mixing(20)))
    torch.manual_seed(3)
    assert torch.isclose(mixed, gram(*join(student, teacher, Mixing(20)), teacher))


def test_the_learning_rate_goes_up_and_down_once():
    for steps in (1, 2, 5, 300):
        shares = [one_cycle(step, steps) for step in range(steps)]
        peak = shares.index(max(shares))
        assert max(shares) == 1
        assert shares[:peak] == sorted(shares[:peak])
        assert shares[peak:] == sorted(shares[peak:], reverse=True)
        assert min(shares) > 0


def test_crops():
    images = torch.arange(3 * 9 * 9).view(3, 9, 9, 1).expand(3, 9, 9, 3)
    assert torch.equal(center_crop(images, 5), images[:, 2:7, 2:7])
    torch.manual_seed(0)
    corners = set()
    for _ in range(300):
        crop = random_crop(images, 5, flip=True)
        assert crop.shape == (3, 5, 5, 3)
        steps = (crop[:, :, 1:] - crop[:, :, :-1]).unique().tolist()
        assert set(steps) <= {1, -1}
        corners.add(int(crop[0].min()))
    assert len(corners) == 25  # every place is reached


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

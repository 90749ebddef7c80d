import numpy as np
import pytest

from distill.examples import PoolFeatures, gather, hold_out, look, predict_targets
from distill.model.backbone import create_backbone
from distill.training.device import open_fabric
from index.images.sources import find_images
from index.io import content_digest


def looked(n: int, features: int = 7) -> PoolFeatures:
    rng = np.random.default_rng(0)
    pixels = np.arange(n, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    return PoolFeatures(np.arange(n), pixels, rng.normal(size=(n, features)).astype(np.float32), [])


def test_files_are_seen_once_and_broken_ones_named(folder):
    (folder / "3.png").write_text("text")
    backbone = create_backbone("test_efficientnet", "none")
    seen = look(find_images([folder]), backbone, 36, open_fabric("cpu"))
    assert seen.rows.tolist() == [0, 1, 2, *range(4, 12)]
    assert seen.pixels.shape == (11, 36, 36, 3)
    assert seen.features.shape == (11, backbone.dim)
    assert [failure.reason for failure in seen.failures] == ["not an image that can be read"]
    alone = look(find_images([folder / "4.png"]), backbone, 36, open_fabric("cpu"))
    np.testing.assert_allclose(alone.features[0], seen.features[3], atol=1e-5)
    np.testing.assert_array_equal(alone.pixels[0], seen.pixels[3])


@pytest.mark.parametrize("unqueried", [True, False])
def test_who_learns_and_who_is_held_out(unit_rows, unqueried):
    rows = np.array([0, 1, 3, 4, 5, 6, 7, 8, 9])
    targets = unit_rows(9, 5)
    held = np.isin(rows, [0, 1, 5, 6, 7])
    examples, held_out = gather(looked(12), rows, targets, held, unqueried)
    assert held_out.pixels[:, 0, 0, 0].tolist() == [0, 1, 5, 6, 7]
    np.testing.assert_array_equal(held_out.targets, targets[held])
    assert examples.answered == 4
    assert examples.pixels[:4, 0, 0, 0].tolist() == [3, 4, 8, 9]
    np.testing.assert_array_equal(examples.targets[:4], targets[~held])
    rest = examples.pixels[4:, 0, 0, 0].tolist()
    assert rest == ([0, 1, 2, 5, 6, 7, 10, 11] if unqueried else [])
    assert gather(looked(12), rows, targets, np.zeros(9, bool), unqueried)[1] is None
    assert gather(looked(12), rows, targets, np.isin(rows, [1]), unqueried)[1] is None


def test_a_linear_teacher_is_predicted(unit_rows):
    features = unit_rows(300, 10)
    teacher = features @ np.random.default_rng(1).normal(size=(10, 6)).astype(np.float32)
    teacher /= np.linalg.norm(teacher, axis=1, keepdims=True)
    guesses = predict_targets(features[:200], teacher[:200], features[200:])
    assert (guesses * teacher[200:]).sum(axis=1).mean() > 0.95
    np.testing.assert_allclose(np.linalg.norm(guesses, axis=1), 1, atol=1e-5)


def test_what_is_held_out_is_decided_by_the_image_alone():
    digests = [content_digest(str(i).encode()) for i in range(2000)]
    held = hold_out(digests, 0.05)
    assert 70 <= held.sum() <= 130
    np.testing.assert_array_equal(hold_out(digests[500:900], 0.05), held[500:900])
    assert not hold_out(digests, 0.0).any()
    assert not hold_out([digest for digest, out in zip(digests, held, strict=True) if out], 0.05).any()

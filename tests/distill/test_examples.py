import numpy as np
import pytest

from distill.examples import gather, hold_out
from distill.model.backbone import create_backbone
from distill.pool import Pool, extract_features, open_helpers, require_all
from distill.training.device import open_fabric
from index.errors import UsageError
from index.images.file import digest_pool
from index.images.sources import find_images
from index.io import content_digest


def pool_of(n: int, features: int = 7) -> Pool:
    rng = np.random.default_rng(0)
    pixels = np.arange(n, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    digests = [f"{i:032x}" for i in range(n)]
    return Pool([], digests, pixels, rng.normal(size=(n, features)).astype(np.float32), 3)


def test_files_are_seen_once_and_broken_ones_named(folder):
    (folder / "3.png").write_text("text")
    backbone = create_backbone("test_efficientnet", "none")
    files = find_images([folder])
    seen = extract_features(files, range(12), backbone, 36, open_fabric("cpu"))
    assert seen.digests == [0, 1, 2, *range(4, 12)]
    assert seen.files == [files[i] for i in seen.digests]
    assert seen.pixels.shape == (11, 36, 36, 3)
    assert seen.free.shape == (11, backbone.dim)
    assert seen.features.shape[1] > backbone.dim
    np.testing.assert_allclose(np.linalg.norm(seen.free, axis=1), 1, atol=1e-5)
    assert [failure.reason for failure in seen.failures] == ["not an image that can be read"]
    alone = extract_features(find_images([folder / "4.png"]), ["4"], backbone, 36, open_fabric("cpu"))
    np.testing.assert_allclose(alone.features[0], seen.features[3], atol=1e-5)
    np.testing.assert_array_equal(alone.pixels[0], seen.pixels[3])


def test_vectors_of_helpers_join_the_features_and_weigh_as_much(folder, tmp_path, unit_rows):
    backbone, files = create_backbone("test_efficientnet", "none"), find_images([folder])
    digests = digest_pool(files)
    np.savez(tmp_path / "free.npz", ids=np.array(digests), vectors=7 * unit_rows(12, 5))
    (tmp_path / "more.py").write_text(
        "def ask(photos):\n    return [p.resize((1, 1)).getpixel((0, 0)) for p in photos]\n"
    )
    helpers = open_helpers([str(tmp_path / "free.npz"), f"{tmp_path}/more.py:ask"], "cpu")
    fabric = open_fabric("cpu")
    plain = extract_features(files, digests, backbone, 36, fabric)
    helped = extract_features(files, digests, backbone, 36, fabric, helpers=helpers)
    own = backbone.dim
    np.testing.assert_array_equal(helped.features[:, : -own - 8], plain.features[:, :-own])
    np.testing.assert_array_equal(helped.free[:, 8:], plain.free)
    assert helped.helpers == tuple(helper.key for helper in helpers)
    spread = np.sqrt(plain.free.var(axis=0).sum())
    for part in (helped.free[:, :5], helped.free[:, 5:8]):
        assert np.sqrt(part.var(axis=0).sum()) == pytest.approx(spread, rel=1e-4)
    centred = unit_rows(12, 5) - unit_rows(12, 5).mean(axis=0)
    factor = np.linalg.norm(helped.free[:, :5]) / np.linalg.norm(centred)
    np.testing.assert_allclose(helped.free[:, :5], factor * centred, atol=1e-5)


def test_a_helper_must_have_a_vector_for_every_photo(folder, tmp_path, unit_rows):
    files = find_images([folder])
    digests = digest_pool(files)
    np.savez(tmp_path / "free.npz", ids=np.array(digests[:9]), vectors=unit_rows(9, 5))
    (helper,) = open_helpers([str(tmp_path / "free.npz")], "cpu")
    with pytest.raises(UsageError, match=r"--helper free\.npz lacks 3 of 12 images. Give a vector for each"):
        require_all(helper, files, digests)


@pytest.mark.parametrize("others", [True, False])
def test_who_learns_and_who_is_held_out(unit_rows, others):
    places = unit_rows(12, 5)
    examples = gather(pool_of(12), np.array([3, 4, 8, 9]), np.array([0, 1, 5]), places, others)
    assert examples.answered == 4
    rows = [3, 4, 8, 9] + ([2, 6, 7, 10, 11] if others else [])
    assert examples.pixels[:, 0, 0, 0].tolist() == rows
    np.testing.assert_array_equal(examples.targets, places[rows])


def test_what_is_held_out_is_decided_by_the_image_alone():
    digests = [content_digest(str(i).encode()) for i in range(2000)]
    held = hold_out(digests, 0.05)
    assert 70 <= held.sum() <= 130
    np.testing.assert_array_equal(hold_out(digests[500:900], 0.05), held[500:900])
    assert not hold_out(digests, 0.0).any()
    assert not hold_out([digest for digest, out in zip(digests, held, strict=True) if out], 0.05).any()


def test_about_a_hundred_answers_are_held_out_and_smaller_budgets_hold_out_the_same_ones():
    digests = [content_digest(str(i).encode()) for i in range(4000)]
    last = dict(zip(digests, hold_out(digests), strict=True))
    assert 80 <= sum(last.values()) <= 140
    for budget in (1000, 500, 100):
        held = hold_out(digests[:budget])
        assert 0.1 * budget <= held.sum() <= 0.3 * budget or 80 <= held.sum() <= 140
        assert all(out for digest, out in zip(digests, held, strict=False) if last[digest])
    assert not hold_out(digests[:8]).any()


def test_a_top_up_holds_out_some_of_its_own_and_what_was_held_out_before():
    digests = [content_digest(str(i).encode()) for i in range(600)]
    before = hold_out(digests[:500])
    learnt = {digest for digest, out in zip(digests, before, strict=False) if not out}
    held = hold_out(digests, learnt=learnt)
    np.testing.assert_array_equal(held[:500], before)
    assert 10 <= held[500:].sum() <= 40

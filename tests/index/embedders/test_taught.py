from pathlib import Path

import numpy as np
import pytest

from index.embedders.taught import Taught
from index.errors import UsageError
from index.images.sources import find_images


@pytest.fixture
def taught(folder: Path, unit_rows) -> Taught:
    return Taught.measure(find_images([folder]), [f"{i:032x}" for i in range(12)], unit_rows(12, 3))


def test_what_lies_far_from_all_that_was_taught(taught):
    assert not taught.are_far(taught.vectors).any()
    far = np.cross(taught.vectors[0], taught.vectors[1])[None]
    nearest = (far @ taught.vectors.T).max()
    assert taught.are_far(far)[0] == (nearest < taught.radius)
    own = taught.vectors @ taught.vectors.T - 2 * np.eye(12)
    assert own.max(axis=1).min() <= taught.radius <= np.median(own.max(axis=1))


def test_it_is_kept_without_its_photos(taught, tmp_path, folder):
    taught.save(tmp_path / "taught.npz")
    again = Taught.load(tmp_path / "taught.npz")
    assert again.find_files() == taught.find_files() == list(find_images([folder]))
    assert again.digests.tolist() == taught.digests.tolist()
    np.testing.assert_allclose(again.vectors, taught.vectors, atol=1e-3)
    (folder / "0.png").unlink()
    assert len(again.find_files()) == 11


def test_another_file_is_refused(tmp_path):
    (tmp_path / "taught.npz").write_text("text")
    with pytest.raises(UsageError, match="does not say what the student was taught on"):
        Taught.load(tmp_path / "taught.npz")

from pathlib import Path

import numpy as np
import pytest

from index.build.taught import Taught
from index.errors import UsageError
from index.images.sources import find_images


@pytest.fixture
def taught(folder: Path, unit_rows) -> Taught:
    return Taught.measure(find_images([folder]), [f"{i:032x}" for i in range(12)], unit_rows(12, 3))


def test_what_lies_far_from_all_that_was_taught(taught):
    files, digests = taught.find_files(), taught.digests.tolist()
    near = np.array([[1, 0, 0]], np.float32) + 0.1 * taught.vectors
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    told = Taught.measure(files, digests, near)
    assert told.are_far(np.array([[0, 1, 0], [-1, 0, 0], [1, 0, 0]], np.float32)).tolist() == [
        True,
        True,
        False,
    ]
    others = (near @ near.T).sum(axis=1) - 1
    assert told.radius == pytest.approx(np.quantile(others / 11, 0.1), abs=1e-6)


def test_it_is_kept_without_its_photos(taught, tmp_path, folder):
    taught.save(tmp_path / "taught.npz")
    again = Taught.load(tmp_path / "taught.npz")
    assert again.find_files() == taught.find_files() == list(find_images([folder]))
    assert again.digests.tolist() == taught.digests.tolist()
    np.testing.assert_allclose(again.vectors, taught.vectors, atol=1e-3)
    (folder / "0.png").unlink()
    assert len(again.find_files()) == 11


def test_another_file_is_refused_and_a_damaged_one(taught, tmp_path):
    taught.save(tmp_path / "taught.npz")
    whole, odd = (tmp_path / "taught.npz").read_bytes(), []
    for wrong in ({"vectors": np.ones(12)}, {"names": taught.names[:3]}, {"radius": np.ones(2)}):
        np.savez(tmp_path / "odd.npz", **vars(taught) | wrong)
        odd.append((tmp_path / "odd.npz").read_bytes())
    for data in (b"text", b"", whole[: len(whole) // 2], whole[:80] + bytes(30) + whole[110:], *odd):
        (tmp_path / "taught.npz").write_bytes(data)
        with pytest.raises(UsageError, match="does not say what the student was taught on"):
            Taught.load(tmp_path / "taught.npz")

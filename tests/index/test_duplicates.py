from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import picture, write_embedder
from PIL import Image
from typer.testing import CliRunner

from app.cli import app
from index.build.pipeline import build_index
from index.duplicates import fold_near, group_near, least_similarity, list_duplicates
from index.embedders.onnx import OnnxEmbedder
from index.errors import UsageError
from index.stores.faiss.codes import open_ann
from index.vectors import CODES, UNIT_FLOATS, pack


class Gallery:
    """A store of rows alone, some of them nearly the same."""

    def __init__(self, rows: np.ndarray, copied: int = -1) -> None:
        kind = CODES if rows.dtype == np.uint8 else UNIT_FLOATS
        self._rows, self._copied = rows, copied
        self.manifest = SimpleNamespace(spaces={"student": SimpleNamespace(type=kind)})

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self, space: str, ids: np.ndarray) -> np.ndarray:
        return self._rows[ids]

    def open_space(self, space: str, device: str):
        return open_ann(None, self._rows)

    @property
    def items(self):
        return [SimpleNamespace(copies=("b",) if i == self._copied else ()) for i in range(len(self))]


@pytest.fixture(params=["floats", "codes"])
def rows(request, unit_rows) -> np.ndarray:
    """200 rows: forty near to the first, three near to row 100, and others far from all."""
    apart = np.random.default_rng(0).normal(size=(200, 64))
    for first, many in ((0, 40), (100, 3)):
        apart[first + 1 : first + 1 + many] = apart[first] * (1 + np.linspace(0, 0.01, many)[:, None])
    floats = (apart / np.linalg.norm(apart, axis=1, keepdims=True)).astype(np.float32)
    return floats if request.param == "floats" else pack(floats)


def test_groups_are_whole_however_large_and_no_item_is_in_two(rows):
    groups = group_near(Gallery(rows, copied=150), "student", 0.98)
    assert [sorted(item for item, _ in group) for group in groups] == [
        list(range(41)), list(range(100, 104)), [150],
    ]  # fmt: skip
    assert groups[0][0] == (0, 1.0)


def test_every_member_is_near_to_the_first_of_its_group_and_not_only_to_its_neighbour():
    angles = np.deg2rad([0, 10, 20, 30, 40])  # a chain
    chain = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    groups = group_near(Gallery(chain), "student", float(np.cos(np.deg2rad(11))))
    assert [sorted(item for item, _ in group) for group in groups] == [[0, 1, 2], [3, 4]]


def test_the_radius_is_what_few_images_have_five_others_within():
    crowd = np.tile(np.linspace(0.5, 0.9, 100)[:, None], 5).astype(np.float32)
    assert least_similarity(crowd) == pytest.approx((1 + 0.88) / 2)
    assert least_similarity(crowd[:, :2]) == least_similarity(crowd)  # a gallery of three: its last neighbour
    assert least_similarity(crowd[:0]) == 1


def test_a_list_is_folded_under_its_first(rows):
    assert fold_near(Gallery(rows), [150, 101, 3, 100, 0, 103], 0.98) == {100: 101, 103: 101, 0: 3}


@pytest.fixture
def index(tmp_path: Path, student_file: Path) -> Path:
    (tmp_path / "images").mkdir()
    for i in range(12):
        picture(i).save(tmp_path / "images" / f"{i:02}.png")
    first = np.asarray(picture(0))
    Image.fromarray(np.clip(first + np.int16(1), 0, 255).astype(np.uint8)).save(
        tmp_path / "images" / "near.png"
    )
    picture(5).save(tmp_path / "images" / "same.png")
    student = OnnxEmbedder(write_embedder(tmp_path / "other.onnx", dim=32))
    build_index([tmp_path / "images"], student, tmp_path / "idx")
    return tmp_path / "idx"


def test_a_gallery_is_listed_with_copies_and_near_duplicates(index: Path):
    found = list_duplicates(index, radius=1e-3)
    assert [[[Path(path).name for path in near.paths] for near in group] for group in found.groups] == [
        [["00.png"], ["near.png"]],
        [["05.png", "same.png"]],
    ]
    told = "2 groups of near-duplicates, within a distance of 0.0010; 2 files to spare, of 13 images\n"
    assert str(found).startswith(told)
    done = CliRunner().invoke(app, ["duplicates", str(index), "--radius", "0.001", "--json"])
    assert (done.exit_code, done.output.count('"distance"')) == (0, 3)


def test_what_cannot_be_meant_is_refused(index: Path):
    for radius in (-0.1, 2.1, float("nan")):
        with pytest.raises(UsageError, match="--radius is a cosine distance between 0 and 2"):
            list_duplicates(index, radius=radius)
    with pytest.raises(UsageError, match="has no vectors of 'teacher', only of student"):
        list_duplicates(index, "teacher")

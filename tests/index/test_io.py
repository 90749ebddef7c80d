"""A disk that fills up, or may not be written."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import picture, write_embedder

from index.build.pipeline import build_index
from index.embedders.onnx import OnnxEmbedder
from index.errors import RetrievalError, UsageError
from index.io import atomic_write, explain_disk
from index.stores.folder import Index
from index.stores.options import IndexOptions


def mount(folder: Path, options: str) -> None:
    command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, that a test may size."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount(folder, "size=1m")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def student(tmp_path: Path) -> OnnxEmbedder:
    return OnnxEmbedder(write_embedder(tmp_path / "student.onnx", dim=1024, seed=1), "cpu")


def many(folder: Path, count: int) -> Path:
    folder.mkdir()
    for i in range(count):
        picture(i, 8, 8).save(folder / f"{i:03}.png")
    return folder


@pytest.mark.parametrize("size", ["300k", "500k", "800k", "1100k", "1400k"])
def test_a_full_disk_is_a_line_the_old_index_stays_and_the_run_goes_on(
    small_disk: Path, tmp_path: Path, student: OnnxEmbedder, size: str
):
    photos, out = many(tmp_path / "photos", 130), small_disk / "idx"
    old = build_index([photos / "000.png"], student, out)
    before = np.array(old.vectors("student"))
    resize(small_disk, size)
    with pytest.raises(RetrievalError, match=r"is full\. Free some space, then go on with --resume"):
        build_index([photos], student, out)
    assert Index(out).manifest == old.manifest
    np.testing.assert_array_equal(old.vectors("student"), before)
    resize(small_disk, "8m")
    made = build_index([photos], student, out, options=IndexOptions(resume=True))
    expected = build_index([photos], student, tmp_path / "fresh")
    np.testing.assert_array_equal(made.vectors("student"), expected.vectors("student"))
    assert list(made.items) == list(expected.items)
    assert {path.name for path in out.iterdir()} == {"manifest.json", made.data.name}


def resize(disk: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


def test_a_folder_that_may_not_be_written_is_a_line(small_disk: Path, tmp_path: Path, student: OnnxEmbedder):
    photos, out = many(tmp_path / "photos", 2), small_disk / "idx"
    build_index([photos / "000.png"], student, out)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for folder in (out, small_disk / "new"):
        with pytest.raises(
            UsageError, match=r"cannot be written: Read-only file system\. Give another folder"
        ):
            build_index([photos], student, folder)
    assert len(Index(out)) == 1


def test_other_faults_of_a_disk_keep_their_reason(tmp_path: Path):
    with (
        pytest.raises(RetrievalError, match=r"idx cannot be written: Input/output error\."),
        explain_disk(tmp_path / "idx"),
    ):
        raise OSError(5, "Input/output error")


def test_of_a_full_disk_only_a_run_that_can_be_resumed_says_so(tmp_path: Path):
    for given, told in (((), "then try again."), (("go on with --resume",), "then go on with --resume.")):
        with pytest.raises(RetrievalError) as full, explain_disk(tmp_path, *given):
            raise OSError(28, "No space left on device")
        assert str(full.value) == f"The disk of {tmp_path} is full. Free some space, {told}"


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_replaced_in_one_step_or_not_at_all(tmp_path: Path, durable: bool):
    file = tmp_path / "file"
    file.write_text("old")
    with pytest.raises(OSError, match="full"), atomic_write(file, durable) as beside:
        beside.write_text("half")
        raise OSError("full")
    assert (file.read_text(), list(tmp_path.iterdir())) == ("old", [file])
    with atomic_write(file, durable) as beside:
        beside.write_text("new")
        assert file.read_text() == "old"
    assert (file.read_text(), list(tmp_path.iterdir())) == ("new", [file])

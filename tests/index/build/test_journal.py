"""What an unfinished run keeps, and what it refuses."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from index.build.journal import Journal, JournalVectors
from index.errors import RetrievalError, UsageError
from index.images.file import ImageFile
from index.stores.records import Failure, Item, Space

IDENTITY = {"student": "s.onnx (a)", "teacher": "none", "source": "/photos"}


class CutError(Exception):
    pass


def files(folder: Path, count: int) -> list[ImageFile]:
    for i in range(count):
        (folder / f"{i}.jpg").write_bytes(bytes(10 + i))
    return [ImageFile(folder / f"{i}.jpg", f"{i}.jpg", below=True) for i in range(count)]


def item(file: ImageFile, content: int) -> Item:
    return Item(str(file.path), file.name, f"digest-{content}", 10, 4, 3, 0)


def rows(*values: float) -> dict[str, np.ndarray]:
    return {"student": np.array([[value] * 3 for value in values], np.float32)}


def embed(out: Path, listed: list[ImageFile], batches: list[list[int]]) -> None:
    """A run that embeds some files, a batch at a time, and then breaks off."""
    with pytest.raises(CutError), Journal(out) as journal:
        journal.start(IDENTITY, resume=True)
        journal.list_files(listed)
        for batch in batches:
            journal.add([item(listed[i], i) for i in batch], rows(*batch), [])
        raise CutError


def resumed(out: Path, listed: list[ImageFile]) -> tuple[list[int], list[list[float]]]:
    """The places that a resumed run would still embed, and the vectors that it has."""
    with pytest.raises(CutError), Journal(out) as journal:
        journal.start(IDENTITY, resume=True)
        journal.list_files(listed)
        places = [place for place, _ in journal.missing()]
        found = [row for _, row in journal.items()]
        vectors = [chunk.tolist() for chunk in journal.vectors("student", Space("", "", 3), found, None)]
        raise CutError
    return places, [row for chunk in vectors for row in chunk]


def test_what_was_added_is_there_after_a_break(tmp_path: Path):
    listed = files(tmp_path, 6)
    embed(tmp_path / "idx", listed, [[0, 1], [3]])
    assert resumed(tmp_path / "idx", listed) == ([2, 4, 5], [[0] * 3, [1] * 3, [3] * 3])
    embed(tmp_path / "idx", listed, [[4], [2]])
    assert resumed(tmp_path / "idx", listed) == ([5], [[i] * 3 for i in range(5)])


@pytest.mark.parametrize(("keep", "left"), [(23, []), (24, [0, 1]), (35, [0, 1]), (36, [0, 1, 3])])
def test_vectors_that_a_power_cut_took_are_embedded_again(tmp_path: Path, keep: int, left: list[int]):
    listed = files(tmp_path, 4)
    embed(tmp_path / "idx", listed, [[0, 1], [3]])
    vectors = tmp_path / "idx" / "unfinished" / "student.rows"
    assert vectors.stat().st_size == 36
    vectors.write_bytes(vectors.read_bytes()[:keep])
    if not left:  # nothing is left that would be worth a refusal
        with Journal(tmp_path / "idx") as journal:
            journal.start(IDENTITY, resume=False)
            assert journal.embedded == 0
        return
    places, found = resumed(tmp_path / "idx", listed)
    assert places == [i for i in range(4) if i not in left]
    assert found == [[i] * 3 for i in left]


def test_vectors_that_changed_on_the_disk_are_embedded_again(tmp_path: Path):
    listed = files(tmp_path, 4)
    embed(tmp_path / "idx", listed, [[0, 1], [2], [3]])
    vectors = tmp_path / "idx" / "unfinished" / "student.rows"
    data = bytearray(vectors.read_bytes())
    data[30] ^= 1
    vectors.write_bytes(data)
    assert resumed(tmp_path / "idx", listed) == ([2, 3], [[0] * 3, [1] * 3])
    embed(tmp_path / "idx", listed, [[2, 3]])
    assert resumed(tmp_path / "idx", listed) == ([], [[i] * 3 for i in range(4)])


def test_a_file_that_changed_is_embedded_again_and_one_that_is_gone_is_left_out(tmp_path: Path):
    listed = files(tmp_path, 4)
    embed(tmp_path / "idx", listed, [[0, 1, 2, 3]])
    listed[1].path.write_bytes(b"another content")
    assert resumed(tmp_path / "idx", listed[:3]) == ([1], [[0] * 3, [2] * 3])


def test_a_copy_is_another_file_of_an_item(tmp_path: Path):
    listed = files(tmp_path, 4)
    listed[2].path.write_bytes(bytes(10))
    with Journal(tmp_path / "idx") as journal:
        journal.start(IDENTITY, resume=False)
        journal.list_files(listed)
        journal.add([item(listed[0], 0)], rows(0), [])
        journal.add([], {}, [], [(str(listed[2].path), "digest-0")])
        assert (journal.holds("digest-0"), journal.holds("digest-3")) == (True, False)
        assert [place for place, _ in journal.missing()] == [1, 3]
        (found, row), *others = journal.items()
        assert ([file.name for file in found.files], row, others) == (["0.jpg", "2.jpg"], 0, [])


def test_refusals_are_kept_in_order_and_tried_again_by_the_next_run(tmp_path: Path):
    listed = files(tmp_path, 3)
    with pytest.raises(CutError), Journal(tmp_path / "idx") as journal:
        journal.start(IDENTITY, resume=False)
        journal.list_files(listed)
        journal.add([], {}, [Failure(str(listed[2].path), "broken")])
        journal.add([item(listed[1], 1)], rows(1), [Failure(str(listed[0].path), "empty")])
        assert [failure.reason for failure in journal.failures()] == ["empty", "broken"]
        assert not list(journal.missing())
        raise CutError
    assert resumed(tmp_path / "idx", listed)[0] == [0, 2]


def test_a_run_that_is_left_is_never_thrown_away_nor_mixed_with_another(tmp_path: Path):
    out = tmp_path / "idx"
    listed = files(tmp_path, 2)
    embed(out, listed, [[0]])
    with (
        pytest.raises(UsageError, match=r"1 image embedded\. Go on with --resume, or remove"),
        Journal(out) as journal,
    ):
        journal.start(IDENTITY, resume=False)
    other = {**IDENTITY, "student": "t.onnx (b)"}
    with (
        pytest.raises(UsageError, match=r"has another student: s\.onnx \(a\), not t\.onnx \(b\)"),
        Journal(out) as journal,
    ):
        journal.start(other, resume=True)
    assert resumed(out, listed)[1] == [[0] * 3]


def test_whoever_is_interrupted_is_told_how_to_go_on(tmp_path: Path, capsys):
    embed(tmp_path / "idx", files(tmp_path, 3), [[0, 1]])
    assert "2 images embedded, and kept. Go on with --resume." in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_run_that_breaks_off_while_it_looks_through_what_is_left_keeps_it(
    tmp_path: Path, monkeypatch, error
):
    listed = files(tmp_path, 3)
    embed(tmp_path / "idx", listed, [[0, 1]])

    def break_off(*_: object) -> bool:
        raise error

    with monkeypatch.context() as broken, pytest.raises(error), Journal(tmp_path / "idx") as journal:
        broken.setattr(JournalVectors, "holds", break_off)
        journal.start(IDENTITY, resume=True)
    assert resumed(tmp_path / "idx", listed) == ([2], [[0] * 3, [1] * 3])


def test_a_run_that_embedded_nothing_leaves_nothing(tmp_path: Path):
    embed(tmp_path / "idx", files(tmp_path, 2), [])
    assert not (tmp_path / "idx").exists()


def test_one_process_writes_at_a_time(tmp_path: Path):
    out = tmp_path / "idx"
    with Journal(out) as journal:
        journal.start(IDENTITY, resume=False)
        code = (
            "import pathlib, sys, index.build.journal; index.build.journal.Journal(pathlib.Path(sys.argv[1]))"
        )
        other = subprocess.run([sys.executable, "-c", code, out], capture_output=True, text=True, check=False)
        assert "cannot be written: another process writes it. Wait until it is done." in other.stderr


def test_what_is_no_index_is_never_written_into(tmp_path: Path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match=r"exists and is not an index"):
        Journal(tmp_path / "precious")
    with pytest.raises(UsageError, match=r"no does not exist\. Make it"):
        Journal(tmp_path / "no" / "idx")
    (tmp_path / "idx" / "unfinished").mkdir(parents=True)
    (tmp_path / "idx" / "unfinished" / "journal.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(RetrievalError, match=r"unfinished is damaged\. Remove it"):
        Journal(tmp_path / "idx")

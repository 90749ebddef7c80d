from pathlib import Path

import numpy as np
import pytest

from index.io import FEW, chunks, forget, take

ROWS = 1 << 20  # of 8 numbers: 32 MiB


def mapped_mib() -> float:
    """What of files this process has in memory."""
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["RssFile"].split()[0]) / 1024


def test_chunks_are_the_vectors_in_their_order(unit_rows):
    vectors = unit_rows(10, 4)
    assert [len(some) for some in chunks(vectors, 4)] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate(list(chunks(vectors, 3))), vectors)
    assert all(some.flags.c_contiguous for some in chunks(np.asfortranarray(vectors), 3))
    assert list(chunks(vectors[:0], 3)) == []


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="Linux alone says what is in memory")
def test_what_was_read_of_a_file_does_not_stay_in_memory(tmp_path):
    np.save(tmp_path / "v.npy", np.ones((ROWS, 8), np.float32))
    vectors = np.load(tmp_path / "v.npy", mmap_mode="r")
    before = mapped_mib()
    for some in chunks(vectors, ROWS // 16):
        assert some.sum() == some.size
        assert mapped_mib() < before + 8
    assert vectors[:].sum() == vectors.size  # it can be read again, and a part of it is of the same file
    assert mapped_mib() > before + 24
    forget(vectors[1:][1:])
    assert mapped_mib() < before + 8
    rows = np.arange(0, ROWS, ROWS // (2 * FEW))
    np.testing.assert_array_equal(take(vectors, rows), vectors[rows])
    assert mapped_mib() > before + 24
    assert take(vectors, rows).sum() == 8 * len(rows)
    assert mapped_mib() < before + 8

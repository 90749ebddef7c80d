"""How much work is done at a time."""

import pytest

from index import parallel


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("200000 100000", 2),
        ("250000 100000", 3),
        ("50000 100000", 1),
        ("9900000 100000", 8),
        ("max 100000", 8),
        ("", 8),
        (None, 8),
    ],
)
def test_a_container_has_the_cores_of_its_quota(tmp_path, monkeypatch, quota, cores):
    monkeypatch.setattr(parallel.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(parallel, "QUOTA", tmp_path / "cpu.max")
    if quota is not None:
        parallel.QUOTA.write_text(f"{quota}\n")
    assert parallel.count_cores() == cores

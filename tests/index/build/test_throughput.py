import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import picture

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.mark.alone
@pytest.mark.slow
def test_the_endpoint_is_kept_as_busy_as_by_a_bare_loop():
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "endpoint.py", "--images", "322", "--rounds", "3"],
        capture_output=True,
        text=True,
        check=True,
    )
    (share,) = re.findall(r"([\d.]+)%", done.stdout)
    assert float(share) >= 90, done.stdout


def measure(folder: Path, model: Path, *options: str) -> float:
    """Run the benchmark of indexing and return the share that it prints last, in %."""
    command = [sys.executable, BENCHMARKS / "indexing.py", folder, "--model", model, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(re.findall(r"(-?[\d.]+) ?%", done.stdout)[-1])


@pytest.mark.slow
def test_ten_times_more_images_take_no_more_memory(tmp_path, student_file):
    for i in range(200):
        picture(i, 320, 240).save(tmp_path / f"{i}.jpg")
    assert measure(tmp_path, student_file, "--memory") < 5


@pytest.mark.slow
def test_large_photos_decoded_smaller_rank_as_if_decoded_whole(tmp_path, student_file):
    for i in range(60):
        picture(i, 320, 240).save(tmp_path / f"{i}.jpg")
    assert measure(tmp_path, student_file, "--large", "60", "--count", "60", "--agreement") >= 99

import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "endpoint.py"


@pytest.mark.slow
def test_the_endpoint_is_kept_as_busy_as_by_a_bare_loop():
    done = subprocess.run(
        [sys.executable, BENCHMARK, "--images", "258", "--rounds", "3"],
        capture_output=True,
        text=True,
        check=True,
    )
    (share,) = re.findall(r"([\d.]+)%", done.stdout)
    assert float(share) >= 90, done.stdout

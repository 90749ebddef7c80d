"""A real process, really killed."""

import os
import random
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from conftest import write_embedder
from PIL import Image

from index.stores.folder import ITEMS, Index

IMAGES, KILLS = 24_000, 20
CODE = """
import os, sys
from index.embedders.onnx import OnnxEmbedder
from app.cli import main
log = os.open(os.environ["LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
embed = OnnxEmbedder.embed
def counted(self, batch):
    rows = embed(self, batch)
    os.write(log, b"." * len(batch))
    return rows
OnnxEmbedder.embed = counted
main()
"""


def index(folder: Path, out: Path, log: Path, *options: str) -> subprocess.Popen:
    """`retrieval index`, which also writes a dot to `log` for each image that it embeds."""
    model = ("--model", str(folder.parent / "student.onnx"), "--factory", "Flat", "--out", str(out))
    command = [sys.executable, "-c", CODE, "index", str(folder), *model, *options]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=os.environ | {"LOG": str(log)}, **quiet)


def size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


@pytest.mark.slow
def test_twenty_kills_at_random_moments(tmp_path: Path):
    """Each kill comes at a random moment of the work; each time the run is resumed."""
    folder = tmp_path / "images"
    folder.mkdir()
    write_embedder(tmp_path / "student.onnx", dim=64)
    noise = np.random.default_rng(0)
    for i in range(IMAGES):
        file = BytesIO()
        Image.fromarray(noise.integers(0, 256, (6, 6, 3), dtype=np.uint8)).save(file, "PNG", compress_level=1)
        (folder / f"{i:05}.png").write_bytes(file.getvalue())

    whole = index(folder, tmp_path / "whole", tmp_path / "whole.log")
    assert whole.wait() == 0, whole.stderr.read()

    moments = random.Random(0)
    log, out = tmp_path / "killed.log", tmp_path / "killed"
    for _ in range(KILLS):
        process = index(folder, out, log, "--resume")
        # Anywhere between the start and a tenth of the work: the last ones meet what comes after it.
        limit = size(log) + moments.randrange(IMAGES // 10)
        deadline = time.monotonic() + moments.uniform(1, 12)
        while size(log) < limit and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.002)
        process.kill()
        process.wait()
    last = index(folder, out, log, "--resume")
    assert last.wait() == 0, last.stderr.read()

    made, expected = Index(out), Index(tmp_path / "whole")
    assert (made.data / ITEMS).read_bytes() == (expected.data / ITEMS).read_bytes()
    assert made.vectors("student").tobytes() == expected.vectors("student").tobytes()
    assert len(made) == IMAGES
    twice = size(log) - IMAGES
    print(f"{twice} of {IMAGES} images embedded twice")
    assert 0 < twice < 0.02 * IMAGES

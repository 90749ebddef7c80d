"""One step of training and one export of an untrained student, in a process of its own.

Of some networks torch's kernels end the process, which nothing can catch; others have a fixed input side or
cannot be exported. All of that is to show before anything is paid for.
"""

import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from platformdirs import user_cache_path

from distill.examples import Examples
from distill.model.backbone import create_backbone
from distill.model.export import export_onnx
from distill.model.student import StageMeans, Student, embed
from distill.training.device import open_fabric
from distill.training.loop import train_student
from distill.training.recipes import Recipe
from distill.training.views import stored_side
from index.errors import UsageError
from index.io import content_digest
from index.progress import say
from index.vectors import scale_to_unit

KNOWN = ("tf_efficientnet_lite", "test_efficientnet")  # what is trained all the time
PACKAGES = ("torch", "timm", "onnx", "onnxscript")
LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "TORCHELASTIC_RUN_ID")
CODE = (
    "import json, sys; sys.path.append(sys.argv[1]); from distill.model.trial import run; "
    "run(*json.loads(sys.argv[2]))"
)


def try_out(student: str, size: int, dim: int, stages: int | None, device: str) -> None:
    """Find out, once, whether a student of such `Options` can be trained and exported; UsageError if not."""
    if student.startswith(KNOWN):
        return
    wanted = json.dumps([student, size, dim, stages, device])
    facts = wanted + "".join(map(version, PACKAGES))
    passed = user_cache_path("retrieval") / "trials" / content_digest(facts.encode())
    if passed.exists():
        return
    say(f"Trying out {student}: one step of training and one export, before anything is asked.")
    environment = {name: value for name, value in os.environ.items() if name not in LAUNCHER}
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-P", "-c", CODE, str(Path(__file__).parents[2]), wanted],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        *_, reason = done.stderr.strip().splitlines() or [""]
        if done.returncode < 0:
            reason = f"torch ended its process with signal {-done.returncode}"
        raise UsageError(
            f"{student} cannot be a student of {size} pixels: {reason[:300].rstrip('.')}. Nothing was asked. "
            "Give another --student or --size."
        )
    with suppress(OSError):  # without a cache it is tried out each time
        passed.parent.mkdir(parents=True, exist_ok=True)
        passed.touch()


def run(student: str, size: int, dim: int, stages: int | None, device: str) -> None:
    """Look at images, train one step and export; raise whatever goes wrong."""
    fabric, recipe = open_fabric(device, alone=True), replace(Recipe(), steps=1)
    rng, count, side = np.random.default_rng(0), recipe.batch, stored_side(size)
    pixels = rng.integers(0, 256, (count, side, side, 3), np.uint8)
    targets = scale_to_unit(rng.normal(size=(count, dim)).astype(np.float32))
    backbone = create_backbone(student, "none")
    own = rng.integers(0, 256, (2, backbone.side, backbone.side, 3), np.uint8)
    embed(StageMeans(backbone), torch.from_numpy(own), fabric)
    backbone.keep_stages(stages or backbone.default_stages)
    network = Student(backbone, dim)
    train_student(network, Examples(pixels, targets, count), None, size, recipe, fabric)
    with TemporaryDirectory() as folder:
        export_onnx(network, Path(folder) / "student.onnx", size, dim, {})

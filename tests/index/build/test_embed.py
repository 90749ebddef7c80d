import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from index.build.embed import embed_files
from index.embedders.base import Calls
from index.embedders.onnx import OnnxEmbedder
from index.embedders.options import EmbedderOptions
from index.images.decode import Photo
from index.images.sources import find_images
from index.parallel import bounded_map
from index.vectors import UNIT_FLOATS


def test_map_ahead_keeps_the_order_and_never_runs_far_ahead():
    taken = 0

    def count():
        nonlocal taken
        for i in range(100):
            taken += 1
            yield i

    for i, square in enumerate(bounded_map(lambda x: x * x, count(), 8, 4)):
        assert square == i * i
        assert taken <= i + 8


@pytest.mark.parametrize("batch", [1, 5, 64])
def test_batches_change_nothing_and_failures_keep_their_place(folder, student_file, teacher_file, batch):
    (folder / "5.png").write_bytes(b"")
    models = {"student": OnnxEmbedder(student_file), "teacher": OnnxEmbedder(teacher_file)}
    whole = list(embed_files(find_images([folder]), models, batch))
    items = [item for part in whole for item in part.items]
    failures = [failure for part in whole for failure in part.failures]
    assert [item.name for item in items] == [
        file.name for file in find_images([folder]) if file.name != "5.png"
    ]
    assert [(Path(failure.path).name, failure.reason) for failure in failures] == [("5.png", "empty file")]
    for name, model in models.items():
        rows = np.concatenate([part.vectors[name] for part in whole if part.items])
        assert rows.shape == (11, model.dim)


def test_a_batch_of_bad_files_alone_does_not_stop_the_run(folder, student_file):
    for path in list(folder.glob("*.png"))[:6]:
        path.write_text("text")
    parts = list(embed_files(find_images([folder]), {"student": OnnxEmbedder(student_file)}, batch=2))
    assert sum(len(part.items) for part in parts) == 6
    assert sum(len(part.failures) for part in parts) == 6


class Watched:
    """A model that counts how many calls are made at a time."""

    key = name = spec = "watched"
    options = EmbedderOptions()
    vector_type = UNIT_FLOATS
    dim, side, decode_side, provider = 4, 8, 8, "none"
    vector_type = UNIT_FLOATS

    def __init__(self, lanes: int) -> None:
        self.calls = Calls(batch=2, concurrency=lanes)
        self.under_way = self.most = 0

    def prepare(self, photo: Photo) -> int:
        return photo.width

    def embed(self, batch: Sequence[int]) -> NDArray[np.float32]:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        time.sleep(0.02)
        self.under_way -= 1
        return np.eye(4, dtype=np.float32)[[0] * len(batch)]


@pytest.mark.parametrize("lanes", [1, 3])
def test_no_more_calls_are_made_at_a_time_than_a_model_has_lanes(folder, lanes):
    model = Watched(lanes)
    parts = list(embed_files(find_images([folder]), {"watched": model}, workers=4))
    assert [len(part.items) for part in parts] == [2] * 6
    assert model.most == lanes
    assert 0 < parts[-1].waiting < 0.9


def test_files_are_taken_from_an_endless_source_only_so_far_ahead(folder, student_file):
    taken = 0
    files = find_images([folder])

    def endless():
        nonlocal taken
        while True:
            yield files[taken % len(files)]
            taken += 1

    parts = embed_files(endless(), {"student": OnnxEmbedder(student_file)}, batch=5, workers=3)
    for done in range(1, 6):
        next(parts)
        assert taken <= 5 * (done + 4)
    parts.close()

"""A student run by OpenVINO, where that is faster on this CPU and ranks the same."""

from collections.abc import Mapping, Sequence
from functools import partial
from threading import local
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from index.embedders.onnx import OnnxEmbedder
from index.errors import UsageError, needs
from index.images.decode import square
from index.timing import time_in_turns
from index.vectors import UNIT_FLOATS

GAIN = 1.1  # times as fast as ONNX Runtime, to be worth vectors that are rounded otherwise
ALIKE = 0.998  # least cosine with its vectors: a bound against faults, bfloat16 comes to .9993 and more
ROUNDS, IMAGES = 12, 8  # that are timed, and compared
SETTINGS = {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1, "ENABLE_CPU_PINNING": False}


class OpenVinoSession:
    """An ONNX file of ours, compiled for this CPU. It runs like a session of ONNX Runtime, in any thread."""

    def __init__(self, model: bytes) -> None:
        """Read it, to be compiled for each thread, with the numbers that are fastest here, as bfloat16."""
        with needs("openvino"):
            import openvino

        openvino.Tensor(np.zeros(1, np.float32))  # or the first arrays, in two threads, wait for each other
        self._core, self._thread = openvino.Core(), local()
        self._model = self._core.read_model(model)

    def run(self, outputs: Sequence[str], feed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Map named inputs to the outputs that are named."""
        if not hasattr(self._thread, "request"):
            compiled = self._core.compile_model(self._model, "CPU", SETTINGS)
            self._thread.request = compiled.create_infer_request()
        results = self._thread.request.infer(dict(feed), share_inputs=True)
        return [results[name].copy() for name in outputs]


def choose_runtime(student: OnnxEmbedder) -> str:
    """Let OpenVINO run a student, if it is `GAIN` times as fast here and as exact; say what came of it."""
    if student.vector_type != UNIT_FLOATS:
        raise UsageError("--device openvino is for vectors. Leave --codes out, or give another device.")
    blocks = np.random.default_rng(0).integers(0, 256, (IMAGES, 8, 8, 3), dtype=np.uint8)
    feed = {"images": np.stack([square(Image.fromarray(block), student.side) for block in blocks])}
    other = OpenVinoSession(student.data)
    rows, others = (session.run(["embeddings"], feed)[0] for session in (student.session, other))
    if not (rows * others).sum(axis=1).min() >= ALIKE:
        return "OpenVINO changes what this student answers: embedded by ONNX Runtime."
    onnxruntime, openvino = time_in_turns(
        [partial(session.run, ["embeddings"], feed) for session in (student.session, other)], ROUNDS
    )
    gain = onnxruntime / openvino
    if gain < GAIN:
        return f"OpenVINO is {gain:.1f} times as fast here: embedded by ONNX Runtime."
    student.session = other
    return f"Embedded by OpenVINO, {gain:.1f} times as fast here as ONNX Runtime."

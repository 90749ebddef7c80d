"""What a student costs by how many inner channels it keeps: milliseconds, parameters or multiply-adds."""

import json
import platform
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, helper, numpy_helper
from platformdirs import user_cache_path
from torch import nn

from distill.model.backbone import run_watched
from distill.model.export import count_parameters, export_onnx
from distill.model.student import Student
from distill.shrinking.channels import Inner, find_inner
from index.embedders.onnx import OnnxEmbedder
from index.io import atomic_write, content_digest
from index.timing import time_in_turns

STEP = 16  # channels are kept in multiples of it: what the kernels of a CPU work on at a time
TIMED = (0, 0.125, 0.25, 0.5, 0.75, 1)  # shares of the width that are timed
PASSES, ROUNDS, QUIET = 3, 15, 0.1  # of the rounds those count that nothing else disturbed

Shapes = dict[nn.Conv2d, tuple[torch.Size, torch.Size]]  # what each convolution reads and makes


@dataclass(frozen=True)
class Costs:
    """What a student costs by the widths of its groups of inner channels.

    Between the widths that were measured a group's cost is in a straight line. So is the student's, by the
    sum over its groups, between as narrow as can be, half as wide, and whole.
    """

    widths: list[list[int]]  # rising, for each group
    costs: list[list[float]]  # the same, in milliseconds, parameters or millions of multiply-adds
    totals: list[float]  # of the student itself, from the narrowest to the whole
    sums: list[float]  # over the groups of these

    @classmethod
    def recall(cls, kind: str, student: Student, side: int) -> Self:
        """Measure a student, or recall what such a one took on this machine: a run again makes the same."""
        if kind != "ms":
            return cls.measure(kind, student, side)
        layers = [f"{part}" for part in student.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
        facts = [platform.node(), platform.processor(), ort.__version__, side, *layers]
        kept = user_cache_path("retrieval") / "costs" / f"{content_digest(json.dumps(facts).encode())}.json"
        with suppress(OSError, ValueError, TypeError):  # none there, or half of it
            return cls(**json.loads(kept.read_text()))
        found = cls.measure(kind, student, side)
        with suppress(OSError):  # without a cache they are measured each time
            kept.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(kept) as beside:
                beside.write_text(json.dumps(asdict(found)))
        return found

    @classmethod
    def measure(cls, kind: str, student: Student, side: int) -> Self:
        """Time or count a student of `side` pixels and the parts around each group, for one image."""
        inner = find_inner(student.backbone, torch.zeros(2, side, side, 3, dtype=torch.uint8))
        shapes = _trace(student, side)
        widths = [sorted({_whole(share * group.width) for share in TIMED}) for group in inner]
        if kind == "ms":
            costs = _time(inner, widths, shapes)
        else:
            each = [_count_channel(kind, group, shapes) for group in inner]
            costs = [[one * width for width in some] for one, some in zip(each, widths, strict=True)]
        students, sums = [], []
        for share in (0, 0.5, 1):
            thin, groups = deepcopy((student, inner))
            kept = [_whole(share * group.width) if share < 1 else group.width for group in inner]
            for group, width in zip(groups, kept, strict=True):
                group.narrow(min(width, group.width))
            students.append(thin)
            sums.append(sum(map(_between, widths, costs, kept)))
        return cls(widths, costs, measure_students(kind, students, side), sums)

    @property
    def least(self) -> float:
        """What it costs with all groups as narrow as can be."""
        return self.totals[0]

    @property
    def most(self) -> float:
        """What it costs as it is."""
        return self.totals[-1]

    def of(self, group: int, width: int) -> float:
        """Tell what so many channels of a group cost."""
        return _between(self.widths[group], self.costs[group], width)

    def total(self, widths: Sequence[int]) -> float:
        """Tell what the student costs with groups of these widths."""
        return _between(self.sums, self.totals, sum(map(_between, self.widths, self.costs, widths)))


def _trace(student: Student, side: int) -> Shapes:
    """Find the shapes that each convolution reads and makes of one image."""
    image = torch.zeros(1, side, side, 3, dtype=torch.uint8)
    parts = [part for part in student.modules() if isinstance(part, nn.Conv2d)]
    _, calls = run_watched(student, image, parts)
    return {part: (inputs[0].shape, output.shape) for part, inputs, output in calls}


def measure_students(kind: str, students: Sequence[Student], side: int) -> list[float]:
    """Measure what each student costs for one image: on one core, or in millions."""
    if kind == "parameters":
        return [count_parameters(student) / 1e6 for student in students]
    if kind == "mflops":
        traced = [_trace(student, side) for student in students]
        return [sum(made.numel() * p.weight[0].numel() for p, (_, made) in t.items()) / 1e6 for t in traced]
    pixels = [np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)]
    with TemporaryDirectory() as folder:
        files = [Path(folder) / f"{i}.onnx" for i in range(len(students))]
        for student, file in zip(students, files, strict=True):
            export_onnx(deepcopy(student), file, side, student.head.out_features, {})
        made = [OnnxEmbedder(file, "cpu", threads=1) for file in files]
    return _time_alone([partial(one.embed, pixels) for one in made])


def _between(places: Sequence[float], values: Sequence[float], place: float) -> float:
    return float(np.interp(place, places, values))


def _whole(width: float) -> int:
    return max(round(width / STEP), 1) * STEP


def _count_channel(kind: str, group: Inner, shapes: Shapes) -> float:
    """Count what one channel of a group costs, in millions."""
    weights = {part: part.weight.numel() // group.width for part in group.parts}
    if kind == "parameters":
        biases = len(weights) - 1 - len(group.squeezes)  # not of those that read all channels
        return (sum(weights.values()) + biases) / 1e6
    return sum(shapes[part][1][2:].numel() * weight for part, weight in weights.items()) / 1e6


def _time(inner: Sequence[Inner], widths: Sequence[Sequence[int]], shapes: Shapes) -> list[list[float]]:
    """Time the convolutions around each group on one core, with ONNX Runtime."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    found = []
    for group, some in zip(inner, widths, strict=True):
        example = np.ones(shapes[group.producer][0], np.float32)
        works = []
        for width in some:
            data = _draw(group, width, example.shape).SerializeToString()
            session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
            works.append(partial(session.run, None, {"x0": example}))
        found.append(np.maximum.accumulate(_time_alone(works)).tolist())
    return found


def _time_alone(works: Sequence[Callable[[], object]]) -> list[float]:
    """Time pieces of work, each by itself, its data at hand as in use: milliseconds of the quickest pass."""
    passes = [[time_in_turns([work], ROUNDS, 3, QUIET)[0] for work in works] for _ in range(PASSES)]
    return np.min(passes, axis=0).tolist()


def _draw(group: Inner, width: int, shape: tuple[int, ...]) -> onnx.ModelProto:
    """Draw convolutions as those around a group, with rectifiers, for so many channels of it, as a graph."""
    parts = [group.producer, *(part for part in group.between if isinstance(part, nn.Conv2d)), group.consumer]
    nodes, weights = [], []
    for i, part in enumerate(parts):
        alone = part.groups > 1  # depthwise: each channel by itself
        rows = part.out_channels if part is group.consumer else width
        columns = 1 if alone else part.in_channels if part is group.producer else width
        values = np.ones([rows, columns, *part.kernel_size], np.float32)
        weights.append(numpy_helper.from_array(values, f"w{i}"))
        how: dict[str, Any] = {"group": width if alone else 1, "strides": list(part.stride)}
        nodes.append(helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"y{i}"], auto_pad="SAME_UPPER", **how))
        nodes.append(helper.make_node("Relu", [f"y{i}"], [f"x{i + 1}"]))
    reads = helper.make_tensor_value_info("x0", TensorProto.FLOAT, shape)
    makes = helper.make_tensor_value_info(f"y{len(parts) - 1}", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes[:-1], "channels", [reads], [makes], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

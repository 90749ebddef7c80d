"""What the browser computes by its own loops, against the same in plain JavaScript and in ONNX Runtime."""

import re
import shutil
import subprocess
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from conftest import write_embedder
from onnx import TensorProto, helper, numpy_helper
from page_tools import needs_chromium

from app.site.gallery import pack_rows
from app.site.student import needs_runtime, shorten
from distill.model.quantize import CONVERSIONS

SITE = Path(__file__).parents[3] / "app" / "site"


GALLERIES = [
    {"bits": 128, "dim": 16, "rescore": 0},
    {"bits": 128, "dim": 16, "rescore": 20},
    {"bits": 40, "dim": 5, "rescore": 0},
    {"bits": 0, "dim": 256, "rescore": 0},
    {"bits": 0, "dim": 50, "rescore": 0},
]


@needs_chromium
@pytest.mark.parametrize("space", GALLERIES, ids=str)
def test_simd_and_plain_loops_find_the_same_and_the_nearest(blank, space):
    """Many ties among the codes, a part that is missing, and photos that are not wanted."""
    rng, counts, levels = np.random.default_rng(0), [300, 7, 200], 2048
    total, bits, dim = sum(counts), space["bits"], space["dim"]
    if bits:
        signs = rng.integers(0, 2, (total, bits), np.uint8)
        signs[10] = signs[400] = signs[3]
        words = np.pad(np.packbits(signs, axis=1, bitorder="little"), ((0, 0), (0, -dim % 4)))
        rows, query = (2.0 * signs - 1) / np.sqrt(bits), rng.normal(size=bits)
    else:
        rows, query = rng.normal(size=(total, dim)), rng.normal(size=dim)
        whole = np.round(levels * rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype("<i2")
        whole[10] = whole[400] = whole[3]
        rows = whole / levels
    query = (query / np.linalg.norm(query)).astype(np.float32)
    parts, starts = [], np.cumsum([0, *counts])
    for start, count in zip(starts, counts, strict=False):
        some = slice(start, start + count)
        data = words[some].tobytes() if bits else pack_rows(rows[some], levels)
        parts.append(b64encode(data).decode())
    keep = np.ones(total, np.uint8)
    keep[::7] = 0
    found, plain = blank.evaluate(
        "async ([shards, space, parts, query, keep]) => { const {Gallery} = await import('./gallery.js');"
        "const bytes = parts.map(part => Uint8Array.from(atob(part), letter => letter.charCodeAt(0)));"
        "return [true, false].map(simd => {"
        "const gallery = new Gallery({shards, levels: 2048, ...space}, simd);"
        "if (Boolean(gallery.kernels.memory) !== simd) throw new Error('no SIMD');"
        "for (const place of [0, 2]) gallery.add(place, bytes[place]);"
        "return gallery.search(Float32Array.from(query), 30, keep, 5); }); }",
        [[{"count": count} for count in counts], space, parts, query.tolist(), keep.tolist()],
    )
    assert found == plain
    asked = np.where(query > 0, 1, -1) / np.sqrt(bits) if bits else query
    near = rows @ asked
    near[keep == 0] = near[5] = near[300:307] = -np.inf
    nearest = np.lexsort((np.arange(total), -near.round(6)))[:30]
    if space["rescore"]:
        nearest = nearest[np.argsort(-(rows @ query)[nearest], kind="stable")]
    assert [item for item, _ in found] == nearest.tolist()
    scores = rows @ query * np.sqrt(bits) / np.abs(query).sum() if space["rescore"] else near
    assert np.allclose([score for _, score in found], scores[nearest], atol=1e-4)


def write_network(path: Path) -> Path:
    """Write a small network with what students have: odd widths, margins to one side, gates, deviations."""
    rng, nodes, constants = np.random.default_rng(0), list[Any](), list[Any]()

    def keep(value: Any, kind: type = np.float32) -> str:
        constants.append(numpy_helper.from_array(np.array(value, kind), f"constant{len(constants)}"))
        return constants[-1].name

    def add(op: str, *inputs: str, **options: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [f"t{len(nodes)}"], **options))
        return nodes[-1].output[0]

    def conv(x: str, inner: int, outer: int, side: int, pads: list[int], stride=1, group=1) -> str:
        weights = rng.normal(size=(outer, inner // group, side, side)) / side / np.sqrt(inner // group)
        return add(
            "Conv", x, keep(weights), keep(rng.normal(size=outer)), group=group, pads=pads,
            kernel_shape=[side] * 2, strides=[stride] * 2, dilations=[1, 1], auto_pad="NOTSET",
        )  # fmt: skip

    zero, six = keep(0), keep(6)
    x = add("Transpose", add("Cast", "images", to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    x = add("Add", add("Mul", x, keep(np.full((1, 3, 1, 1), 0.01))), keep(rng.normal(size=(1, 3, 1, 1))))
    x = add("Clip", conv(x, 3, 13, 3, [0, 0, 1, 1], 2), zero, six)
    x = add("Clip", conv(x, 13, 13, 5, [1, 1, 2, 2], 2, 13), zero, six)
    x = y = conv(x, 13, 24, 1, [0] * 4)
    x = add("Relu", conv(x, 24, 24, 3, [1] * 4, 1, 24))
    gate = add("ReduceMean", x, keep([2, 3], np.int64), keepdims=1)
    gate = add("Sigmoid", conv(add("Relu", conv(gate, 24, 6, 1, [0] * 4)), 6, 24, 1, [0] * 4))
    x = add("Add", conv(add("HardSwish", add("Mul", x, gate)), 24, 24, 1, [0] * 4), y)
    x = conv(x, 24, 20, 1, [0] * 4, 2)
    mean = add("ReduceMean", x, keep([-1, -2], np.int64), keepdims=1)
    spread = add("Sub", x, mean)
    spread = add("Sqrt", add("ReduceMean", add("Mul", spread, spread), keep([2, 3], np.int64), keepdims=0))
    x = add("Concat", add("Flatten", mean), spread, axis=1)
    x = add("Gemm", x, keep(rng.normal(size=(30, 40))), keep(rng.normal(size=30)), transB=1)
    x = add("MatMul", x, keep(rng.normal(size=(30, 9))))
    length = add("Clip", add("ReduceL2", x, keep([1], np.int64), keepdims=1), keep(1e-12))
    shape = add("Concat", add("Shape", "images", start=0, end=1), keep([9], np.int64), axis=0)
    nodes.append(helper.make_node("Div", [x, add("Expand", length, shape)], ["embeddings"]))
    graph = helper.make_graph(
        nodes, "network",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", 45, 45, 3])],
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["n", 9])], constants,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


RUN = (
    "async ([file, pixels, side]) => { const {Network} = await import('./network.js');"
    "const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));"
    "try { const network = new Network(bytes(file), 'embeddings', side); network.run(bytes(pixels[0]));"
    "return pixels.map(each => [...network.run(bytes(each))]); } catch (error) { return error.message; } }"
)


@needs_chromium
def test_a_network_gives_what_onnx_runtime_gives(blank, tmp_path):
    write_network(tmp_path / "whole.onnx")
    CONVERSIONS["fp16"](tmp_path / "whole.onnx", tmp_path / "halves.onnx", np.empty(0, np.uint8))
    photos = np.random.default_rng(1).integers(0, 256, (3, 45, 45, 3), np.uint8)
    (tmp_path / "short.onnx").write_bytes(shorten(tmp_path / "whole.onnx"))
    for name in ("whole.onnx", "halves.onnx", "short.onnx"):
        assert not needs_runtime(tmp_path / name)
        session = onnxruntime.InferenceSession(tmp_path / name)
        wanted = np.concatenate([session.run(None, {"images": photo[None]})[0] for photo in photos])
        found = blank.evaluate(
            RUN,
            [
                b64encode((tmp_path / name).read_bytes()).decode(),
                [b64encode(photo.tobytes()).decode() for photo in photos],
                45,
            ],
        )
        assert np.allclose(found, wanted, atol=2e-6), name


@needs_chromium
def test_a_network_of_another_kind_is_refused(blank, tmp_path):
    """So that ONNX Runtime is loaded for it."""
    file = write_embedder(tmp_path / "student.onnx")
    said = blank.evaluate(RUN, [b64encode(file.read_bytes()).decode(), [""], 32])
    assert said == "the operator AveragePool"
    assert needs_runtime(file)


@needs_chromium
@pytest.mark.parametrize(
    ("op", "options"),
    [
        ("Conv", {"group": 2}),
        ("Conv", {"dilations": [2, 2]}),
        ("Conv", {"auto_pad": "SAME_UPPER"}),
        ("MaxPool", {"kernel_shape": [1, 1]}),
        ("Cast", {"to": TensorProto.INT64}),
    ],
)
def test_what_a_site_has_a_runtime_for_is_what_is_refused(blank, tmp_path, op, options):
    """So that none is written, or fetched, for other students."""
    weights = numpy_helper.from_array(np.ones((4, 8 // options.get("group", 1), 1, 1), np.float32), "weights")
    inputs = ["floats", "weights"] if op == "Conv" else ["floats"]
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node(op, inputs, ["embeddings"], **options),
    ]
    graph = helper.make_graph(nodes, "network", [], [], [weights])
    (file := tmp_path / "student.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    photo = b64encode(bytes(3 * 8 * 8)).decode()
    said = blank.evaluate(RUN, [b64encode(file.read_bytes()).decode(), [photo], 8])
    assert isinstance(said, str)
    assert needs_runtime(file)


def test_the_compiled_loops_are_those_of_the_source(tmp_path):
    npm = shutil.which("npx")
    if npm is None:
        pytest.skip("npm is not installed")
    command = [npm, "--yes", "-p", "wabt", "wat2wasm", str(SITE / "kernels.wat"), "-o", "kernels.wasm"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"npm cannot fetch wabt: {done.stderr[-200:]}")
    script = (SITE / "kernels.js").read_text()
    kept = b64decode("".join(re.findall(r"'([A-Za-z0-9+/=]{20,})'", script)))
    assert kept == (tmp_path / "kernels.wasm").read_bytes()

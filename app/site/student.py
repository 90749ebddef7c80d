"""The student of a site: in half its bytes, and whether the site's own loops run it."""

from pathlib import Path
from typing import Any

import numpy as np

from index.errors import needs

# What `network.js` knows besides convolutions.
OPERATORS = frozenset(
    "Add Sub Mul Div Max Min Greater Relu Sqrt Sigmoid HardSwish HardSigmoid Clip ReduceMean "
    "ReduceSum ReduceL2 Shape Transpose Reshape Flatten Expand Concat MatMul Gemm".split()
)


def shorten(file: Path) -> bytes:
    """Write the weights of an ONNX file as whole numbers of 16 bits, with a scale for each output.

    Floats of 32 bits compute all the same. Half floats would move vectors some fifteen times as far.
    """
    with needs("distill"):
        from onnx import TensorProto, helper, load, numpy_helper
    model = load(file)
    nodes = []
    for weights in list(model.graph.initializer):
        name, values = weights.name, numpy_helper.to_array(weights)
        if values.dtype != np.float32 or values.ndim < 2:
            continue
        scale = np.abs(values).max(axis=tuple(range(1, values.ndim)), keepdims=True) / np.float32(32767)
        scale[scale == 0] = 1
        weights.CopyFrom(numpy_helper.from_array(np.round(values / scale).astype(np.int16), f"{name}.whole"))
        model.graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
        nodes.append(helper.make_node("Cast", [f"{name}.whole"], [f"{name}.cast"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Mul", [f"{name}.cast", f"{name}.scale"], [name]))
    nodes.extend(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model.SerializeToString()


def needs_runtime(file: Path) -> bool:
    """Whether `network.js` refuses an ONNX file: it runs plain and depthwise convolutions."""
    with needs("distill"):
        from onnx import TensorProto, helper, load
    graph = load(file).graph
    types = {TensorProto.FLOAT, TensorProto.INT16, TensorProto.INT64, TensorProto.FLOAT16}
    shapes = {weights.name: list(weights.dims) for weights in graph.initializer}
    for node in graph.node:  # weights may be written otherwise, and scaled
        if node.op_type in ("Cast", "Mul") and node.input[0] in shapes:
            shapes[node.output[0]] = shapes[node.input[0]]

    def is_known(node: Any) -> bool:
        given = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        if node.op_type == "Cast":
            return bool(given["to"] == TensorProto.FLOAT)
        if node.op_type != "Conv":
            return node.op_type in OPERATORS and not given.get("transA") and len(given.get("perm", ())) <= 4
        shape, group = shapes.get(node.input[1], []), given.get("group", 1)
        even = len({*shape[2:]}) == 1 and len({*given.get("strides", [])}) < 2
        return (
            len(shape) == 4
            and (group == 1 or (shape[:2] == [group, 1] and even))
            and max(given.get("dilations", [1])) == 1
            and given.get("auto_pad", b"NOTSET") == b"NOTSET"
        )

    whole = all(weights.raw_data and weights.data_type in types for weights in graph.initializer)
    return not whole or not all(map(is_known, graph.node))

"""The student of a site, in half its bytes."""

from pathlib import Path

import numpy as np

from index.errors import needs


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

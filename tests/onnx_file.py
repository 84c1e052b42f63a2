"""ONNX models of a few operators."""

from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper


def save(folder: Path, nodes: list[Any], inputs: dict[str, list[Any]], outputs: list[str],
         weights: dict[str, np.ndarray] | None = None) -> Path:  # fmt: skip
    """Write a model of these nodes; outputs have no shapes, as if nothing was known of them."""
    graph = helper.make_graph(
        nodes, "graph",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
         for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path

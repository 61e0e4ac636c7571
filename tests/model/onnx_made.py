"""ONNX networks of a few operations, whose answers one can work out by hand."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Shape = Sequence[int | str | None]
ANY = (1, 3, "height", "width")
OPSET = 13


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    *,
    inputs: Mapping[str, Shape] | None = None,
    outputs: Sequence[str] = ("mask",),
    constants: Mapping[str, Any] | None = None,
    metadata: Mapping[str, str] | None = None,
    kind: int = TensorProto.FLOAT,
    opset: int = OPSET,
    domain: str = "",
    external: str | None = None,
) -> Path:
    """Write a network. external: name of a file beside it that takes the constants."""
    shapes = {"picture": ANY} if inputs is None else inputs
    graph = helper.make_graph(
        list(nodes),
        "made",
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in shapes.items()],
        [helper.make_tensor_value_info(name, kind, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    helper.set_model_props(model, dict(metadata or {}))
    path.parent.mkdir(parents=True, exist_ok=True)
    if external:
        onnx.save(model, path, save_as_external_data=True, location=external, size_threshold=0)
    else:
        onnx.save(model, path)
    return path


def node(kind: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    """One operation; inputs by their names with spaces between."""
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def f32(*values: float) -> np.ndarray[Any, Any]:
    return np.array(values[0] if len(values) == 1 else values, np.float32)


def darkness(path: Path, *, gain: float = 1.0, offset: float = 0.0, **asked: Any) -> Path:
    """Answers offset + gain x (1 - mean of the channels), pixel by pixel."""
    nodes = [
        node("ReduceMean", "picture", "mean", axes=[1], keepdims=1),
        node("Sub", "one mean", "dark"),
        node("Mul", "dark gain", "scaled"),
        node("Add", "scaled offset", "mask"),
    ]
    return save(path, nodes, constants={"one": f32(1), "gain": f32(gain), "offset": f32(offset)}, **asked)


def channel(path: Path, number: int = 0, *, above: float = 0.5, **asked: Any) -> Path:
    """Answers 1 where one channel of the picture is above a level, else 0."""
    nodes = [
        node("Gather", "picture number", "one", axis=1),
        node("Greater", "one level", "over"),
        node("Cast", "over", "mask", to=asked.get("kind", TensorProto.FLOAT)),
    ]
    return save(path, nodes, constants={"number": np.array([number]), "level": f32(above)}, **asked)


def near_ink(path: Path, *, reach: int = 31, **asked: Any) -> Path:
    """Answers a probability that is high where there is ink within `reach` pixels: the ink's mean there, steeply."""
    half = reach // 2
    nodes = [
        node("ReduceMean", "picture", "mean", axes=[1], keepdims=1),
        node("Sub", "one mean", "dark"),
        node("AveragePool", "dark", "around", kernel_shape=[reach, reach], pads=[half] * 4),
        node("Sub", "around level", "over"),
        node("Mul", "over gain", "logit"),
        node("Sigmoid", "logit", "mask"),
    ]
    constants = {"one": f32(1), "level": f32(0.04), "gain": f32(200)}
    return save(path, nodes, constants=constants, **asked)

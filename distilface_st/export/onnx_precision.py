"""ONNX graphs of lower precision: half-precision weights, and int8 weights, activations and embedding tables."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from .graph_format import quiet

if TYPE_CHECKING:
    from collections.abc import Collection

    import onnx

LARGE = 1024
"""Elements; smaller constants stay as they are."""

LINEAR = ("MatMul", "Gemm")
"""What a linear layer becomes."""


def store_as_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store large constants as float16, in place; the graph computes in float32 and widens what it has looked up."""
    from onnx import TensorProto, helper, numpy_helper

    for initializer in list(model.graph.initializer):
        if initializer.data_type != TensorProto.FLOAT or np.prod(initializer.dims) < LARGE:
            continue
        values = numpy_helper.to_array(initializer)
        if np.abs(values).max() > np.finfo(np.float16).max:
            raise InputError(f"fp16 cannot hold the weights of {initializer.name}: use fp32 or int8.")
        name, stored = initializer.name, f"{initializer.name}_fp16"
        initializer.CopyFrom(numpy_helper.from_array(values.astype(np.float16), stored))
        lookups = _only_lookups(model, name)
        if lookups is None:
            cast = helper.make_node("Cast", [stored], [name], name=f"{name}_cast", to=TensorProto.FLOAT)
            model.graph.node.insert(0, cast)
        for node in lookups or ():
            _replace_lookup(model, node, stored)
    return model


def quantize_tables(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store a graph's embedding tables, in place, as int8 with a scale a row: rows are looked up and then scaled."""
    from onnx import numpy_helper

    for table in float_matrices(model):
        name = table.name
        if lookups := _only_lookups(model, name):
            rows, scales = quantize_rows(numpy_helper.to_array(table))
            table.CopyFrom(numpy_helper.from_array(rows, f"{name}_int8"))
            model.graph.initializer.append(numpy_helper.from_array(scales, f"{name}_scale"))
            for node in lookups:
                _replace_lookup(model, node, f"{name}_int8", f"{name}_scale")
    return model


def float_matrices(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """A graph's large constants that are matrices of float32."""
    return [
        tensor
        for tensor in model.graph.initializer
        if tensor.data_type == tensor.FLOAT and len(tensor.dims) == 2 and np.prod(tensor.dims) >= LARGE
    ]


def quantize_rows(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric int8 of a matrix (rows, d), and its scales, (rows, 1), float32: their product, to half a scale, is it.

    Example:
        >>> rows, scales = quantize_rows(np.array([[1.0, -2.0], [0.0, 0.0]], dtype=np.float32))
        >>> rows.tolist(), [round(float(scale), 4) for scale in scales[:, 0]]
        ([[64, -127], [0, 0]], [0.0157, 0.0])
    """
    scales = np.abs(table).max(axis=1, keepdims=True) / np.float32(127)
    return round_to_int8(table, scales), scales.astype(np.float32)


def round_to_int8(table: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """The integers nearest to ``table / scales``; zeros where the scale is zero."""
    rows: np.ndarray = np.rint(np.divide(table, scales, out=np.zeros_like(table), where=scales > 0))
    return rows.astype(np.int8)


def quantize_dynamic(model: onnx.ModelProto, keep_in_float: Collection[str], reduce_range: bool) -> onnx.ModelProto:
    """Int8 weights a channel; activations are quantized while the graph runs, a batch's tensor with one scale.

    The graph given, in float32, stays as it is. ``reduce_range`` uses 7 bits of the weights, for processors whose 8-bit
    products saturate.
    """
    import onnx
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic as quantize

    excluded = in_float(model, keep_in_float)
    with tempfile.TemporaryDirectory() as folder, quiet():
        path = Path(folder, "model.onnx")
        quantize(
            model,
            path,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=reduce_range,
            weight_type=QuantType.QInt8,
            # The quantizer first turns a Gemm into a MatMul with this ending.
            nodes_to_exclude=[*excluded, *(f"{name}_MatMul" for name in excluded)],
        )
        return quantize_tables(onnx.load(str(path)))


def in_float(model: onnx.ModelProto, keep_in_float: Collection[str]) -> list[str]:
    """Matrix products that stay in float: those asked for, and what comes after the encoder, a row a sentence."""
    constants = {initializer.name for initializer in model.graph.initializer}
    names = [node.name for node in model.graph.node if node.op_type in LINEAR and node.input[1] in constants]
    return [name for name in names if name.split("#")[0] in keep_in_float or not name.startswith("0.")]


def _only_lookups(model: onnx.ModelProto, name: str) -> list[onnx.NodeProto] | None:
    """The nodes that look rows up in a constant; ``None`` where another kind of node uses it, too."""
    users = [node for node in model.graph.node if name in node.input]
    are_lookups = all(
        node.op_type == "Gather"
        and node.input[0] == name
        and not any(attribute.name == "axis" and attribute.i for attribute in node.attribute)
        for node in users
    )
    return users if are_lookups else None


def _replace_lookup(model: onnx.ModelProto, node: onnx.NodeProto, table: str, scales: str | None = None) -> None:
    """Look ``table`` up instead, widen to float32 and multiply with ``scales`` looked up at the same rows."""
    from onnx import TensorProto, helper

    ids, output = node.input[1], node.output[0]
    stored, wide, scale = f"{output}_stored", f"{output}_wide" if scales else output, f"{output}_scale"
    parts = [
        helper.make_node("Gather", [table, ids], [stored], name=f"{node.name}_stored"),
        helper.make_node("Cast", [stored], [wide], name=f"{node.name}_wide", to=TensorProto.FLOAT),
    ]
    if scales:
        parts += [
            helper.make_node("Gather", [scales, ids], [scale], name=f"{node.name}_scale"),
            helper.make_node("Mul", [wide, scale], [output], name=f"{node.name}_scaled"),
        ]
    position = list(model.graph.node).index(node)
    model.graph.node.remove(node)
    for offset, part in enumerate(parts):
        model.graph.node.insert(position + offset, part)

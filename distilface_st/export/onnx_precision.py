"""ONNX graphs of lower precision: half-precision weights, and int8 weights, activations and embedding tables."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, MissingExtraError
from .onnx_graph import LINEAR, quiet

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import onnx

LARGE = 1024
"""Elements; smaller constants stay as they are."""

_HALF_MAX = 65504.0


def store_as_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store large constants as float16; the graph computes in float32, and looks tables up before it widens them.

    Args:
        model: A float32 graph, changed in place.

    Raises:
        InputError: A weight beyond the range of float16.
    """
    from onnx import TensorProto, helper, numpy_helper

    for initializer in list(model.graph.initializer):
        if initializer.data_type != TensorProto.FLOAT or np.prod(initializer.dims) < LARGE:
            continue
        values = numpy_helper.to_array(initializer)
        if np.abs(values).max() > _HALF_MAX:
            raise InputError(f"fp16 cannot hold the weights of {initializer.name}: use fp32 or int8.")
        name, stored = initializer.name, f"{initializer.name}_fp16"
        initializer.CopyFrom(numpy_helper.from_array(values.astype(np.float16), stored))
        users = [node for node in model.graph.node if name in node.input]
        if all(_is_lookup(node, name) for node in users):
            for node in users:
                _replace_lookup(model, node, stored, [])
        else:
            cast = helper.make_node("Cast", [stored], [name], name=f"{name}_cast", to=TensorProto.FLOAT)
            model.graph.node.insert(0, cast)
    return model


def quantize_tables(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store embedding tables as int8 with a scale a row; rows are looked up in int8 and then scaled.

    Args:
        model: A graph, changed in place.
    """
    from onnx import TensorProto, numpy_helper

    tables = {i.name: i for i in model.graph.initializer if i.data_type == TensorProto.FLOAT and len(i.dims) == 2}
    for name, initializer in tables.items():
        users = [node for node in model.graph.node if name in node.input]
        if np.prod(initializer.dims) < LARGE or not users or not all(_is_lookup(node, name) for node in users):
            continue
        rows, scales = quantize_rows(numpy_helper.to_array(initializer))
        initializer.CopyFrom(numpy_helper.from_array(rows, f"{name}_int8"))
        model.graph.initializer.append(numpy_helper.from_array(scales, f"{name}_scale"))
        for node in users:
            _replace_lookup(model, node, f"{name}_int8", [f"{name}_scale"])
    return model


def quantize_rows(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric int8 with a scale a row.

    Args:
        table: Shape (rows, d), float32.

    Returns:
        The rows, int8, and their scales, shape (rows, 1), float32; their product is the table, to half a scale.

    Example:
        >>> rows, scales = quantize_rows(np.array([[1.0, -2.0], [0.0, 0.0]], dtype=np.float32))
        >>> rows.tolist(), [round(float(scale), 4) for scale in scales[:, 0]]
        ([[64, -127], [0, 0]], [0.0157, 0.0])
    """
    scales = np.abs(table).max(axis=1, keepdims=True) / np.float32(127)
    rows = np.rint(np.divide(table, scales, out=np.zeros_like(table), where=scales > 0))
    return rows.astype(np.int8), scales.astype(np.float32)


def quantize_dynamic(model: onnx.ModelProto, keep_in_float: Collection[str], reduce_range: bool) -> onnx.ModelProto:
    """Int8 weights a channel; activations are quantized while the graph runs, a batch's tensor with one scale.

    Args:
        model: A float32 graph, left as it is.
        keep_in_float: Names of linear layers.
        reduce_range: Use 7 bits of the weights, for processors whose 8-bit products saturate.

    Returns:
        The quantized graph.
    """
    import onnx
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic as quantize

    excluded = _excluded(model, keep_in_float)
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


def quantize_static(
    model: onnx.ModelProto, batches: Sequence[dict[str, np.ndarray]], keep_in_float: Collection[str]
) -> onnx.ModelProto:
    """Int8 weights and activations with scales that were found on given text, by nncf (SmoothQuant, bias correction).

    Args:
        model: A float32 graph, left as it is.
        batches: What the graph takes, for calibration.
        keep_in_float: Names of linear layers.

    Returns:
        The quantized graph.

    Raises:
        MissingExtraError: nncf is not installed.
    """
    import onnx

    nncf = require_nncf()
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    with quiet():
        quantized: onnx.ModelProto = nncf.quantize(
            quantize_tables(copy),
            nncf.Dataset(batches),
            subset_size=len(batches),
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(names=_excluded(copy, keep_in_float)),
        )
    return quantized


def require_nncf() -> Any:
    """The module nncf, its log silenced.

    Raises:
        MissingExtraError: It is not installed.
    """
    import logging

    with quiet():
        try:
            import nncf
        except ImportError as error:
            raise MissingExtraError("Calibrated (static) quantization", "openvino") from error
    nncf.set_log_level(logging.ERROR)
    return nncf


def _excluded(model: onnx.ModelProto, keep_in_float: Collection[str]) -> list[str]:
    """Matrix products that stay in float: those asked for, and what comes after the encoder, a row a sentence."""
    constants = {initializer.name for initializer in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type in LINEAR and node.input[1] in constants]
    keep = set(keep_in_float)
    return [node.name for node in products if node.name.split("#")[0] in keep or not node.name.startswith("0.")]


def _is_lookup(node: onnx.NodeProto, table: str) -> bool:
    return (
        node.op_type == "Gather"
        and node.input[0] == table
        and not any(a.name == "axis" and a.i for a in node.attribute)
    )


def _replace_lookup(model: onnx.ModelProto, node: onnx.NodeProto, table: str, scales: list[str]) -> None:
    """Look ``table`` up instead, widen to float32 and multiply with each of ``scales`` looked up at the same rows."""
    from onnx import TensorProto, helper

    position = list(model.graph.node).index(node)
    ids, output = node.input[1], node.output[0]
    parts = [
        helper.make_node("Gather", [table, ids], [f"{output}_stored"], name=f"{node.name}_stored"),
        helper.make_node(
            "Cast",
            [f"{output}_stored"],
            [f"{output}_wide" if scales else output],
            name=f"{node.name}_wide",
            to=TensorProto.FLOAT,
        ),
    ]
    for scale in scales:
        parts += [
            helper.make_node("Gather", [scale, ids], [f"{output}_scale"], name=f"{node.name}_scale"),
            helper.make_node("Mul", [f"{output}_wide", f"{output}_scale"], [output], name=f"{node.name}_scaled"),
        ]
    model.graph.node.remove(node)
    for offset, part in enumerate(parts):
        model.graph.node.insert(position + offset, part)

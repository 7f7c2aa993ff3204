"""ONNX graphs of lower precision: half-precision weights, and int8 weights, activations and embedding tables."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import onnx

LARGE = 1024
"""Elements; smaller constants stay as they are."""

VOCABULARY = 4096
"""Rows from which on an embedding table is worth 4 bits."""

BLOCKS = (32, 16)
"""Numbers that share a scale in 4 bits; the first that divides a row."""

LINEAR = ("MatMul", "Gemm")
"""What a linear layer becomes."""

_MICROSOFT = "com.microsoft"
_CONSTANTS = {
    "int8_axes": np.array([-1]),
    "int8_least": np.float32(1e-12),
    "int8_levels": np.float32(127),
    "int8_step": np.float32(1 / 127),
    "int8_one": np.float32(1),
    "int8_zero": np.uint8(128),
}
"""Of the nodes that quantize activations: 127 levels on each side of zero, which is 128."""


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


def quantize_tables(model: onnx.ModelProto, bits: int = 8) -> onnx.ModelProto:
    """Store a graph's embedding tables, in place, in few bits: rows are looked up and then scaled.

    Int8 has a scale a row. With 4 ``bits``, vocabularies are stored as :func:`quantize_blocks` does.
    """
    from onnx import numpy_helper

    for table in float_matrices(model):
        if lookups := _only_lookups(model, table.name):
            values = numpy_helper.to_array(table)
            in_blocks = bits == 4 and fits_in_blocks(values.shape)
            rows, scales = quantize_blocks(values) if in_blocks else quantize_rows(values)
            stored, scale = f"{table.name}_int{bits if in_blocks else 8}", f"{table.name}_scale"
            table.CopyFrom(numpy_helper.from_array(rows, stored))
            model.graph.initializer.append(numpy_helper.from_array(scales, scale))
            for node in lookups:
                if in_blocks:
                    _replace_lookup_in_blocks(model, node, stored, scale, values.shape[1] // scales.shape[1])
                else:
                    _replace_lookup(model, node, stored, scale)
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


def fits_in_blocks(shape: Sequence[int]) -> bool:
    """Whether :func:`quantize_blocks` is meant for a table: a vocabulary, of a width that blocks divide."""
    return shape[0] >= VOCABULARY and shape[1] % BLOCKS[-1] == 0


def quantize_blocks(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric 4-bit integers of a matrix (rows, d), with a float16 scale for each 32 (or 16) numbers of a row.

    Two integers share a byte, each plus 8: byte j of a row has that of column j in its lower half, and that of column
    j + d/2 in its upper half. So halves are split and joined as wholes, in any software, without a special operator.
    Quantizing the product again gives the same integers and scales.

    Returns:
        The bytes, uint8, (rows, d/2), and the scales, float16, (rows, blocks).

    Raises:
        InputError: Numbers too large for a scale.

    Example:
        >>> integers, scales = quantize_blocks(np.linspace(-7, 7, 16, dtype=np.float32)[None])
        >>> integers[0].tolist(), scales.tolist()
        ([129, 146, 163, 180, 197, 214, 231, 248], [[1.0]])
    """
    size = next(size for size in BLOCKS if table.shape[1] % size == 0)
    blocks = table.reshape(len(table), -1, size)
    # Below the least normal number of float16 a scale would be too coarse to come out the same again.
    scales = np.maximum(np.abs(blocks).max(axis=2) / np.float32(7), np.finfo(np.float16).tiny)
    if not scales.max() < np.finfo(np.float16).max:
        raise InputError("An embedding table's numbers are too large for 4 bits: use 8.")
    scales = scales.astype(np.float16)
    integers = (np.rint(blocks / scales[:, :, None].astype(np.float32)) + 8).astype(np.uint8).reshape(table.shape)
    half = table.shape[1] // 2
    return integers[:, :half] | integers[:, half:] << 4, scales


def round_to_int8(table: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """The integers nearest to ``table / scales``; zeros where the scale is zero."""
    rows: np.ndarray = np.rint(np.divide(table, scales, out=np.zeros_like(table), where=scales > 0))
    return rows.astype(np.int8)


def quantize_dynamic(
    model: onnx.ModelProto,
    keep_in_float: Collection[str],
    reduce_range: bool,
    plain: bool = False,
    table_bits: int = 8,
) -> onnx.ModelProto:
    """Int8 weights with a scale a channel; activations are quantized while the graph runs, with a scale a token.

    So a token's numbers depend on it alone, not on the other sentences of a batch, as they do with onnxruntime's own
    dynamic quantization, which has one scale for a whole tensor. The graph given, in float32, stays as it is.
    ``reduce_range`` uses 7 bits of the weights, for processors whose 8-bit products saturate; ``plain`` uses standard
    operators alone; ``table_bits`` is as for :func:`quantize_tables`.
    """
    import onnx
    from onnx import numpy_helper

    model = copy.deepcopy(model)
    graph = model.graph
    _spell_out_gemms(model)
    matrices = {tensor.name: tensor for tensor in float_matrices(model)}
    excluded = in_float(model, keep_in_float)
    products = [
        node
        for node in graph.node
        if node.op_type == "MatMul" and node.input[1] in matrices and node.name not in excluded
    ]
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in _CONSTANTS.items())
    if not plain and _MICROSOFT not in {known.domain for known in model.opset_import}:
        model.opset_import.add(domain=_MICROSOFT, version=1)
    quantized: set[str] = set()
    for node in products:
        tokens, weights = node.input[:2]
        stored = _int8_columns(graph, matrices[weights], reduce_range)
        parts = [] if tokens in quantized else _quantize_tokens(tokens)
        quantized.add(tokens)
        parts += _plain_int8_product(node, stored) if plain else _int8_product(node, stored)
        _replace(graph, node, parts)
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)
    onnx.checker.check_model(model)
    return quantize_tables(model, table_bits)


def _spell_out_gemms(model: onnx.ModelProto) -> None:
    """Replace each Gemm of constant weights by a MatMul with weights as (in, out), and an addition, in place."""
    from onnx import helper, numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in list(model.graph.node):
        if node.op_type != "Gemm" or node.input[1] not in constants:
            continue
        (output,), weights = node.output, node.input[1]
        if any(attribute.name == "transB" and attribute.i for attribute in node.attribute):
            matrix = numpy_helper.to_array(constants[weights])
            weights = f"{weights}_t"
            if weights not in constants:
                constants[weights] = numpy_helper.from_array(np.ascontiguousarray(matrix.T), weights)
                model.graph.initializer.append(constants[weights])
        has_bias = len(node.input) > 2 and bool(node.input[2])
        product = f"{output}_unbiased" if has_bias else output
        parts = [helper.make_node("MatMul", [node.input[0], weights], [product], node.name)]
        if has_bias:
            parts.append(helper.make_node("Add", [product, node.input[2]], [output], f"{node.name}_biased"))
        _replace(model.graph, node, parts)


def _int8_columns(graph: onnx.GraphProto, tensor: onnx.TensorProto, reduce_range: bool) -> str:
    """Add the int8 twin of a matrix (in, out), with a scale a column; its name."""
    from onnx import numpy_helper

    name = f"{tensor.name}_int8"
    if name not in {known.name for known in graph.initializer}:
        table = np.ascontiguousarray(numpy_helper.to_array(tensor).T)
        rows, scales = quantize_rows(table)
        if reduce_range:
            scales = scales * np.float32(127 / 63)
            rows = round_to_int8(table, scales)
        columns = {name: np.ascontiguousarray(rows.T), f"{name}_scale": scales[:, 0].copy()}
        graph.initializer.extend(numpy_helper.from_array(values, key) for key, values in columns.items())
    return name


def _quantize_tokens(tokens: str) -> list[onnx.NodeProto]:
    """Nodes that quantize activations of shape (..., d) symmetrically, each row by its own largest value."""
    from onnx import helper

    size, largest, inverse = f"{tokens}_size", f"{tokens}_largest", f"{tokens}_inverse"
    return [
        helper.make_node("Abs", [tokens], [size], f"{size}_abs"),
        helper.make_node("ReduceMax", [size, "int8_axes"], [f"{largest}_or_0"], f"{largest}_max", keepdims=1),
        helper.make_node("Max", [f"{largest}_or_0", "int8_least"], [largest], f"{largest}_least"),
        helper.make_node("Div", ["int8_levels", largest], [inverse], f"{inverse}_div"),
        helper.make_node("Mul", [tokens, inverse], [f"{tokens}_scaled"], f"{tokens}_scaled_mul"),
        helper.make_node(
            "QuantizeLinear", [f"{tokens}_scaled", "int8_one", "int8_zero"], [f"{tokens}_int8"], f"{tokens}_int8_round"
        ),
    ]


def _int8_product(node: onnx.NodeProto, stored: str) -> list[onnx.NodeProto]:
    """The product of quantized tokens and weights in place of a MatMul, widened and scaled."""
    from onnx import helper

    tokens, (output,) = node.input[0], node.output
    inputs = [f"{tokens}_int8", stored, "int8_step", f"{stored}_scale", "int8_zero"]
    raw = f"{output}_by_token"
    return [
        helper.make_node("MatMulIntegerToFloat", inputs, [raw], f"{node.name}_int8", domain=_MICROSOFT),
        helper.make_node("Mul", [raw, f"{tokens}_largest"], [output], f"{node.name}_scaled"),
    ]


def _plain_int8_product(node: onnx.NodeProto, stored: str) -> list[onnx.NodeProto]:
    """The same in standard operators: an integer product, widened, and two scales."""
    from onnx import TensorProto, helper

    tokens, (output,) = node.input[0], node.output
    raw, wide, by_column, step = (f"{output}_{part}" for part in ("integers", "wide", "by_column", "step"))
    return [
        helper.make_node("MatMulInteger", [f"{tokens}_int8", stored, "int8_zero"], [raw], f"{node.name}_int8"),
        helper.make_node("Cast", [raw], [wide], f"{node.name}_wide", to=TensorProto.FLOAT),
        helper.make_node("Mul", [wide, f"{stored}_scale"], [by_column], f"{node.name}_columns"),
        helper.make_node("Mul", [f"{tokens}_largest", "int8_step"], [step], f"{node.name}_step"),
        helper.make_node("Mul", [by_column, step], [output], f"{node.name}_scaled"),
    ]


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
    _replace(model.graph, node, parts)


def _replace_lookup_in_blocks(model: onnx.ModelProto, node: onnx.NodeProto, table: str, scales: str, size: int) -> None:
    """Look rows of 4-bit integers up instead, for tokens (batch, tokens), take bytes apart and scale blocks."""
    from onnx import TensorProto, helper, numpy_helper

    ids, output = node.input[1], node.output[0]
    constants = {
        "int4_16th": np.float32(1 / 16),
        "int4_16": np.float32(16),
        "int4_8": np.float32(8),
        f"int4_blocks_{size}": np.array([0, 0, -1, size], np.int64),
        "int4_each": np.array([0, 0, -1, 1], np.int64),
        "int4_row": np.array([0, 0, -1], np.int64),
    }
    there = {known.name for known in model.graph.initializer}
    missing = (numpy_helper.from_array(value, name) for name, value in constants.items() if name not in there)
    model.graph.initializer.extend(missing)

    made: set[str] = set()

    def step(kind: str, inputs: list[str], result: str, **attributes: Any) -> onnx.NodeProto:
        named = [f"{output}_{name}" if name in made else name for name in inputs]
        made.add(result)
        return helper.make_node(kind, named, [f"{output}_{result}"], name=f"{node.name}_{result}", **attributes)

    parts = [
        step("Gather", [table, ids], "bytes"),
        step("Cast", ["bytes"], "both", to=TensorProto.FLOAT),
        step("Mul", ["both", "int4_16th"], "sixteenth"),
        step("Floor", ["sixteenth"], "upper"),
        step("Mul", ["upper", "int4_16"], "shifted"),
        step("Sub", ["both", "shifted"], "lower"),
        step("Concat", ["lower", "upper"], "halves", axis=-1),
        step("Sub", ["halves", "int4_8"], "integers"),
        step("Reshape", ["integers", f"int4_blocks_{size}"], "blocks"),
        step("Gather", [scales, ids], "scales"),
        step("Cast", ["scales"], "wide", to=TensorProto.FLOAT),
        step("Reshape", ["wide", "int4_each"], "each"),
        step("Mul", ["blocks", "each"], "scaled"),
        helper.make_node("Reshape", [f"{output}_scaled", "int4_row"], [output], name=f"{node.name}_row"),
    ]
    _replace(model.graph, node, parts)


def _replace(graph: onnx.GraphProto, node: onnx.NodeProto, parts: Sequence[onnx.NodeProto]) -> None:
    position = list(graph.node).index(node)
    graph.node.remove(node)
    for offset, part in enumerate(parts):
        graph.node.insert(position + offset, part)

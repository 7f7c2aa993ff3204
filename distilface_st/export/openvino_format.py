"""OpenVINO's own format: converted by OpenVINO, quantized by nncf."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from typing_extensions import override

from ..utils.extras import require
from .graph_format import GraphFormat, conversion_error, quantize_static, quiet, require_nncf
from .onnx_precision import fits_in_blocks, quantize_blocks

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ..inference.engines import Engine

DYNAMIC_OPTIONS = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "64"}
"""Activations that share a scale. Of 32, 64, 128 and 384, 64 was the fastest on MiniLM at a cosine of 0.999."""

_LINEAR = re.compile(r"__module\.parts\.(?P<layer>[\w.]+)/.*MatMul.*")


class OpenVINOFormat(GraphFormat):
    """OpenVINO's own format. The activations of dynamic int8 are quantized in groups while the graph runs."""

    runtime = "openvino"

    @property
    @override
    def options(self) -> dict[str, Any]:
        return dict(DYNAMIC_OPTIONS) if self.spec.precision == "int8" and not self.spec.static else {}

    @override
    def _convert(self) -> Any:
        if self.spec.precision == "int8":
            require_nncf()
        openvino = require("openvino", "Exporting to OpenVINO", "openvino")
        graph = self.spec.graph
        example = graph.example(2, 9, torch.Generator().manual_seed(0), padding=3)
        try:
            with quiet(), torch.no_grad():
                model = openvino.convert_model(graph, example_input=example)
        except Exception as error:
            raise conversion_error(graph, "converted by OpenVINO", error) from error
        for given in model.inputs:  # the batch and the length are free
            shape = [] if given.get_any_name() == "prompt_length" else [-1, -1]
            given.get_node().set_partial_shape(openvino.PartialShape(shape))
        for output, name in zip(model.outputs, graph.outputs, strict=True):
            output.get_tensor().set_names({name})
        model.validate_nodes_and_infer_types()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.xml")
            openvino.save_model(model, str(path), compress_to_fp16=False)
            self._check([path])
        return model

    @override
    def _save(self, path: Path, keep_in_float: Collection[str]) -> None:
        import openvino

        model, spec = self.base.clone(), self.spec
        excluded = in_float(model, keep_in_float)
        if spec.static:
            model = quantize_static(model, spec, excluded)
        elif spec.precision == "int8":
            nncf = require_nncf()
            with quiet():  # weights with a scale a channel, embedding tables with a scale a row
                scope = nncf.IgnoredScope(names=excluded)
                model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM, ignored_scope=scope)
        if spec.precision == "int8" and spec.table_bits == 4:
            _tables_in_blocks(model, self.base)
        openvino.save_model(model, str(path), compress_to_fp16=spec.precision == "fp16")

    @override
    def _open(self, files: Sequence[Path], **options: str) -> Engine:
        # Left alone, OpenVINO computes in bfloat16 where the processor can.
        return super()._open(files, INFERENCE_PRECISION_HINT="f32")


def in_float(model: Any, keep_in_float: Collection[str]) -> list[str]:
    """Matrix products that stay in float: those asked for, and what comes after the encoder, a row a sentence."""
    names = (op.get_friendly_name() for op in model.get_ops() if op.get_type_name() == "MatMul")
    layers = {name: match["layer"] for name in names if (match := _LINEAR.fullmatch(name))}
    return [name for name, layer in layers.items() if layer in keep_in_float or not layer.startswith("0.")]


def _tables_in_blocks(model: Any, base: Any) -> None:
    """Store a graph's vocabularies in 4 bits, in place; ``base`` is the same graph with tables in float."""
    tables = {}
    for node in base.get_ops():
        if node.get_type_name() == "Gather" and node.input_value(0).get_node().get_type_name() == "Constant":
            values = np.array(node.input_value(0).get_node().data)
            if values.ndim == 2 and fits_in_blocks(values.shape):
                tables[node.get_friendly_name()] = values
    for node in model.get_ordered_ops():
        if node.get_friendly_name() in tables:
            replace_node(node, look_up(node, *quantize_blocks(tables[node.get_friendly_name()])))
    model.validate_nodes_and_infer_types()


def replace_node(node: Any, found: Any) -> None:
    """Give the output of ``found`` to whatever takes that of ``node``."""
    for user in node.output(0).get_target_inputs():
        user.replace_source_output(found.output(0))


def look_up(node: Any, table: np.ndarray, scales: np.ndarray) -> Any:
    """A lookup in a table of int8 with a scale a row, or of 4 bits in blocks, that is widened after it.

    ``node`` looks rows up in a float table by tokens, (batch, tokens). The rows of 4 bits are taken apart as
    :func:`distilface_st.export.onnx_precision.quantize_blocks` put them together.
    """
    from openvino import opset13 as operators

    def rows(of: np.ndarray) -> Any:
        found = operators.gather(operators.constant(of), node.input_value(1), operators.constant(np.int64(0)))
        return operators.convert(found, "f32")

    def number(value: float) -> Any:
        return operators.constant(np.float32(value))

    def shaped(values: Any, *shape: int) -> Any:
        return operators.reshape(values, operators.constant(np.array([0, 0, *shape])), special_zero=True)

    if table.dtype != np.uint8:
        return operators.multiply(rows(table), rows(scales))
    both = rows(table)
    upper = operators.floor(operators.multiply(both, number(1 / 16)))
    lower = operators.subtract(both, operators.multiply(upper, number(16)))
    integers = operators.subtract(operators.concat([lower, upper], -1), number(8))
    size = 2 * table.shape[1] // scales.shape[1]
    scaled = operators.multiply(shaped(integers, -1, size), shaped(rows(scales), -1, 1))
    return shaped(scaled, -1)

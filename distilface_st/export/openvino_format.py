"""OpenVINO's own format: converted by OpenVINO, quantized by nncf."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from typing_extensions import override

from ..inference.engines import ENGINES
from ..utils.extras import require
from .graph_format import GraphFormat, conversion_error, quantize_static, quiet, require_nncf

if TYPE_CHECKING:
    from collections.abc import Collection

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
            self._check(path)
        return model

    @override
    def _save(self, path: Path, keep_in_float: Collection[str]) -> None:
        import openvino

        model, spec = self.base.clone(), self.spec
        excluded = _in_float(model, keep_in_float)
        if spec.static:
            model = quantize_static(model, spec, excluded)
        elif spec.precision == "int8":
            nncf = require_nncf()
            with quiet():  # weights with a scale a channel, embedding tables with a scale a row
                scope = nncf.IgnoredScope(names=excluded)
                model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM, ignored_scope=scope)
        openvino.save_model(model, str(path), compress_to_fp16=spec.precision == "fp16")

    @override
    def _open(self, path: Path) -> Engine:
        # Left alone, OpenVINO computes in bfloat16 where the processor can.
        return ENGINES[self.runtime](path, options={"INFERENCE_PRECISION_HINT": "f32", **self.options})


def _in_float(model: Any, keep_in_float: Collection[str]) -> list[str]:
    """Matrix products that stay in float: those asked for, and what comes after the encoder, a row a sentence."""
    names = (op.get_friendly_name() for op in model.get_ops() if op.get_type_name() == "MatMul")
    layers = {name: match["layer"] for name in names if (match := _LINEAR.fullmatch(name))}
    return [name for name, layer in layers.items() if layer in keep_in_float or not layer.startswith("0.")]

"""One OpenVINO graph, by OpenVINO's own converter, quantized by nncf."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch

from ..errors import InputError, MissingExtraError
from .onnx_graph import quiet
from .onnx_precision import require_nncf

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    import numpy as np

    from .sentence_graph import SentenceGraph

DYNAMIC_OPTIONS = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "64"}
"""Activations that share a scale. Of 32, 64, 128 and 384, 64 was the fastest on MiniLM at a cosine of 0.999."""

_LINEAR = re.compile(r"__module\.parts\.(?P<layer>[\w.]+)/.*MatMul.*")


def require_openvino() -> Any:
    """The module openvino.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("Exporting to OpenVINO", "openvino") from error
    return openvino


def to_openvino(graph: SentenceGraph) -> Any:
    """Convert a model, batch and length free.

    Args:
        graph: The model.

    Returns:
        An ``openvino.Model``, float32. Matrix products of linear layers carry the layers' names.

    Raises:
        InputError: The encoder's code cannot be traced.
        MissingExtraError: OpenVINO is not installed.
    """
    openvino = require_openvino()
    example = graph.example(2, 9, torch.Generator().manual_seed(0), padding=3)
    try:
        with quiet(), torch.no_grad():
            model = openvino.convert_model(graph, example_input=example)
    except Exception as error:
        kind = type(graph.encoder).__name__
        raise InputError(f"{kind} cannot be converted by OpenVINO: {str(error).strip().splitlines()[0]}") from error
    for given in model.inputs:
        shape = [] if given.get_any_name() == "prompt_length" else [-1, -1]
        given.get_node().set_partial_shape(openvino.PartialShape(shape))
    model.validate_nodes_and_infer_types()
    return model


def compress_weights(model: Any, keep_in_float: Collection[str]) -> Any:
    """Int8 weights a channel and int8 embedding tables a row; OpenVINO quantizes activations while the graph runs.

    Args:
        model: A float32 ``openvino.Model``, changed in place.
        keep_in_float: Names of linear layers.

    Returns:
        The quantized graph; it is meant to run with :data:`DYNAMIC_OPTIONS`.
    """
    nncf = require_nncf()
    with quiet():
        return nncf.compress_weights(
            model, mode=nncf.CompressWeightsMode.INT8_SYM, ignored_scope=_scope(nncf, model, keep_in_float)
        )


def quantize_static(model: Any, batches: Sequence[dict[str, np.ndarray]], keep_in_float: Collection[str]) -> Any:
    """Int8 weights and activations with scales found on given text, by nncf (SmoothQuant, bias correction).

    Args:
        model: A float32 ``openvino.Model``, changed in place.
        batches: What the graph takes, for calibration.
        keep_in_float: Names of linear layers.

    Returns:
        The quantized graph.
    """
    nncf = require_nncf()
    with quiet():
        return nncf.quantize(
            model,
            nncf.Dataset(batches),
            subset_size=len(batches),
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=_scope(nncf, model, keep_in_float),
        )


def save(model: Any, path: Path, half: bool = False) -> None:
    """Write ``path`` (.xml) and its weights beside it (.bin), in float16 where ``half``."""
    require_openvino().save_model(model, str(path), compress_to_fp16=half)


def _scope(nncf: Any, model: Any, keep_in_float: Collection[str]) -> Any:
    """Matrix products that stay in float: those asked for, and what comes after the encoder, a row a sentence."""
    layers = {
        op.get_friendly_name(): match["layer"]
        for op in model.get_ops()
        if op.get_type_name() == "MatMul" and (match := _LINEAR.fullmatch(op.get_friendly_name()))
    }
    kept = set(keep_in_float)
    names = [name for name, layer in layers.items() if layer in kept or not layer.startswith("0.")]
    return nncf.IgnoredScope(names=names)

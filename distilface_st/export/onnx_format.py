"""ONNX, for onnxruntime: traced by torch's exporter, with attention as a single operator of onnxruntime."""

from __future__ import annotations

import contextlib
import copy
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, bidirectional_mask_function
from typing_extensions import override

from ..errors import InputError
from ..utils.extras import require
from . import onnx_precision
from .graph_format import GraphFormat, conversion_error, quantize_static, quiet, require_nncf

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    import onnx

    from .sentence_graph import SentenceGraph

_FUSED = "distilface_fused"
_MICROSOFT = "com.microsoft"
"""Where onnxruntime's own operators are."""


class OnnxFormat(GraphFormat):
    """ONNX, for onnxruntime."""

    runtime = "onnxruntime"

    @override
    def _convert(self) -> Any:
        if self.spec.static:
            require_nncf()
        if self.spec.plain:
            return self._checked(fused_attention=False)
        try:
            return self._checked(fused_attention=True)
        except InputError:
            # Not every encoder's attention can be one operator; the graph of the others is slower and as right.
            return self._checked(fused_attention=False)

    def _checked(self, fused_attention: bool) -> Any:
        model = to_onnx(self.spec.graph, fused_attention, self.spec.plain)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.onnx")
            path.write_bytes(model.SerializeToString())
            self._check([path])
        return model

    @override
    def _save(self, path: Path, keep_in_float: Collection[str]) -> None:
        model, spec = copy.deepcopy(self.base), self.spec
        if spec.precision == "fp16":
            model = onnx_precision.store_as_half(model)
        elif spec.static:
            excluded = onnx_precision.in_float(model, keep_in_float)
            model = quantize_static(onnx_precision.quantize_tables(model, spec.table_bits), spec, excluded)
        elif spec.precision == "int8":
            model = onnx_precision.quantize_dynamic(
                model, keep_in_float, spec.reduce_range, spec.plain, spec.table_bits
            )
        path.write_bytes(model.SerializeToString())


def to_onnx(graph: SentenceGraph, fused_attention: bool = True, plain: bool = False) -> onnx.ModelProto:
    """Trace a model into ONNX, batch and length free, and fuse what onnxruntime has single operators for.

    With ``fused_attention``, attention is a ``com.microsoft.MultiHeadAttention``; encoders whose attention is not
    transformers' own, or masked by more than padding, cannot be written so. With ``plain``, nothing is fused. Matrix
    products of linear layers carry the layers' names.
    """
    for package in ("onnx", "onnxruntime", "onnxscript"):
        require(package, "Exporting to ONNX", "onnx")
    example = graph.example(2, 9, torch.Generator().manual_seed(0), padding=3)
    free = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens")}
    try:
        with quiet(), _attention(graph, fused_attention):
            program = torch.onnx.export(
                graph,
                (),
                kwargs=example,
                dynamo=True,
                dynamic_shapes={name: free if tensor.ndim else None for name, tensor in example.items()},
                input_names=list(example),
                output_names=list(graph.outputs),
                opset_version=18,
            )
    except Exception as error:
        raise conversion_error(graph, "written as an ONNX graph", error) from error
    assert program is not None
    _name_linear_layers(program.model)
    model = program.model_proto if plain else _fuse(program.model_proto, graph.encoder.config)
    for part in (model.graph, *model.functions):  # the tracer notes where in the source each operator came from
        for noted in (part, *part.node, *part.value_info):
            noted.ClearField("metadata_props")
    return model


@contextlib.contextmanager
def _attention(graph: SentenceGraph, fused: bool) -> Iterator[None]:
    """Trace the encoder with attention as one operator, or spelled out, and leave it as it was."""
    before = graph.encoder.config._attn_implementation
    AttentionInterface.register(_FUSED, _fused_attention)
    AttentionMaskInterface.register(_FUSED, _padding_mask)
    try:
        graph.encoder.set_attn_implementation(_FUSED if fused else "eager")
        yield
    finally:
        graph.encoder.set_attn_implementation(before)


def _fused_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of shape (batch, heads, tokens, width) as one operator; it takes the padding mask as it is."""
    batch, heads, tokens, width = query.shape
    if attention_mask is None or attention_mask.ndim != 2:
        raise ValueError("attention is masked by more than padding")
    joined = (states.transpose(1, 2).reshape(batch, tokens, heads * width) for states in (query, key, value))
    mixed = torch.onnx.ops.symbolic(
        f"{_MICROSOFT}::MultiHeadAttention",
        (*joined, None, attention_mask.to(torch.int32)),
        attrs={"num_heads": heads, "scale": float(scaling or width**-0.5)},
        dtype=query.dtype,
        shape=(batch, tokens, heads * width),
        version=1,
    )
    return mixed.reshape(batch, tokens, heads, width), None


def _padding_mask(*args: Any, attention_mask: Tensor | None = None, mask_function: Any = None, **kwargs: Any) -> Any:
    if mask_function is not bidirectional_mask_function:
        raise ValueError("attention is masked by more than padding")
    return attention_mask


def _name_linear_layers(model: Any) -> None:
    """Name the matrix product of each linear layer after it, such as ``0.model.encoder.layer.3.output.dense``."""
    seen: Counter[str] = Counter()
    for node in model.graph:
        if node.op_type not in onnx_precision.LINEAR or node.inputs[1].const_value is None:
            continue
        scopes = node.metadata_props.get("pkg.torch.onnx.name_scopes", "").strip("[]").split(",")
        modules = [name for scope in scopes if (name := scope.strip(" '\""))]
        if len(modules) > 1:
            name = modules[-2].removeprefix("parts.")
            seen[name] += 1  # a layer that is used again shares its weights, as in ALBERT
            node.name = name if seen[name] == 1 else f"{name}#{seen[name]}"


def _fuse(model: onnx.ModelProto, config: Any) -> onnx.ModelProto:
    """Merge nodes as onnxruntime's transformer optimizer does; a graph that it cannot read is as right without."""
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    options = FusionOptions("bert")
    options.enable_embed_layer_norm = False  # the table has to stay a table, for int8
    with quiet(), contextlib.suppress(Exception):
        fused = optimizer.optimize_model(
            copy.deepcopy(model),
            model_type="bert",
            num_heads=config.num_attention_heads,
            hidden_size=config.hidden_size,
            opt_level=0,
            optimization_options=options,
        )
        fused.prune_graph()
        # The optimizer may use its own operators without saying so, which quantizers then stumble over.
        if _MICROSOFT not in {known.domain for known in fused.model.opset_import}:
            fused.model.opset_import.add(domain=_MICROSOFT, version=1)
        return cast("onnx.ModelProto", fused.model)
    return model

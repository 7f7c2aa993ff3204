"""One ONNX graph, by torch's exporter, with attention as a single operator of onnxruntime."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from ..errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

    from .sentence_graph import SentenceGraph

OUTPUT = "sentence_embedding"
LINEAR = ("MatMul", "Gemm")
"""What a linear layer becomes."""

_OPSET = 18
_FUSED = "distilface_fused"


def require_onnx() -> None:
    """Check that what exports and runs ONNX is installed.

    Raises:
        MissingExtraError: It is not.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("Exporting to ONNX", "onnx") from error


def to_onnx(graph: SentenceGraph, fused_attention: bool = True) -> onnx.ModelProto:
    """Trace a model into ONNX, batch and length free, and fuse what onnxruntime has single operators for.

    Args:
        graph: The model. Its attention implementation is changed.
        fused_attention: Write attention as ``com.microsoft.MultiHeadAttention``; encoders whose attention is not
            transformers' own, or masked by more than padding, cannot be written so.

    Returns:
        The graph, float32. Matrix products of linear layers carry the layers' names.

    Raises:
        InputError: The encoder's code cannot be traced.
    """
    require_onnx()
    generator = torch.Generator().manual_seed(0)
    example = graph.example(2, 9, generator, padding=3)
    free = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens")}
    shapes = {name: free if tensor.ndim else None for name, tensor in example.items()}
    try:
        with _attention(graph, fused_attention), quiet():
            program = torch.onnx.export(
                graph,
                (),
                kwargs=example,
                dynamo=True,
                dynamic_shapes=shapes,
                input_names=list(example),
                output_names=[OUTPUT],
                opset_version=_OPSET,
            )
    except Exception as error:
        kind = type(graph.encoder).__name__
        raise InputError(f"{kind} cannot be written as an ONNX graph: {_first_line(error)}") from error
    assert program is not None
    _name_linear_layers(program.model)
    return _fuse(program.model_proto, graph.encoder.config)


@contextlib.contextmanager
def _attention(graph: SentenceGraph, fused: bool) -> Iterator[None]:
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

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

    def joined(states: Tensor) -> Tensor:
        return states.transpose(1, 2).reshape(batch, tokens, heads * width)

    mixed = torch.onnx.ops.symbolic(
        "com.microsoft::MultiHeadAttention",
        (joined(query), joined(key), joined(value), None, attention_mask.to(torch.int32)),
        attrs={"num_heads": heads, "scale": float(scaling or width**-0.5)},
        dtype=query.dtype,
        shape=(batch, tokens, heads * width),
        version=1,
    )
    return mixed.reshape(batch, tokens, heads, width), None


def _padding_mask(*args: Any, attention_mask: Tensor | None = None, mask_function: Any = None, **kwargs: Any) -> Any:
    from transformers.masking_utils import bidirectional_mask_function

    if mask_function is not bidirectional_mask_function:
        raise ValueError("attention is masked by more than padding")
    return attention_mask


def _name_linear_layers(model: Any) -> None:
    """Name the matrix product of each linear layer after it, such as ``0.model.encoder.layer.3.output.dense``."""
    seen: Counter[str] = Counter()
    for node in model.graph:
        if node.op_type not in LINEAR or node.inputs[1].const_value is None:
            continue
        scopes = node.metadata_props.get("pkg.torch.onnx.name_scopes", "").strip("[]").split(",")
        modules = [name for scope in scopes if (name := scope.strip(" '\""))]
        if len(modules) > 1:
            name = modules[-2].removeprefix("parts.")
            seen[name] += 1
            node.name = name if seen[name] == 1 else f"{name}#{seen[name]}"


def _fuse(model: onnx.ModelProto, config: Any) -> onnx.ModelProto:
    """Merge nodes as onnxruntime's transformer optimizer does; a graph that it cannot read is as right without."""
    import onnx
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    options = FusionOptions("bert")
    options.enable_embed_layer_norm = False  # the table has to stay a table, for int8
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    with quiet(), contextlib.suppress(Exception):
        fused = optimizer.optimize_model(
            model,
            model_type="bert",
            num_heads=config.num_attention_heads,
            hidden_size=config.hidden_size,
            opt_level=0,
            optimization_options=options,
        )
        fused.prune_graph()
        return cast("onnx.ModelProto", fused.model)
    return copy


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence: the exporter prints its steps, and both tools warn of what does not concern the user."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

"""Faster training steps of the same model on the same loss: cheap dropout masks, layers compiled into fused kernels.

On a CPU, half of a training step of a small encoder is not matrix multiplication. What takes the time, and what each
piece below buys, is in ``results/training-speed``.
"""

from __future__ import annotations

import logging
import math
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, wraps
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

ATTENTION = "distilface_training"
_LANES = 1 << 16


@dataclass(frozen=True)
class Acceleration:
    """What was made faster.

    Attributes:
        dropouts: Dropout modules that draw their masks from 16-bit lanes of random words.
        attention: Whether attention with dropout runs on contiguous heads and such masks.
        compiled_layers: Encoder layers that are compiled for training.
        reason: Why no layer is compiled, where that was asked for; else None.
    """

    dropouts: int
    attention: bool
    compiled_layers: int
    reason: str | None = None


@contextmanager
def accelerated(model: SentenceTransformer, compile_layers: bool = False) -> Iterator[Acceleration]:
    """Train a model faster inside this context; afterwards the model's modules are as they were.

    Weights, what is saved (also inside) and the embeddings of eval mode do not change. In training the loss is the same
    function, with dropout drawn from the same distribution, though not the same masks for a seed. On other devices than
    a CPU only layers are compiled.

    Args:
        model: Any SentenceTransformer; parts it does not have, or that are not known here, are left alone.
        compile_layers: Compile the encoder's layers with ``torch.compile``, in training mode only. It needs a C++
            compiler and, at the first step, some tens of seconds; without a compiler it logs why and goes on.

    Yields:
        What was made faster.

    Example:
        ::

            with accelerated(model, compile_layers=True):
                trainer.train()
    """
    with ExitStack() as undo:
        encoders = [module for module in model.modules() if isinstance(module, PreTrainedModel)][:1]
        on_cpu = model.device.type == "cpu"
        dropouts = sum(_swap_dropouts(encoder, undo) for encoder in encoders) if on_cpu else 0
        attention = any(_set_attention(encoder, undo) for encoder in encoders) if on_cpu else False
        reason = why_not_compiled() if compile_layers else None
        compiled = 0
        if compile_layers and reason is None:
            compiled = sum(_compile_layers(encoder, undo) for encoder in encoders)
            reason = None if compiled else "the encoder has no list of layers"
        if reason:
            logger.warning("Encoder layers are not compiled: %s. Training goes on, more slowly.", reason)
        yield Acceleration(dropouts, attention, compiled, reason)


@torch.library.custom_op("distilface::keep_mask", mutates_args=(), tags=(torch.Tag.nondeterministic_seeded,))
def keep_mask(x: Tensor, lanes: int) -> Tensor:
    """A Bernoulli mask of the shape of ``x``, from torch's generator: an element is False with chance lanes / 65536.

    One random 64-bit word serves four elements, so it costs a fraction of ``bernoulli_``. Taking ``x`` itself makes
    each mask depend on the one before it, which keeps their order under compilation, and so replays with a seed.
    """
    count = math.prod(x.shape)
    words = torch.empty((count + 3) // 4, dtype=torch.int64, device=x.device).random_(-(2**63), None)
    return (words.view(torch.int16)[:count] >= lanes - _LANES // 2).view(x.shape)


@keep_mask.register_fake
def _(x: Tensor, lanes: int) -> Tensor:
    return torch.empty(x.shape, dtype=torch.bool, device=x.device)


def dropout(x: Tensor, p: float) -> Tensor:
    """Zero elements with probability p, rounded to 1/65536, and scale the others so that the mean stays the same.

    Args:
        x: A CPU tensor.
        p: A probability below 1.
    """
    lanes = round(p * _LANES)
    if lanes >= _LANES:
        raise ValueError(f"p is {p}: it must be below 1.")
    kept: Tensor = x * keep_mask(x, lanes) * (_LANES / (_LANES - lanes))
    return kept


class LaneDropout(nn.Dropout):
    """``torch.nn.Dropout`` on a CPU, with masks from :func:`keep_mask`."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the base class's name)
        """Drop in training mode, else return the input."""
        if not self.training or self.p in (0, 1) or input.device.type != "cpu":
            return super().forward(input)
        return dropout(input, self.p)


def training_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention with dropout on a CPU, for transformers' attention interface; all other cases go to its ``sdpa``.

    Torch's fused CPU kernel takes no dropout, so ``sdpa`` falls back to single operations there, on strided heads and
    with ``bernoulli_``.

    Args:
        module: The calling layer.
        query: Shape (batch, heads, tokens, head dimension); keys and values likewise.
        key: See ``query``.
        value: See ``query``.
        attention_mask: True where attention is allowed; broadcast to (batch, heads, tokens, tokens).
        dropout: Probability of dropping an attention weight.
        scaling: Factor of the scores; by default the inverse root of the head dimension.
        **kwargs: Passed on to ``sdpa``.

    Returns:
        The outputs, of shape (batch, tokens, heads, head dimension), and None for the weights.
    """
    special = kwargs.get("position_bias") is not None or kwargs.get("is_causal") or getattr(module, "is_causal", False)
    if not 0 < dropout < 1 or special or query.device.type != "cpu" or key.shape[1] != query.shape[1]:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    weights = scores.softmax(dim=-1).to(value.dtype)
    return (_dropout(weights, dropout) @ value).transpose(1, 2).contiguous(), None


_dropout = dropout  # the interface names a parameter of training_attention `dropout`


@cache
def why_not_compiled() -> str | None:
    """Why ``torch.compile`` does not work on this machine, found by compiling one line; None if it does."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.zeros(8))
    except Exception as error:
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    return None


def _swap_dropouts(encoder: nn.Module, undo: ExitStack) -> int:
    found = [
        (parent, name, child)
        for parent in encoder.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Dropout
    ]
    for parent, name, child in found:
        setattr(parent, name, LaneDropout(child.p).train(child.training))
        undo.callback(setattr, parent, name, child)
    return len(found)


def _set_attention(encoder: PreTrainedModel, undo: ExitStack) -> bool:
    before = encoder.config._attn_implementation
    if before not in ("sdpa", "eager") or encoder.config.output_attentions:
        return False
    AttentionInterface.register(ATTENTION, training_attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    undo.callback(encoder.set_attn_implementation, before)
    encoder.set_attn_implementation(ATTENTION)
    return bool(encoder.config._attn_implementation == ATTENTION)


def _encoder_layers(encoder: PreTrainedModel) -> list[nn.Module]:
    depth = getattr(encoder.config, "num_hidden_layers", 0)
    for module in encoder.modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth and len({type(layer) for layer in module}) == 1:
            return list(module)
    return []


def _compile_layers(encoder: PreTrainedModel, undo: ExitStack) -> int:
    layers = _encoder_layers(encoder)
    for layer in layers:
        layer.forward = _in_training(layer, torch.compile(layer.forward), layer.forward)
        undo.callback(delattr, layer, "forward")
    return len(layers)


def _in_training(layer: nn.Module, compiled: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    """``compiled`` in training mode, else ``plain``: evaluation comes in too many shapes to compile for each."""

    @wraps(plain)
    def forward(*args: Any, **kwargs: Any) -> Any:
        return (compiled if layer.training else plain)(*args, **kwargs)

    return forward

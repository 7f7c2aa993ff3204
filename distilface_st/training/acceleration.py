"""Faster training steps on a CPU, of the same model on the same loss.

Much of a training step of a small encoder is not matrix multiplication. What takes the time, what each piece below
buys, and what was tried and brings nothing is in ``results/training-speed``.
"""

from __future__ import annotations

import ctypes
import math
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sentence_transformers import SentenceTransformer

ATTENTION = "distilface_training"
_LANES = 1 << 16
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


@dataclass(frozen=True)
class Acceleration:
    """What was made faster."""

    memory: bool = False  # the C library keeps freed memory for the next step
    dropouts: int = 0  # modules that draw cheap masks
    attention: bool = False  # attention with dropout runs on contiguous heads and cheap masks


@contextmanager
def accelerated(model: SentenceTransformer) -> Iterator[Acceleration]:
    """Train a model faster on a CPU inside this context; afterwards its modules are as they were.

    Weights, what is saved (also inside) and the embeddings of eval mode do not change. In training the loss is the same
    function, with dropout drawn from the same distribution, though with other masks for a seed. On any other device
    nothing is done: torch's fused attention takes dropout there.
    """
    if model.device.type != "cpu":
        yield Acceleration()
        return
    with ExitStack() as undo:
        memory = _keep_memory(undo)
        dropouts = _swap_dropouts(model, undo)
        attention = [_set_attention(module, undo) for module in model.modules() if isinstance(module, PreTrainedModel)]
        yield Acceleration(memory, dropouts, any(attention))


def fast_dropout(x: Tensor, p: float) -> Tensor:
    """Zero elements with probability p, rounded to 1/65536, and scale the others so that the mean stays the same.

    One random 64-bit word of torch's generator serves four elements, so a mask costs a fraction of ``bernoulli_``'s.
    """
    dropped_lanes = round(p * _LANES)
    if not 0 < dropped_lanes < _LANES:
        return F.dropout(x, p)
    words = torch.empty(math.ceil(x.numel() / 4), dtype=torch.int64).random_(-(2**63), None)
    lanes = words.view(torch.int16)[: x.numel()]
    kept = (lanes >= dropped_lanes - _LANES // 2).view(x.shape)
    return x * kept * (_LANES / (_LANES - dropped_lanes))


class FastDropout(nn.Dropout):
    """``torch.nn.Dropout`` by :func:`fast_dropout`, for tensors on a CPU."""

    @override
    def forward(self, input: Tensor) -> Tensor:
        return fast_dropout(input, self.p) if self.training else input


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

    Torch's fused CPU kernel takes no dropout, so there ``sdpa`` falls back to single operations, on strided heads and
    with ``bernoulli_``. Queries, keys and values have the shape (batch, heads, tokens, head dimension), the outputs
    (batch, tokens, heads, head dimension); the mask is True where attention is allowed.
    """
    special = kwargs.get("position_bias") is not None or kwargs.get("is_causal") or getattr(module, "is_causal", False)
    if dropout == 0 or special or query.device.type != "cpu" or key.shape[1] != query.shape[1]:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    weights = scores.softmax(dim=-1).to(value.dtype)
    return (fast_dropout(weights, dropout) @ value).transpose(1, 2).contiguous(), None


def _keep_memory(undo: ExitStack) -> bool:
    """Have glibc keep what is freed: else every step gives its activations back and faults each page in again.

    32 MiB is the largest threshold it takes: bigger blocks are mapped and unmapped as before. Afterwards the thresholds
    are those that its own adaptation comes to in a process that frees blocks of that size.
    """
    try:
        libc = ctypes.CDLL(None)
    except (OSError, TypeError):  # Windows
        return False
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    if not (libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20) and libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)):
        return False
    undo.callback(libc.malloc_trim, 0)
    undo.callback(libc.mallopt, _M_TRIM_THRESHOLD, 64 << 20)
    return True


def _swap_dropouts(model: nn.Module, undo: ExitStack) -> int:
    swapped = 0
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Dropout:
                setattr(parent, name, FastDropout(child.p).train(child.training))
                undo.callback(setattr, parent, name, child)
                swapped += 1
    return swapped


def _set_attention(encoder: PreTrainedModel, undo: ExitStack) -> bool:
    before = encoder.config._attn_implementation
    if before not in ("sdpa", "eager") or encoder.config.output_attentions:
        return False
    AttentionInterface.register(ATTENTION, training_attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    undo.callback(encoder.set_attn_implementation, before)
    encoder.set_attn_implementation(ATTENTION)
    return bool(encoder.config._attn_implementation == ATTENTION)

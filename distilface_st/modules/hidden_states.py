"""An encoder's hidden states, wherever the model goes: into a copy, a pickle, another process.

transformers notes in an encoder's ``__init__`` which outputs it can record, and hangs local functions on the layers
when it first does. Unpickling skips the one, and the other cannot be pickled: an encoder arrives without hidden states,
or does not leave at all.
"""

from __future__ import annotations

import copy
import copyreg
from typing import TYPE_CHECKING, Any, cast

from transformers import PreTrainedModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

_HOOKED = "_output_capturing_hooks_installed"
"""How transformers marks an encoder whose layers have its hooks; without it, the next forward pass hangs them there."""


def give_hidden_states(encoder: PreTrainedModel) -> None:
    """Turn on an encoder's hidden states, and keep them on in copies, in pickles and in other processes."""
    encoder.config.output_hidden_states = True
    for part in encoder.modules():
        if isinstance(part, PreTrainedModel):
            copyreg.pickle(cast("Any", type(part)), _reduced)


def hidden_states_of(features: dict[str, Any], module: nn.Module) -> tuple[Tensor, ...]:
    """The hidden states among the features that a module pools: n + 1 tensors; a ValueError where there are none."""
    found: tuple[Tensor, ...] | None = features.get("all_layer_embeddings")
    if found is None:
        raise ValueError(
            f"{type(module).__name__} found no hidden states: compose the model as "
            "SentenceTransformer(modules=[encoder, pooling]), or set encoder.config.output_hidden_states = True."
        )
    return found


def require_hidden_states(module: nn.Module) -> None:
    """Have a stock module that pools hidden states refuse input without them, over which it passes in silence."""
    module.register_forward_pre_hook(_require)


def _require(module: nn.Module, arguments: tuple[Any, ...]) -> None:
    hidden_states_of(arguments[0], module)


def _reduced(encoder: PreTrainedModel) -> tuple[Callable[..., PreTrainedModel], tuple[Any, ...], dict[str, Any]]:
    """How :mod:`pickle` and :mod:`copy` take an encoder apart: as it was before its first forward pass."""
    state = encoder.__getstate__()  # type: ignore[no-untyped-call]
    state.pop(_HOOKED, None)
    return _arrived, (type(encoder), encoder.config), {**state, "_modules": _bare_children(encoder, {})}


def _arrived(kind: type[PreTrainedModel], config: Any) -> PreTrainedModel:
    """An empty encoder whose class transformers knows in this process, to be filled with its state."""
    copyreg.pickle(cast("Any", kind), _reduced)  # it may go on from here
    encoder: PreTrainedModel = kind.__new__(kind)
    PreTrainedModel.__init__(encoder, config)
    return encoder


def _bare_children(module: nn.Module, made: dict[nn.Module, nn.Module]) -> dict[str, nn.Module | None]:
    children = module._modules.items()
    return {name: child if child is None else _bare(child, made) for name, child in children}


def _bare(module: nn.Module, made: dict[nn.Module, nn.Module]) -> nn.Module:
    """A module with the same parameters and without transformers' hooks; the same one again for the same module."""
    if isinstance(module, PreTrainedModel):  # it takes itself apart
        return module
    if module not in made:
        made[module] = bare = copy.copy(module)
        hooks = module._forward_hooks.items()
        bare._forward_hooks = type(module._forward_hooks)((key, hook) for key, hook in hooks if not _is_capture(hook))
        bare._modules = _bare_children(module, made)
    return made[module]


def _is_capture(hook: Any) -> bool:
    home, name = (str(getattr(hook, key, "")) for key in ("__module__", "__qualname__"))
    return home.startswith("transformers.") and "<locals>" in name

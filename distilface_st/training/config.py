"""The settings of a training run. Defaults are the paper's Table 1; each says where it comes from."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from ..errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..modules.multi_layer_pooling import LayerReduction, LayerSelection

Views = Literal["dropout", "neighbours", "pairs"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class RunSettings:
    """The settings that every kind of run has; defaults are those of :class:`TrainingConfig`.

    Attributes:
        dropout: Probability in every dropout of the encoder; None leaves the encoder's own (0.1 in DistilBERT, which
            SimCSE, Table 3, found best).
        steps: Optimizer steps. Table 1: 30,000.
        batch_size: Sentences or pairs a step, on each device. Table 1: 64.
        learning_rate: Peak of the schedule. Table 1: 5e-5.
        schedule: Name of a transformers learning-rate schedule. SimCSE's code: linear to 0.
        warmup_steps: Steps up to the peak. SimCSE's code: none.
        weight_decay: Of AdamW. The paper's Adam: none.
        max_grad_norm: Gradients are scaled down to this norm. SimCSE's code: 1.
        max_length: Tokens of a training sentence; inference keeps the encoder's own limit. Table 1: 32.
        precision: ``auto`` (bf16 where the device computes in it, else fp16 on CUDA, else fp32), ``fp32``, ``bf16``, or
            ``fp16`` (CUDA only, with gradient scaling: without it the paper's score fell). The paper: fp16.
        evaluate_every: Steps between evaluations, which are also the checkpoints. SimCSE's code: 125 to 250.
        patience: Evaluations without a better score before training stops; None: never.
        seed: Of dropout, order of the data and new weights. SimCSE's code: 42.

    Raises:
        InputError: A value that no run could use.
    """

    dropout: float | None = None
    steps: int = 30_000
    batch_size: int = 64
    learning_rate: float = 5e-5
    schedule: str = "linear"
    warmup_steps: int = 0
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    max_length: int = 32
    precision: Precision = "auto"
    evaluate_every: int = 250
    patience: int | None = None
    seed: int = 42

    def __post_init__(self) -> None:
        at_least = {"steps": 1, "batch_size": 2, "warmup_steps": 0, "max_length": 3}
        at_least |= {"evaluate_every": 1, "patience": 1, "seed": 0, "weight_decay": 0, "max_grad_norm": 0}
        for name, least in at_least.items():
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise InputError(f"{name} is {value}: it must be at least {least}.")
        if not self.learning_rate > 0:
            raise InputError(f"learning_rate is {self.learning_rate}: it must be above 0.")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise InputError(f"dropout is {self.dropout}: it must be at least 0 and below 1.")
        if self.precision not in ("auto", "fp32", "bf16", "fp16"):
            raise InputError(f"precision is {self.precision!r}: allowed are auto, fp32, bf16, fp16.")

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON can hold them."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class TrainingConfig(RunSettings):
    """Everything that decides a training run but the data. "The paper" is Lim, Ng, Lim (2022), see the README.

    Attributes:
        encoder: Hub name or folder of the encoder to start from. The paper, section on the encoder: DistilBERT.
        layers: Hidden states to pool. Table 1: first and last.
        layer_reduction: ``mean``, ``max`` or ``concat`` over the layers. Table 1: average.
        pooling_mode: Token pooling. The paper averages tokens.
        normalize: Whether the model's embeddings have length 1. The paper's do not.
        trim: Whether to drop encoder layers above the highest one used.
        views: What positives are: ``dropout`` (the sentence under another dropout mask: the paper), ``neighbours``
            (sentences that stand next to each other; Giorgi et al., 2021) or ``pairs`` (two given columns).
        temperature: Of the loss. Table 1: 0.05.
        symmetric: Whether the loss also looks from positives to anchors. The paper's does not.
        mini_batch_size: Sentences a forward pass, with gradient caching; None: the whole batch at once.

    The others are those of :class:`RunSettings`.

    Raises:
        InputError: A value that no run could use.

    Example:
        >>> config = TrainingConfig.preset("paper-best", steps=100)
        >>> config.batch_size, config.learning_rate, config.layers, config.steps
        (128, 1e-05, 'last_four', 100)
    """

    encoder: str = "distilbert-base-uncased"
    layers: LayerSelection | Sequence[int] = "first_last"
    layer_reduction: LayerReduction = "mean"
    pooling_mode: str | tuple[str, ...] = "mean"
    normalize: bool = False
    trim: bool = False
    views: Views = "dropout"
    temperature: float = 0.05
    symmetric: bool = False
    mini_batch_size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mini_batch_size is not None and self.mini_batch_size < 1:
            raise InputError(f"mini_batch_size is {self.mini_batch_size}: it must be at least 1.")
        if not self.temperature > 0:
            raise InputError(f"temperature is {self.temperature}: it must be above 0.")
        if self.views == "dropout" and self.dropout == 0:
            raise InputError("views are dropout, but dropout is 0: both views of a sentence would be the same.")
        if self.views not in ("dropout", "neighbours", "pairs"):
            raise InputError(f"views is {self.views!r}: allowed are dropout, neighbours, pairs.")

    @classmethod
    def preset(cls, name: str, **changes: Any) -> TrainingConfig:
        """A named set of settings with some changed: ``paper-default`` (Table 1) or ``paper-best`` (Figure 3).

        Raises:
            InputError: There is no such preset, or a changed value cannot be used.
        """
        if name not in PRESETS:
            raise InputError(f"There is no preset {name!r}: choose from {', '.join(PRESETS)}.")
        return replace(PRESETS[name], **changes)

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON can hold them."""
        values = super().to_dict()
        return values if isinstance(self.layers, str) else {**values, "layers": list(self.layers)}


PRESETS = {
    "paper-default": TrainingConfig(),
    "paper-best": TrainingConfig(layers="last_four", batch_size=128, learning_rate=1e-5, steps=20_000),
}
"""Table 1 of the paper, and the best values of its Figure 3."""


def resolve_precision(precision: Precision, device_type: str) -> Literal["fp32", "bf16", "fp16"]:
    """What ``precision`` means on a device.

    Args:
        precision: As in :class:`TrainingConfig`.
        device_type: ``cpu``, ``cuda``, ``mps``, ...

    Raises:
        InputError: fp16 anywhere but on CUDA.
    """
    import torch

    if precision == "fp16" and device_type != "cuda":
        raise InputError(
            f"fp16 needs gradient scaling, which is there on CUDA only, and this run is on {device_type}: "
            "use --precision bf16 or fp32."
        )
    if precision != "auto":
        return precision
    if device_type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device_type == "cpu" and _cpu_computes_bf16():
        return "bf16"
    return "fp32"


def _cpu_computes_bf16() -> bool:
    import torch

    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))

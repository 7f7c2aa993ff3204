"""The settings of a training run. Defaults are the paper's Table 1; each says where it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from ..errors import InputError
from ..utils.deprecation import renamed
from ..utils.settings import check_settings, setting

if TYPE_CHECKING:
    from ..modules.multi_layer_pooling import LayerReduction, LayerSelection

Views = Literal["dropout", "neighbours", "pairs"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]

OLD_NAMES = {"steps": "max_steps", "evaluate_every": "eval_steps", "schedule": "lr_scheduler_type"}
"""Settings that were called otherwise in version 0.1."""


@dataclass(frozen=True)
class RunSettings:
    """The settings that every kind of run has; defaults are those of :class:`TrainingConfig`.

    Attributes:
        max_steps: Optimizer steps.
        batch_size: Sentences or pairs in a step, on each device.
        learning_rate: Peak of the schedule.
        lr_scheduler_type: Learning-rate schedule of transformers: linear, cosine, constant, ...
        warmup_steps: Steps up to the peak.
        weight_decay: Weight decay of AdamW.
        max_grad_norm: Gradients are scaled down to this norm.
        dropout: Probability in every dropout of the encoder; by default the encoder's own.
        max_length: Tokens of a training sentence; inference keeps the encoder's own limit.
        precision: What is computed in: fp32, bf16, fp16 (CUDA only, with gradient scaling), or auto: bf16 where the
            device computes in it, else fp16 on CUDA, else fp32. Weights are kept, and saved, in fp32.
        eval_steps: Steps between evaluations, which are also the checkpoints.
        patience: Evaluations without a better score before training stops; by default it never does.
        seed: Seed of dropout, order of the data and new weights.

    Raises:
        InputError: A value that no run could use.
    """

    # Where the defaults come from: Table 1 is the paper's, SimCSE is Gao et al., 2021.
    max_steps: int = setting(30_000, minimum=1)  # Table 1
    batch_size: int = setting(64, minimum=2)  # Table 1
    learning_rate: float = setting(5e-5, above=0)  # Table 1
    lr_scheduler_type: str = "linear"  # SimCSE's code: linear to 0
    warmup_steps: int = setting(0, minimum=0)  # SimCSE's code
    weight_decay: float = setting(0.0, minimum=0)  # the paper's Adam has none
    max_grad_norm: float = setting(1.0, minimum=0)  # SimCSE's code
    dropout: float | None = None  # 0.1 in DistilBERT, which SimCSE (Table 3) found best
    max_length: int = setting(32, minimum=3)  # Table 1
    precision: Precision = setting("auto", choices=get_args(Precision))  # fp16 in the paper; unscaled, its score fell
    eval_steps: int = setting(250, minimum=1)  # SimCSE's code: 125 to 250
    patience: int | None = setting(None, minimum=1)
    seed: int = setting(42, minimum=0)  # SimCSE's code

    def __post_init__(self) -> None:
        check_settings(self)
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise InputError(f"dropout is {self.dropout}: it must be at least 0 and below 1.")

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON can hold them."""
        return {
            name: list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
            for name, value in asdict(self).items()
        }


@renamed(**OLD_NAMES)
@dataclass(frozen=True)
class TrainingConfig(RunSettings):
    """Everything that decides a training run but the data. "The paper" is Lim, Ng, Lim (2022), see the README.

    Attributes:
        encoder: Encoder to start from.
        layers: Hidden states to pool: last, second_to_last, all, first_last, last_two, last_four, or indices: 0,-1. By
            default a finished sentence encoder keeps its own pooling, and a bare encoder gets first_last.
        layer_reduction: mean, max or concat over the layers.
        pooling_mode: Token pooling: mean, max, cls, ...; several with commas.
        normalize: Scale the model's embeddings to length 1, by a module of its own.
        trim: Drop encoder layers above the highest one used.
        views: What positives are: dropout (the sentence under another dropout mask), neighbours (sentences that stand
            next to each other; Giorgi et al., 2021) or pairs (two given columns).
        temperature: Temperature of the loss.
        symmetric: Also contrast positives with anchors.
        mini_batch_size: Sentences in a forward pass, with cached gradients: large batches in little memory. By
            default the whole batch.

    The others are those of :class:`RunSettings`.

    Raises:
        InputError: A value that no run could use.

    Example:
        >>> config = TrainingConfig.preset("paper-best", max_steps=100)
        >>> config.batch_size, config.learning_rate, config.layers, config.max_steps
        (128, 1e-05, 'last_four', 100)
    """

    encoder: str = "distilbert-base-uncased"  # the paper, section on the encoder
    layers: LayerSelection | Sequence[int] | None = None
    layer_reduction: LayerReduction = "mean"  # Table 1
    pooling_mode: str | tuple[str, ...] = "mean"  # the paper averages tokens
    normalize: bool = False
    trim: bool = False
    views: Views = setting("dropout", choices=get_args(Views))  # the paper
    temperature: float = setting(0.05, above=0)  # Table 1
    symmetric: bool = False
    mini_batch_size: int | None = setting(None, minimum=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.views == "dropout" and self.dropout == 0:
            raise InputError("views are dropout, but dropout is 0: both views of a sentence would be the same.")

    @classmethod
    def preset(cls, name: str, **changes: Any) -> TrainingConfig:
        """A named set of settings with some changed: ``paper-default`` (Table 1) or ``paper-best`` (Figure 3).

        Raises:
            InputError: There is no such preset, or a changed value cannot be used.
        """
        if name not in PRESETS:
            raise InputError(f"There is no preset {name!r}: choose from {', '.join(PRESETS)}.")
        return replace(PRESETS[name], **changes)


PRESETS = {
    "paper-default": TrainingConfig(layers="first_last"),
    "paper-best": TrainingConfig(layers="last_four", batch_size=128, learning_rate=1e-5, max_steps=20_000),
}
"""Table 1 of the paper, and the best values of its Figure 3."""


def resolve_precision(precision: Precision, device_type: str) -> Literal["fp32", "bf16", "fp16"]:
    """What a config's ``precision`` means on a device of a type: ``cpu``, ``cuda``, ``mps``, ..."""
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
    # A CPU without these computes bf16 by conversion, slower than fp32. Older versions of torch cannot tell.
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)() if device_type == "cpu" else {}
    return "bf16" if any(known.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16")) else "fp32"

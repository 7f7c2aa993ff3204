"""The settings of an adaptation run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import InputError
from ..training.config import RunSettings
from ..utils.settings import setting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..modules.multi_layer_pooling import LayerSelection


@dataclass(frozen=True)
class AdaptationConfig(RunSettings):
    """Everything that decides an adaptation run but the text; see ``results/own-text``.

    Attributes:
        encoder: Encoder to start from.
        layers: Hidden states to pool; by default as the encoder does.
        teacher: A stronger encoder to learn from; ``auto`` is MiniLM where the extra ``offline`` is installed, and
            ``none`` leaves the encoder as it came as its own guide.
        minutes: Time budget of the whole run, from reading the text to the report.
        max_steps: Optimizer steps; 0 for as many as fit into ``minutes``.
        eval_steps: Steps between evaluations; 0 for four in the run.
        guidance: Weight of what the guide knows against what belongs together.
        rehearsal: Weight of what the encoder knew of everyday sentences, which it rehearses; 0 leaves them out.
        temperature: Temperature of the in-batch negatives.
        linear_map: Whether to learn a linear map after pooling before training, a head start of some seconds. The model
            then ends in a layer of its dimensions squared.
        topical: Whether a batch holds texts that the guide finds alike, which makes its negatives hard ones.

    The others are those of :class:`distilface_st.training.config.RunSettings`.

    Raises:
        InputError: A value that no run could use.
    """

    encoder: str = "distilface-mini"
    layers: LayerSelection | Sequence[int] | None = None
    teacher: str = "auto"
    minutes: float = setting(15.0, above=0)
    max_steps: int = setting(0, minimum=0)
    eval_steps: int = setting(0, minimum=0)
    batch_size: int = setting(32, minimum=2)
    learning_rate: float = setting(2e-4, above=0)
    warmup_steps: int = setting(10, minimum=0)
    max_length: int = setting(96, minimum=3)
    dropout: float | None = 0.0
    guidance: float = setting(1.0, minimum=0)
    rehearsal: float = setting(2.0, minimum=0)
    temperature: float = setting(0.05, above=0)
    linear_map: bool = True
    topical: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.minutes > 60 * 24 * 365:
            raise InputError(f"minutes is {self.minutes}: that is more than a year.")

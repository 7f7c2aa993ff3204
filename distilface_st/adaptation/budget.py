"""What fits into a run's time budget: how many pairs the guide can embed, and how many steps can be made."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
from sentence_transformers.util import batch_to_device
from transformers import TrainerCallback
from typing_extensions import override

from ..errors import InputError
from ..training.trainer import set_dropout
from ..utils.files import read_json, write_json
from .mixture import SHARES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from transformers import TrainerControl, TrainerState

    from ..distillation.training import LengthBatchSampler
    from ..evaluation.retrieval import RetrievalEvaluator
    from ..losses import GuidedLoss
    from .config import AdaptationConfig
    from .lesson import Lesson

_EVALUATIONS = 4
_FEWEST_STEPS = 20
_MOST_EPOCHS = 20
_GUIDES_SHARE = 0.25  # of the time budget
_TIMED = 4  # steps
_FILE = "plan.json"


@dataclass
class Clock:
    """When a run began, and how long its parts took."""

    start: float

    def __post_init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def time(self, part: str, work: Callable[[], Any]) -> Any:
        """What ``work`` returns; how long that took is kept as ``seconds[part]``."""
        begun = time.monotonic()
        result = work()
        self.seconds[part] = max(1e-3, time.monotonic() - begun)
        return result

    def left(self, minutes: float) -> float:
        """Seconds of the budget that are left when evaluations, the mixtures and the report have had theirs."""
        last = (len(SHARES) + 1) * self.seconds["test"] + len(SHARES) * self.seconds["guard"]
        return 0.98 * minutes * 60 - (time.monotonic() - self.start) - last


class Deadline(TrainerCallback):
    """Ends training, with an evaluation, where it takes longer than was planned."""

    def __init__(self, minutes: float | None, clock: Clock) -> None:
        self.minutes = minutes
        self.clock = clock

    @override
    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.minutes is not None and self.clock.left(self.minutes) < 0 and state.global_step < state.max_steps:
            control.should_evaluate = control.should_save = control.should_training_stop = True


def affordable(
    pairs: list[tuple[str, str]], config: AdaptationConfig, test: RetrievalEvaluator, clock: Clock, taught: bool
) -> list[tuple[str, str]]:
    """The first pairs, as many as are learned or can be embedded in that part's share of the time.

    They are embedded by the teacher where the encoder is ``taught`` by one, and by the encoder itself for the linear
    map or where it is its own guide. The test took both a known time. With ``max_steps`` there is no time limit.
    """
    if config.max_steps:
        return pairs[: config.max_steps * config.batch_size]
    seconds = clock.seconds["teacher"] if taught else 0.0
    if config.linear_map or not taught:
        seconds += clock.seconds["test"]
    characters = sum(map(len, (*test.queries, *test.documents)))
    sizes = np.cumsum([len(first) + len(second) for first, second in pairs])
    limit = characters * config.minutes * 60 * _GUIDES_SHARE / seconds
    return pairs[: max(config.batch_size, int((sizes <= limit).sum()))]


@dataclass(frozen=True)
class Plan:
    """What the time budget allows; kept in the run's folder, so that a resumed run does the same."""

    max_steps: int
    eval_steps: int
    pairs: int
    why: str

    @classmethod
    def of(
        cls,
        config: AdaptationConfig,
        loss: GuidedLoss,
        lesson: Lesson,
        sampler: Callable[..., LengthBatchSampler],
        clock: Clock,
    ) -> Plan:
        """The plan of a new run; steps are timed on batches of the text itself, without changing the model.

        Raises:
            InputError: Fewer pairs than a batch has, or less time than twenty steps take.
        """
        pairs = len(lesson.labelled)
        if pairs < config.batch_size:
            raise InputError(f"The text gives {pairs} pairs, fewer than the batch size, {config.batch_size}.")
        if config.max_steps:
            steps, why = config.max_steps, f"{config.max_steps:,} steps of {config.batch_size} pairs, as asked for."
        else:
            step = _seconds_of_step(
                loss, lesson, sampler(lesson.labelled, config.batch_size, True, seed=config.seed), config
            )
            left = clock.left(config.minutes) - (_EVALUATIONS + 1) * clock.seconds["test"]
            epoch = pairs // config.batch_size
            steps = min(int(left / step), _MOST_EPOCHS * epoch)
            if steps < _FEWEST_STEPS:
                needed = config.minutes + (_FEWEST_STEPS * step - left) / 60
                raise InputError(
                    f"{config.minutes:g} minutes are too few here: give --minutes {math.ceil(needed)} or more."
                )
            minutes = max(1, round(steps * step / 60))
            passes = f"{steps / epoch:.1f} times through the pairs"
            why = f"{steps:,} steps of {config.batch_size} pairs in about {minutes} minutes, {passes}."
        return cls(steps, config.eval_steps or max(1, math.ceil(steps / _EVALUATIONS)), pairs, why)

    @classmethod
    def read(cls, output: Path) -> Plan | None:
        """The plan that a run's folder holds, if it holds one; a damaged one is an InputError."""
        file = output / _FILE
        if not file.is_file():
            return None
        try:
            return cls(**read_json(file))
        except TypeError as error:
            raise InputError(f"{file} is damaged: {error}") from error

    def write(self, output: Path) -> None:
        """Keep the plan in a run's folder."""
        write_json(output / _FILE, asdict(self))


def _seconds_of_step(loss: GuidedLoss, lesson: Lesson, sampler: LengthBatchSampler, config: AdaptationConfig) -> float:
    """The time of a step of mean length, from some of any length; the first of them is not counted."""
    model = loss.model
    collate = SentenceTransformerDataCollator(preprocess_fn=model.preprocess, max_length=config.max_length)
    timed: list[tuple[float, int]] = []
    set_dropout(model, config.dropout)
    model.train()
    for rows in islice(sampler, _TIMED + 1):
        batch = lesson.labelled[rows]
        begun = time.monotonic()
        found = batch_to_device(
            collate([{key: batch[key][i] for key in batch} for i in range(len(rows))]), model.device
        )
        sides = [
            {key.removeprefix(f"{side}_"): value for key, value in found.items() if key.startswith(f"{side}_")}
            for side in ("anchor", "positive")
        ]
        loss(sides, found["label"]).backward()
        timed.append((time.monotonic() - begun, int(sampler.lengths[rows].sum())))
    model.zero_grad()
    loss.zero_grad()
    loss.pop_statistics()
    model.eval()
    seconds, lengths = np.sum(timed[1:] or timed, axis=0)
    return float(seconds / lengths * sampler.lengths.mean() * config.batch_size)

"""What needs no training is not trained: every pooling of a sweep is scored from one encoding pass of the encoder."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..evaluation.poolings.bank import PoolingKey, pooling_key
from ..evaluation.poolings.study import score_chosen_poolings
from ..evaluation.sts import STSEvaluator
from ..modules.multi_layer_pooling import resolve_layers
from ..utils.files import write_json
from .checks import encoder_depth
from .designs import grid
from .problems import Problems
from .records import Outcome

if TYPE_CHECKING:
    from sentence_transformers.base.evaluation import BaseEvaluator

    from ..training.config import TrainingConfig
    from .plan import SweepPlan

UNTRAINED = "untrained.json"


def score_untrained(plan: SweepPlan) -> None:
    """Write ``untrained.json``: what every pooling that the sweep may try scores before the first step.

    Nothing is written for another evaluator than STS sets, or where a pooling gives no embedding for a sentence: trials
    then score their own model before its first step.

    Raises:
        InputError: No training is asked for, and the poolings cannot be scored.
    """
    path = plan.output / UNTRAINED
    if path.exists():
        return
    start = time.perf_counter()
    try:
        depth, scores = _score(plan)
    except InputError:
        if not plan.trained:
            raise
        return
    if scores:
        seconds = round(time.perf_counter() - start, 1)
        write_json(path, {"num_hidden_layers": depth, "seconds": seconds, "scores": scores})


def scores_before(plan: SweepPlan, config: TrainingConfig) -> dict[str, float] | None:
    """What a trial's model scores before its first step; None where that is not known."""
    found = _read(plan)
    key = _key(config, found["num_hidden_layers"]) if found else None
    scores: dict[str, float] | None = found["scores"].get(_name(key)) if key else None
    return scores


class KnownStart(STSEvaluator):
    """An evaluator that knows what the model scores before the first step, and does not encode for it.

    The trainer still calls it, so that a trial draws the same random numbers as ``distilface train`` does.

    Args:
        evaluator: The evaluator.
        before: What the model scores, as histories name it.
    """

    def __init__(self, evaluator: STSEvaluator, before: dict[str, float]) -> None:
        self.__dict__.update(evaluator.__dict__)
        self._before = before

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        """Score the model, or say what is known."""
        if steps == 0:
            return {f"{name}_spearman_cosine": score / 100 for name, score in self._before.items()}
        return super().__call__(model, output_path, epoch, steps)


def trial_evaluator(plan: SweepPlan, config: TrainingConfig) -> BaseEvaluator:
    """The evaluator of a trial, which knows the score before the first step where that was found already."""
    before = scores_before(plan, config)
    if before is None or not isinstance(plan.evaluator, STSEvaluator):
        return plan.evaluator
    return KnownStart(plan.evaluator, before)


def untrained_outcome(plan: SweepPlan, config: TrainingConfig) -> Outcome:
    """What comes of a trial that trains nothing."""
    scores = scores_before(plan, config)
    if scores is None:
        return Outcome("failed", reason="This pooling cannot be scored without training.")
    found = _read(plan)
    return Outcome("complete", scores[plan.score_name], scores, seconds=found["seconds"] / len(found["scores"]))


def pooling_configs(plan: SweepPlan) -> list[TrainingConfig]:
    """One config for each way of pooling in the space."""
    space = plan.searched.pooling
    return [replace(plan.base, **space.changes(point)) for point in grid(space)]


def _score(plan: SweepPlan) -> tuple[int, dict[str, dict[str, float]]]:
    problems = Problems()
    depth = encoder_depth(plan.base.encoder, problems)
    problems.check()
    assert depth is not None
    keys = [key for config in pooling_configs(plan) if (key := _key(config, depth))]
    evaluators = [plan.evaluator] if plan.trained or plan.final is None else [plan.evaluator, plan.final]
    found: dict[str, dict[str, float]] = {_name(key): {} for key in keys}
    for evaluator in evaluators if keys else []:
        for key, scores in _score_keys(plan, evaluator, keys).items():
            found[_name(key)] |= scores
    return depth, {name: scores for name, scores in found.items() if plan.score_name in scores}


def _score_keys(
    plan: SweepPlan, evaluator: BaseEvaluator, keys: list[PoolingKey]
) -> dict[PoolingKey, dict[str, float]]:
    if type(evaluator) is not STSEvaluator:  # a subclass may score otherwise
        if plan.trained:
            return {}
        raise InputError("Poolings are scored without training on STS sets or --eval-file pairs only.")
    found = score_chosen_poolings(
        plan.base.encoder, keys, evaluator.tasks, evaluator.aggregation, evaluator.batch_size, plan.device
    )
    if evaluator is plan.evaluator and len(evaluator.tasks) == 1:  # it may go by another name
        return {key: {plan.score_name: score} for key, scores in found.items() for score in scores.values()}
    return found


def _key(config: TrainingConfig, depth: int) -> PoolingKey | None:
    mode = config.pooling_mode
    if not isinstance(mode, str):
        return None
    return pooling_key(resolve_layers(config.layers, depth), config.layer_reduction, mode)


def _name(key: PoolingKey) -> str:
    indices, reduction, mode = key
    return f"{','.join(map(str, indices))} {reduction} {mode}"


def _read(plan: SweepPlan) -> dict[str, Any]:
    path = plan.output / UNTRAINED
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found

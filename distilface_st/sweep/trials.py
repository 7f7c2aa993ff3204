"""One trial: train, report at each evaluation, and say what came of it, whatever it was."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback
from typing_extensions import override

from ..errors import InputError
from ..models.load import load_model
from ..training.config import resolve_precision
from ..training.history import as_scores
from ..training.run_record import last_checkpoint
from ..training.train import TrainingInterrupted, model_from_config, train
from ..utils.files import read_json, write_json
from .records import Outcome

if TYPE_CHECKING:
    from pathlib import Path

    from optuna.trial import Trial

    from ..training.config import TrainingConfig
    from .plan import SweepPlan

Report = Callable[[float, int], bool]
"""Takes a score and its step; answers whether the trial is hopeless."""

_DEATHS_ALLOWED = 5
_STARTS = "starts.json"


class Pruned(Exception):  # noqa: N818 (what happened is no error)
    """A trial was hopeless at an evaluation: its arguments are the step and the score."""


class PruningCallback(TrainerCallback):
    """Reports each evaluation's ``metric`` after the first step, and ends a hopeless trial."""

    def __init__(self, metric: str, report: Report, on_step: Callable[[int], None] | None = None) -> None:
        self._metric = f"eval_{metric}"
        self._report = report
        self._on_step = on_step

    @override
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._on_step:
            self._on_step(state.global_step)

    @override
    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        metrics = kwargs.get("metrics") or {}
        if self._metric not in metrics or state.global_step == 0:
            return
        (score,) = as_scores({self._metric.removeprefix("eval_"): metrics[self._metric]}).values()
        if self._report(score, state.global_step) and state.global_step < state.max_steps:
            raise Pruned(state.global_step, score)


def run_trial(
    plan: SweepPlan,
    config: TrainingConfig,
    folder: Path,
    report: Report,
    on_step: Callable[[int], None] | None = None,
) -> Outcome:
    """Run a trial in its folder, where its model is left; one that was stopped by a signal goes on when run again."""
    start = time.perf_counter()
    try:
        _count_start(folder)
        record = folder / "run.json"
        run = read_json(record) if record.exists() else {}
        if run.get("status") != "finished":
            run = train(
                model_from_config(config, device=plan.device),
                plan.data,
                config,
                folder,
                evaluator=plan.evaluator,
                resume=record.exists(),
                device=plan.device,
                callbacks=[PruningCallback(str(plan.evaluator.primary_metric), report, on_step)],
            ).run
        score = run["scores_after"][plan.score_name]
        scores = run["scores_after"] | _final_scores(plan, config, folder)
        return Outcome("complete", score, scores, run["kept_step"], run["steps"], run["seconds"])
    except (TrainingInterrupted, KeyboardInterrupt):
        (folder / _STARTS).unlink(missing_ok=True)  # someone asked for it: this start did not fail
        raise
    except Pruned as pruned:
        step, score = pruned.args
        return Outcome("pruned", score, {}, step, step, time.perf_counter() - start, f"hopeless at step {step}")
    except Exception as error:
        reason = " ".join(str(error).split())[:400]
        reason = reason if isinstance(error, InputError) else f"{type(error).__name__}: {reason}"
        return Outcome("failed", seconds=time.perf_counter() - start, reason=reason)


def report_score(trial: Trial, score: float, step: int) -> None:
    """Give Optuna a score, once: a trial that went on from a checkpoint may come by an evaluation again."""
    if step not in trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values:
        trial.report(score, step)


def _final_scores(plan: SweepPlan, config: TrainingConfig, folder: Path) -> dict[str, float]:
    """Scores of the kept model, in the precision it was trained and chosen in."""
    if plan.final is None:
        return {}
    model = load_model(folder / "model", device=plan.device)
    half = resolve_precision(config.precision, model.device.type)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(half, torch.float32)
    with torch.autocast(model.device.type, dtype=dtype, enabled=half != "fp32"):
        return as_scores(dict(plan.final(model)))  # type: ignore[arg-type]


def _count_start(folder: Path) -> None:
    """Refuse a trial whose process was killed again and again without getting further: for lack of memory, say."""
    path = folder / _STARTS
    checkpoint = last_checkpoint(folder / "checkpoints")
    step = int(checkpoint.name.split("-")[1]) if checkpoint else 0
    before = read_json(path) if path.exists() else {}
    starts = before["starts"] + 1 if before.get("step") == step else 1
    if starts > _DEATHS_ALLOWED:
        raise InputError(f"Its process was stopped {_DEATHS_ALLOWED} times after step {step}: not enough memory?")
    write_json(path, {"step": step, "starts": starts})

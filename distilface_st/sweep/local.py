"""The runner on this machine: one trial after another, for as many processes as are started."""

from __future__ import annotations

import os
import shutil
from functools import partial
from typing import TYPE_CHECKING

from ..errors import InputError
from ..models.save import save_model
from ..training.callbacks import StopOnSignal
from ..training.train import TrainingInterrupted, model_from_config
from ..utils.files import atomic_folder
from .checks import checked
from .records import best_trial, points_of, ranked, write_trials
from .store import SweepStore
from .trials import Report, discard, optuna_report, run_trial
from .untrained import score_untrained
from .watching import SweepWatcher

if TYPE_CHECKING:
    from .plan import SweepPlan
    from .records import Outcome, PointRecord
    from .store import Claim


def run_sweep(plan: SweepPlan, watcher: SweepWatcher | None = None) -> list[PointRecord]:
    """Run a sweep to its end, or go on with one that was stopped; finished trials are not run again.

    Started several times on one folder, the processes share the trials. ``trials.csv`` is written after each trial, and
    ``best/`` holds the model of the best trial at the end.

    Args:
        plan: The sweep.
        watcher: Told what happens.

    Returns:
        The points with a score, best first.

    Raises:
        InputError: Settings that some trial could not be run with, all of them named; the folder holds another sweep.
        MissingExtraError: Optuna is not installed.
        TrainingInterrupted: A signal came; everything is on disk, and the same call goes on.
    """
    watcher = watcher or SweepWatcher()
    with StopOnSignal() as stop:
        store = opened(plan)
        while claim := store.next():
            watcher.trials_changed(store.records())
            outcome = _outcome(plan, claim, store.number(claim), watcher)
            store.tell(claim, outcome)
            tidy(store)
            watcher.trials_changed(store.records())
            if stop.stopped:  # in a trial's last step, or since
                raise TrainingInterrupted(outcome.steps, plan.output)
    return finish(store)


def _outcome(plan: SweepPlan, claim: Claim, number: int, watcher: SweepWatcher) -> Outcome:
    report, on_step = _report(claim, number, watcher), partial(watcher.trial_at, number)
    try:
        return run_trial(plan, claim.config, claim.folder, report, on_step)
    except BaseException:
        claim.lock.release()
        raise


def opened(plan: SweepPlan) -> SweepStore:
    """The store of a sweep that has been checked, with what needs no training scored."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("A trial is one process: start a sweep without torchrun, several times or on Ray instead.")
    store = SweepStore(checked(plan))
    with store.exclusive():
        score_untrained(plan)
    return store


def _report(claim: Claim, number: int, watcher: SweepWatcher) -> Report:
    to_optuna = optuna_report(claim.trial)

    def report(score: float, step: int) -> bool:
        watcher.trial_at(number, step, score)
        return to_optuna(score, step)

    return report


def tidy(store: SweepStore) -> None:
    """Bring ``trials.csv`` up to date, and drop the models that can no longer be the best."""
    with store.exclusive():
        trials = store.records()
        write_trials(trials, store.plan.output / "trials.csv")
        points = points_of(trials, len(store.plan.seeds))
        better = store.plan.evaluator.greater_is_better
        leaders = ranked(points, better)[:1]
        kept = {best_trial(point, better).key for point in leaders}
        kept |= {trial.key for point in points if point.open for trial in point.trials if trial.score is not None}
        for trial in trials:
            if trial.outcome and trial.key not in kept:
                discard(store.trials_folder / trial.key)


def finish(store: SweepStore) -> list[PointRecord]:
    """Put the best trial's model into ``best/`` and rank the points."""
    tidy(store)
    plan, better = store.plan, store.plan.evaluator.greater_is_better
    with store.exclusive():
        points = ranked(points_of(store.records(), len(plan.seeds)), better)
        best = best_trial(points[0], better) if points else None
        model = store.trials_folder / best.key / "model" if best else None
        if best and not plan.trained:
            save_model(model_from_config(plan.config(best.point, best.seed), device="cpu"), plan.output / "best")
        elif model and model.exists():
            with atomic_folder(plan.output / "best") as folder:
                shutil.copytree(model, folder, dirs_exist_ok=True)
    return points

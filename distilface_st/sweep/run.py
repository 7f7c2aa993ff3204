"""Running a sweep on this machine: one trial after another, in as many processes as are started."""

from __future__ import annotations

import os
import shutil
from functools import partial
from typing import TYPE_CHECKING

from ..errors import InputError
from ..training.callbacks import StopOnSignal
from ..training.train import TrainingInterrupted
from ..utils.files import atomic_folder
from .plan import checked
from .records import by_configuration, ranked, write_trials
from .store import SweepStore
from .trials import discard, report_score, run_trial

if TYPE_CHECKING:
    from .plan import SweepPlan
    from .records import ConfigurationRecord, Outcome, TrialRecord
    from .store import Claim


class SweepWatcher:
    """Is called while a sweep runs, to show its progress; this one shows nothing."""

    def trials_changed(self, trials: list[TrialRecord]) -> None:
        """A trial began or ended; these are all there are."""

    def trial_at(self, number: int, step: int, score: float | None = None) -> None:
        """A running trial finished a step, or got a score there."""


def run_sweep(plan: SweepPlan, watcher: SweepWatcher | None = None) -> list[ConfigurationRecord]:
    """Run a sweep to its end, or go on with one that was stopped; finished trials are not run again.

    Started several times on one folder, the processes share the trials. ``trials.csv`` is written after each trial, and
    ``best/`` holds the model of the best trial at the end.

    Args:
        plan: The sweep.
        watcher: Called while it runs.

    Returns:
        The configurations with a score, best first.

    Raises:
        InputError: Settings that some trial could not be run with, all of them named; the folder holds another sweep.
        MissingExtraError: Optuna is not installed.
        TrainingInterrupted: A signal came; everything is on disk, and the same call goes on.
    """
    watcher = watcher or SweepWatcher()
    with StopOnSignal() as stop:
        store = open_store(plan)
        while claim := store.next():
            watcher.trials_changed(store.records())
            outcome = _run(plan, claim, store.number(claim), watcher)
            store.tell(claim, outcome)
            tidy(store)
            watcher.trials_changed(store.records())
            if stop.stopped:  # in a trial's last step, or since
                raise TrainingInterrupted(outcome.steps, plan.output)
    return finish(store)


def _run(plan: SweepPlan, claim: Claim, number: int, watcher: SweepWatcher) -> Outcome:
    def report(score: float, step: int) -> bool:
        watcher.trial_at(number, step, score)
        report_score(claim.trial, score, step)
        return claim.trial.should_prune()

    try:
        return run_trial(plan, claim.config, claim.folder, report, partial(watcher.trial_at, number))
    except BaseException:
        claim.lock.release()
        raise


def open_store(plan: SweepPlan) -> SweepStore:
    """The store of a sweep, whose plan has been checked."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("A trial is one process: start a sweep without torchrun, several times or on Ray instead.")
    return SweepStore(checked(plan))


def tidy(store: SweepStore) -> None:
    """Bring ``trials.csv`` up to date, and drop the models that can no longer be the best."""
    with store.lock:
        trials = store.records()
        write_trials(trials, store.plan.output / "trials.csv")
        configurations = by_configuration(trials, len(store.plan.seeds))
        better = store.plan.evaluator.greater_is_better
        kept = {leader.best_trial(better).key for leader in ranked(configurations, better)[:1]}
        # The mean of a configuration that lacks a seed may still rise above all others.
        kept |= {trial.key for one in configurations if one.open for trial in one.trials if trial.score is not None}
        for trial in trials:
            if trial.outcome and trial.key not in kept:
                discard(store.trials_folder / trial.key)


def finish(store: SweepStore) -> list[ConfigurationRecord]:
    """Put the best trial's model into ``best/`` and rank the configurations."""
    tidy(store)
    plan, better = store.plan, store.plan.evaluator.greater_is_better
    with store.lock:
        configurations = ranked(by_configuration(store.records(), len(plan.seeds)), better)
        if configurations:
            model = store.trials_folder / configurations[0].best_trial(better).key / "model"
            if model.exists():
                with atomic_folder(plan.output / "best") as folder:
                    shutil.copytree(model, folder, dirs_exist_ok=True)
    return configurations

"""Running a sweep: here, in as many processes as are started, or on a Ray cluster."""

from __future__ import annotations

import json
import logging
import os
import shutil
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..models.save import MODEL_FOLDER
from ..training.callbacks import StopOnSignal
from ..training.train import TrainingInterrupted
from ..utils.files import atomic_folder
from ..utils.ray import ray_cluster, ray_library
from .plan import checked
from .records import Outcome, by_configuration, ranked, write_trials
from .store import SweepStore
from .trials import report_score, run_trial

if TYPE_CHECKING:
    from .plan import SweepPlan
    from .records import ConfigurationRecord, TrialRecord
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

    Returns:
        The configurations with a score, best first.

    Raises:
        InputError: Settings that some trial could not be run with, all of them named; the folder holds another sweep.
        MissingExtraError: Optuna is not installed.
        TrainingInterrupted: A signal came; everything is on disk, and the same call goes on.
    """
    watcher = watcher or SweepWatcher()
    with StopOnSignal() as stop:
        store = _open(plan)
        while claim := store.next():
            watcher.trials_changed(store.records())
            outcome = _run(store, claim, watcher)
            _record(store, claim, outcome, watcher)
            if stop.stopped:  # in a trial's last step, or since
                raise TrainingInterrupted(outcome.steps, plan.output)
    return _finish(store)


def run_sweep_on_ray(
    plan: SweepPlan,
    watcher: SweepWatcher | None = None,
    *,
    address: str = "local",
    workers: int = 2,
    cpus_per_trial: int = 1,
    gpus_per_trial: float = 0,
) -> list[ConfigurationRecord]:
    """Run a sweep as :func:`distilface_st.run_sweep` does, its trials on a Ray cluster.

    Configurations, seeds and outcomes are kept by this process, in the same files: a sweep begun here may go on
    without Ray, and the other way round. Ray Tune gives the trials to workers. Where the plan has a pruner, ASHA (Li et
    al., 2020) does its work. A trial whose worker dies goes on from its checkpoint on another one. The nodes must see
    the text's cache, the encoder and the sweep's folder under the same paths (a shared disk), and have this package.

    Args:
        plan: The sweep.
        watcher: Is told of its progress.
        address: The cluster's; ``local`` starts one on this machine.
        workers: Trials at once.
        cpus_per_trial: Cores for each.
        gpus_per_trial: GPUs for each, or a part of one.

    Raises:
        InputError: As for ``run_sweep``; a cluster too small.
        MissingExtraError: Ray or Optuna is not installed.
        TrainingInterrupted: A signal came; everything is on disk, and the same call goes on.
    """
    purpose, work = "A sweep on Ray", "ray"
    ray_library(purpose)
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler
    from ray.tune.search import Searcher

    plan = replace(plan, output=plan.output.absolute())
    mode = "max" if plan.evaluator.greater_is_better else "min"
    scheduler: Any = FIFOScheduler()  # type: ignore[no-untyped-call, unused-ignore]
    if plan.pruner != "none":
        scheduler = ASHAScheduler(
            time_attr="step",
            metric="score",
            mode=mode,
            grace_period=plan.base.eval_steps,
            max_t=max(plan.base.max_steps, plan.base.eval_steps) + 1,
            reduction_factor=2,
        )
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"  # the encoder's path may be relative
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    with ray_cluster(purpose, address, workers * cpus_per_trial, workers * gpus_per_trial):
        store = _open(plan)
        # Tune takes subclasses of its Searcher only, and Ray is imported no earlier than here.
        searcher = type("StoreSearcher", (_StoreSearcher, Searcher), {})(metric="score", mode=mode)
        searcher.attach(store, watcher or SweepWatcher())
        trainable = tune.with_parameters(_trial, plan=plan)
        tune.Tuner(
            tune.with_resources(trainable, {"cpu": cpus_per_trial, "gpu": gpus_per_trial}),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=scheduler,
                num_samples=-1,
                max_concurrent_trials=workers,
                reuse_actors=False,
            ),
            run_config=tune.RunConfig(
                name=work,
                storage_path=str(plan.output),
                failure_config=tune.FailureConfig(max_failures=5),
                verbose=0,
            ),
        ).fit()
    if searcher.claims:
        for claim in searcher.claims.values():
            claim.lock.release()
        raise TrainingInterrupted(0, plan.output)
    shutil.rmtree(plan.output / work, ignore_errors=True)
    return _finish(store)


def _open(plan: SweepPlan) -> SweepStore:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("A trial is one process: start a sweep without torchrun, several times or on Ray instead.")
    return SweepStore(checked(plan))


def _run(store: SweepStore, claim: Claim, watcher: SweepWatcher) -> Outcome:
    at = partial(watcher.trial_at, store.number(claim))

    def report(score: float, step: int) -> bool:
        at(step, score)
        report_score(claim.trial, score, step)
        return claim.trial.should_prune()

    try:
        return run_trial(store.plan, claim.config, claim.folder, report, at)
    except BaseException:
        claim.lock.release()
        raise


def _record(store: SweepStore, claim: Claim, outcome: Outcome, watcher: SweepWatcher) -> None:
    store.tell(claim, outcome)
    tidy(store)
    watcher.trials_changed(store.records())


def tidy(store: SweepStore) -> list[ConfigurationRecord]:
    """Bring ``trials.csv`` up to date, drop the models that can no longer be the best, and rank the configurations."""
    with store.lock:
        trials = store.records()
        write_trials(trials, store.plan.output / "trials.csv")
        configurations = by_configuration(trials, len(store.plan.seeds))
        better = store.plan.evaluator.greater_is_better
        best_first = ranked(configurations, better)
        kept = {leader.best_trial(better).key for leader in best_first[:1]}
        for one in configurations:
            # The mean of a configuration that lacks a seed may still rise above all others.
            if any(trial.outcome is None for trial in one.trials):
                kept |= {trial.key for trial in one.trials if trial.score is not None}
        for trial in trials:
            if trial.outcome and trial.key not in kept:
                folder = store.trials_folder / trial.key
                unfinished = folder.glob(".model.*")  # of a process that was killed while it saved
                for large in (folder / "checkpoints", folder / "model", *unfinished):
                    shutil.rmtree(large, ignore_errors=True)
    return best_first


def _finish(store: SweepStore) -> list[ConfigurationRecord]:
    """Rank the configurations and put the best trial's model into ``best/``."""
    plan = store.plan
    with store.lock:
        configurations = tidy(store)
        if configurations:
            best = configurations[0].best_trial(plan.evaluator.greater_is_better)
            model = store.trials_folder / best.key / "model"
            if model.exists():
                with atomic_folder(plan.output / "best", MODEL_FOLDER) as folder:
                    shutil.copytree(model, folder, dirs_exist_ok=True)
    return configurations


def _trial(settings: dict[str, Any], plan: SweepPlan) -> None:
    """Run a trial in a worker."""
    from ray import tune

    config = plan.config(settings["point"], settings["seed"])

    def report(score: float, step: int) -> bool:
        if step < config.max_steps:  # or ASHA could end a trial that has only its model to save
            tune.report({"score": score, "step": step})
        return False

    outcome = run_trial(plan, config, plan.output / "trials" / settings["key"], report)
    last = {"score": outcome.score} if outcome.score is not None else {}
    tune.report({"step": config.max_steps, "outcome": json.dumps(asdict(outcome)), **last})


class _StoreSearcher:
    """What Ray Tune asks of a search algorithm, answered by a sweep's store."""

    def attach(self, store: SweepStore, watcher: SweepWatcher) -> None:
        self.claims: dict[str, Claim] = {}
        self._store = store
        self._watcher = watcher

    def suggest(self, trial_id: str) -> Any:
        claim = self._store.next()
        if claim is None:
            return "FINISHED"  # ray.tune.search.Searcher.FINISHED
        self.claims[trial_id] = claim
        self._watcher.trials_changed(self._store.records())
        attrs = claim.trial.user_attrs
        return {name: attrs[name] for name in ("point", "seed", "key")}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        claim = self.claims.get(trial_id)
        if claim and "outcome" not in result:
            report_score(claim.trial, result["score"], result["step"])
            self._watcher.trial_at(self._store.number(claim), result["step"], result["score"])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        claim, result = self.claims.pop(trial_id, None), result or {}
        if claim is None:
            return
        if "outcome" in result:
            outcome = Outcome(**json.loads(result["outcome"]))
        elif error or "score" not in result:
            seconds = result.get("time_total_s", 0.0)
            outcome = Outcome("failed", seconds=seconds, reason="Its worker died again and again.")
        else:  # ended by ASHA
            step, seconds = int(result["step"]), result["time_total_s"]
            outcome = Outcome("pruned", result["score"], {}, step, step, seconds, f"hopeless at step {step}")
        _record(self._store, claim, outcome, self._watcher)

    # Tune keeps copies of a search algorithm to go on with; ours is in the sweep's folder.
    def __getstate__(self) -> dict[str, Any]:
        return {}

    def save(self, checkpoint_path: str) -> None: ...

    def restore(self, checkpoint_path: str) -> None: ...

"""Running a sweep on Ray: trials go to a cluster's workers, ASHA stops hopeless ones, a dead worker's trial goes on."""

from __future__ import annotations

import json
import logging
import os
import shutil
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from ..training.trainer import TrainingInterrupted
from ..utils.ray import ray_cluster, ray_library
from .records import Outcome
from .run import SweepWatcher, finish, open_store, tidy
from .trials import report_score, run_trial

if TYPE_CHECKING:
    from .plan import SweepPlan
    from .records import ConfigurationRecord
    from .store import Claim, SweepStore

_PURPOSE = "A sweep on Ray"
_WORKER_DEATHS = 5
_WORK = "ray"


def run_sweep_on_ray(
    plan: SweepPlan,
    watcher: SweepWatcher | None = None,
    *,
    address: str = "local",
    workers: int = 2,
    cpus_per_trial: int = 1,
    gpus_per_trial: float = 0,
) -> list[ConfigurationRecord]:
    """Run a sweep as :func:`distilface_st.sweep.run_sweep` does, its trials on a Ray cluster.

    Configurations, seeds and outcomes are kept by this process, in the same files: a sweep begun here may go on
    without Ray, and the other way round. Ray Tune gives the trials to workers. Where the plan has a pruner, ASHA (Li et
    al., 2020) does its work. A trial whose worker dies goes on from its checkpoint on another one. The nodes must see
    the text's cache, the encoder and the sweep's folder under the same paths (a shared disk), and have this package.

    Args:
        plan: The sweep.
        watcher: Called while it runs.
        address: The cluster's; ``local`` starts one on this machine.
        workers: Trials at once.
        cpus_per_trial: Cores for each.
        gpus_per_trial: GPUs for each, or a part of one.

    Raises:
        InputError: As for ``run_sweep``; a cluster too small.
        MissingExtraError: Ray or Optuna is not installed.
        TrainingInterrupted: A signal came; everything is on disk, and the same call goes on.
    """
    ray_library(_PURPOSE)
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
    with ray_cluster(_PURPOSE, address, workers * cpus_per_trial, workers * gpus_per_trial):
        store = open_store(plan)
        # Tune takes subclasses of its Searcher only, and Ray is imported no earlier than here.
        searcher = type("StoreSearcher", (_StoreSearcher, Searcher), {})(metric="score", mode=mode)
        searcher.attach(store, watcher or SweepWatcher())
        tune.Tuner(
            tune.with_resources(
                tune.with_parameters(_trial, plan=plan), {"cpu": cpus_per_trial, "gpu": gpus_per_trial}
            ),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=scheduler,
                num_samples=-1,
                max_concurrent_trials=workers,
                reuse_actors=False,
            ),
            run_config=tune.RunConfig(
                name=_WORK,
                storage_path=str(plan.output),
                failure_config=tune.FailureConfig(max_failures=_WORKER_DEATHS),
                verbose=0,
            ),
        ).fit()
    if searcher.claims:
        for claim in searcher.claims.values():
            claim.lock.release()
        raise TrainingInterrupted(0, plan.output)
    shutil.rmtree(plan.output / _WORK, ignore_errors=True)
    return finish(store)


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
        self._store.tell(claim, outcome)
        tidy(self._store)
        self._watcher.trials_changed(self._store.records())

    # Tune keeps copies of a search algorithm to go on with; ours is in the sweep's folder.
    def __getstate__(self) -> dict[str, Any]:
        return {}

    def save(self, checkpoint_path: str) -> None: ...

    def restore(self, checkpoint_path: str) -> None: ...

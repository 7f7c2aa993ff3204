"""The sweep's folder: Optuna's journal holds what was tried, a lock in each trial's folder says who is at it."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import asdict, dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from ..errors import InputError
from ..training.config import OLD_NAMES
from ..utils.extras import require
from ..utils.files import FolderKind, check_output, read_json, write_json
from ..utils.provenance import provenance
from .records import Outcome, SweepResults, TrialRecord
from .space import grid

if TYPE_CHECKING:
    from pathlib import Path

    from optuna import Study
    from optuna.trial import Trial

    from ..training.config import TrainingConfig
    from .plan import SweepPlan
    from .space import Configuration

_RECORD = "sweep.json"
_JOURNAL = "optuna.log"
_TRIALS, _LOCK = "trials", "sweep.lock"
SWEEP_FOLDER = FolderKind("a sweep's", _RECORD, early=frozenset({_TRIALS, _LOCK}))
_DRAWS_BEFORE_CHANCE = 20


@dataclass(frozen=True)
class Claim:
    """A trial that this process is to run; the lock is held until its outcome is stored."""

    trial: Trial
    config: TrainingConfig
    folder: Path
    lock: FileLock


class SweepStore:
    """Hands out trials and stores their outcomes; any number of processes may each have one on the same folder."""

    def __init__(self, plan: SweepPlan) -> None:
        check_output(plan.output, SWEEP_FOLDER)
        self.plan = plan
        self.trials_folder = plan.output / _TRIALS
        self.trials_folder.mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(plan.output / _LOCK)  # held to choose a trial, or to tidy
        with self.lock:
            self._begin()
            self.study = _open_study(plan)
            self._enqueue(plan.design())

    def records(self) -> list[TrialRecord]:
        """All trials so far."""
        return _records(self.study)

    def number(self, claim: Claim) -> int:
        """The number of a trial."""
        return next(record.number for record in self.records() if record.key == claim.folder.name)

    def next(self) -> Claim | None:
        """The next trial to run: one whose process died, else one that waits, else a new one; None if there is none."""
        from optuna.trial import Trial, TrialState

        with self.lock:
            for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if "key" not in frozen.user_attrs:  # its process died while drawing it
                    self.study.tell(frozen.number, state=TrialState.FAIL)
                elif claim := self._claim(Trial(self.study, frozen._trial_id)):
                    return claim
            if not self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)) and not self._draw():
                return None
            return self._claim(self.study.ask())

    def tell(self, claim: Claim, outcome: Outcome) -> None:
        """Store what came of a trial, and release it."""
        from optuna.trial import TrialState

        claim.trial.set_user_attr("outcome", asdict(outcome))
        if outcome.status == "complete":
            self.study.tell(claim.trial, outcome.score)
        else:
            self.study.tell(claim.trial, state=TrialState.PRUNED if outcome.status == "pruned" else TrialState.FAIL)
        claim.lock.release()

    def _begin(self) -> None:
        """Write ``sweep.json``, or compare the plan with the one it holds."""
        path, spec = self.plan.output / _RECORD, self.plan.to_dict()
        if not path.exists():
            known = {
                "greater_is_better": self.plan.evaluator.greater_is_better,
                "source": self.plan.data.source,
                "rows": len(self.plan.data.dataset),
                "train_arguments": list(self.plan.train_arguments),
            }
            write_json(path, provenance(seed=self.plan.sampler_seed, **known, plan=spec))
            return
        before = _read_record(self.plan.output)["plan"]
        if changed := [name for name, value in spec.items() if before.get(name) != value]:
            raise InputError(
                f"{self.plan.output} holds a sweep with other settings ({', '.join(changed)}): "
                "give those it began with, or choose another --output."
            )

    def _claim(self, trial: Trial) -> Claim | None:
        """The trial, if no living process is at it."""
        attrs = trial.user_attrs
        folder = self.trials_folder / attrs["key"]
        folder.mkdir(exist_ok=True)
        lock = FileLock(folder / "lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return None
        self.plan.searched.suggest(trial)  # Optuna keeps parameters only of what was suggested
        return Claim(trial, self.plan.config(_current_names(attrs["point"]), attrs["seed"]), folder, lock)

    def _enqueue(self, configurations: list[Configuration]) -> None:
        known = {(frozenset(record.configuration.items()), record.seed) for record in self.records()}
        for configuration, seed in product(configurations, self.plan.seeds):
            if (frozenset(configuration.items()), seed) not in known:
                settings = json.dumps(self.plan.config(configuration, seed).to_dict(), sort_keys=True)
                key = hashlib.sha256(settings.encode()).hexdigest()[:12]
                attrs = {"point": configuration, "seed": seed, "key": key}
                self.study.enqueue_trial(dict(configuration), user_attrs=attrs)

    def _draw(self) -> bool:
        """Have TPE choose a new configuration, and queue it with each seed."""
        if self.plan.sampler != "tpe":
            return False
        from optuna.samplers import TPESampler
        from optuna.trial import TrialState

        space, trials, seed = self.plan.searched, self.plan.trials, self.plan.sampler_seed
        tried = {frozenset(record.configuration.items()) for record in self.records()}
        if len(tried) >= min(trials, space.size or trials):
            return False
        startup = max(4, min(10, trials // 3)) * len(self.plan.seeds)
        for draw in range(_DRAWS_BEFORE_CHANCE):
            # Each draw has random numbers of its own, so that a sweep that was stopped goes on with the same draws.
            own_seed = seed * 1_000_003 + len(tried) * _DRAWS_BEFORE_CHANCE + draw
            self.study.sampler = TPESampler(seed=own_seed, n_startup_trials=startup)
            trial = self.study.ask()
            chosen = space.suggest(trial)
            self.study.tell(trial, state=TrialState.FAIL)  # it is queued anew, with its seeds
            if frozenset(chosen.items()) not in tried:
                break
        else:
            left = [one for one in grid(space) if frozenset(one.items()) not in tried]
            chosen = random.Random(seed + len(tried)).choice(left)
        self._enqueue([chosen])
        return True


def read_results(folder: Path) -> SweepResults:
    """Read a sweep's folder, of one that still runs as well.

    Raises:
        InputError: It holds no sweep.
        MissingExtraError: Optuna is not installed.
    """
    record = _read_record(folder)
    if not (folder / _JOURNAL).exists():
        raise InputError(f"{folder} holds no sweep.")
    optuna, storage = _optuna(folder)
    return SweepResults(folder, record, tuple(_records(optuna.load_study(study_name="sweep", storage=storage))))


def _open_study(plan: SweepPlan) -> Study:
    optuna, storage = _optuna(plan.output)
    pruner = optuna.pruners.NopPruner()
    if plan.pruner == "median":
        pruner = optuna.pruners.MedianPruner(n_startup_trials=4)
    elif plan.pruner == "hyperband":
        pruner = optuna.pruners.HyperbandPruner(min_resource=plan.base.eval_steps, max_resource=plan.base.max_steps)
    direction = "maximize" if plan.evaluator.greater_is_better else "minimize"
    study: Study = optuna.create_study(
        study_name="sweep", storage=storage, pruner=pruner, direction=direction, load_if_exists=True
    )
    return study


def _optuna(folder: Path) -> tuple[Any, Any]:
    """The library, made quiet, and the storage of a sweep."""
    optuna = require("optuna", "A sweep", "sweep")
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # Optuna's own locks outlive a process that is killed while it holds one; the system's, which FileLock uses, do not.
    lock: Any = FileLock(folder / f"{_JOURNAL}.lock")
    return optuna, optuna.storages.JournalStorage(JournalFileBackend(str(folder / _JOURNAL), lock_obj=lock))


def _records(study: Study) -> list[TrialRecord]:
    """The trials of a study, in order and numbered so: Optuna also counts draws that chose what was tried before."""
    found: list[TrialRecord] = []
    for frozen in study.get_trials(deepcopy=False):
        attrs = frozen.user_attrs
        if "key" in attrs:
            outcome = Outcome(**attrs["outcome"]) if "outcome" in attrs and frozen.state.is_finished() else None
            point = _current_names(attrs["point"])
            found.append(TrialRecord(len(found), attrs["key"], point, attrs["seed"], outcome))
    return found


def _read_record(folder: Path) -> dict[str, Any]:
    try:
        found = read_json(folder / _RECORD)
        plan = found["plan"]
        _ = plan["space"], plan["base"], plan["seeds"], plan["sampler"], plan["score"], found["greater_is_better"]
    except FileNotFoundError:
        raise InputError(f"{folder} holds no sweep.") from None
    except (KeyError, TypeError) as error:
        raise InputError(f"{folder / _RECORD} is damaged: {error!r}") from error
    if not plan.get("trained", True):
        raise InputError(f"{folder} compares poolings without training: `distilface poolings` does that now.")
    plan["base"], plan["space"] = _current_names(plan["base"]), _current_names(plan["space"])
    return found


def _current_names(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a sweep that version 0.1 began."""
    return {OLD_NAMES.get(name, name): value for name, value in settings.items()}

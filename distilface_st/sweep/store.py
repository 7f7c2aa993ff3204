"""The sweep's folder: Optuna's journal holds what was tried, a lock in each trial's folder says who is at it."""

from __future__ import annotations

import json
import random
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from ..errors import InputError, MissingExtraError
from ..training.config import OLD_NAMES
from ..utils.deprecation import current_names
from ..utils.files import write_json
from ..utils.provenance import provenance
from .designs import grid
from .plan import trial_key
from .records import Outcome, TrialRecord

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from optuna import Study
    from optuna.trial import Trial

    from ..training.config import TrainingConfig
    from .plan import SweepPlan
    from .space import Point

RECORD = "sweep.json"
_JOURNAL = "optuna.log"
_DRAWS_BEFORE_CHANCE = 20


class _JournalLock:
    """A lock of Optuna's journal that ends with the process that holds it."""

    def __init__(self, path: Path) -> None:
        self._lock = FileLock(path)

    def acquire(self) -> bool:
        self._lock.acquire()
        return True

    def release(self) -> None:
        self._lock.release()


@dataclass(frozen=True)
class Claim:
    """A trial that this process is to run.

    Attributes:
        trial: Optuna's.
        config: The settings.
        folder: The trial's folder.
        lock: Held until the trial is told.
    """

    trial: Trial
    config: TrainingConfig
    folder: Path
    lock: FileLock


def open_study(folder: Path, create: bool, maximize: bool = True) -> Study:
    """Optuna's study of a sweep, to look at or go on with.

    Raises:
        InputError: There is none.
        MissingExtraError: Optuna is not installed.
    """
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise MissingExtraError("A sweep", "sweep") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if not create and not (folder / _JOURNAL).exists():
        raise InputError(f"{folder} holds no sweep.")
    lock: Any = _JournalLock(folder / f"{_JOURNAL}.lock")
    storage = JournalStorage(JournalFileBackend(str(folder / _JOURNAL), lock_obj=lock))
    if not create:
        return optuna.load_study(study_name="sweep", storage=storage)
    direction = optuna.study.StudyDirection.MAXIMIZE if maximize else optuna.study.StudyDirection.MINIMIZE
    return optuna.create_study(study_name="sweep", storage=storage, direction=direction, load_if_exists=True)


def records(study: Study) -> list[TrialRecord]:
    """The trials of a study, in order and numbered so: Optuna also counts draws that came to a point tried before."""
    found: list[TrialRecord] = []
    for frozen in study.get_trials(deepcopy=False):
        attrs = frozen.user_attrs
        if "key" in attrs:
            outcome = Outcome(**attrs["outcome"]) if "outcome" in attrs and frozen.state.is_finished() else None
            found.append(TrialRecord(len(found), attrs["key"], attrs["point"], attrs["seed"], outcome))
    return found


class SweepStore:
    """Hands out trials and takes what came of them; any number of processes may each have one on the same folder.

    Args:
        plan: The sweep.

    Raises:
        InputError: The folder holds another sweep.
        MissingExtraError: Optuna is not installed.
    """

    def __init__(self, plan: SweepPlan) -> None:
        self.plan = plan
        self.trials_folder = plan.output / "trials"
        self.trials_folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(plan.output / "sweep.lock")
        with self._lock:
            self._begin()
            self.study = open_study(plan.output, create=True, maximize=plan.evaluator.greater_is_better)
            self.study.pruner = _pruner(plan)
            self._enqueue(plan.design())

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep all other processes of the sweep from choosing or tidying."""
        with self._lock:
            yield

    def records(self) -> list[TrialRecord]:
        """All trials so far."""
        return records(self.study)

    def number(self, claim: Claim) -> int:
        """The number of a trial."""
        return next(record.number for record in self.records() if record.key == claim.folder.name)

    def next(self) -> Claim | None:
        """The next trial to run: one whose process died, else one that waits, else a new one; None if there is none."""
        from optuna.trial import Trial, TrialState

        with self._lock:
            for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if "key" not in frozen.user_attrs:  # its process died while drawing it
                    self.study.tell(frozen.number, state=TrialState.FAIL)
                elif claim := self._claim(Trial(self.study, frozen._trial_id)):
                    return claim
            if not self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)) and not self._draw():
                return None
            return self._claim(self.study.ask())

    def tell(self, claim: Claim, outcome: Outcome) -> None:
        """Store what came of a trial, and let go of it."""
        from optuna.trial import TrialState

        claim.trial.set_user_attr("outcome", asdict(outcome))
        if outcome.status == "complete":
            self.study.tell(claim.trial, outcome.score)
        else:
            self.study.tell(claim.trial, state=TrialState.PRUNED if outcome.status == "pruned" else TrialState.FAIL)
        claim.lock.release()

    def _begin(self) -> None:
        path, spec = self.plan.output / RECORD, self.plan.to_dict()
        if not path.exists():
            known = {
                "greater_is_better": self.plan.evaluator.greater_is_better,
                "source": self.plan.data.source,
                "rows": len(self.plan.data.dataset),
                "train_arguments": list(self.plan.train_arguments),
            }
            write_json(path, provenance(seed=self.plan.sampler_seed, **known, plan=spec))
            return
        before = read_record(self.plan.output)["plan"]
        changed = [name for name, value in spec.items() if before.get(name) != value]
        if changed:
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
        self.plan.searched.suggest(trial)
        return Claim(trial, self.plan.config(attrs["point"], attrs["seed"]), folder, lock)

    def _enqueue(self, points: list[Point]) -> None:
        known = {record.key for record in self.records()}
        for point, seed in product(points, self.plan.seeds):
            attrs = self._attributes(point, seed)
            if attrs["key"] not in known:
                self.study.enqueue_trial(dict(point), user_attrs=attrs)

    def _attributes(self, point: Point, seed: int) -> dict[str, Any]:
        return {"point": point, "seed": seed, "key": trial_key(self.plan.config(point, seed))}

    def _draw(self) -> bool:
        """Have TPE choose a new point, and queue it with each seed."""
        if self.plan.sampler != "tpe":
            return False
        tried = {tuple(record.point.items()) for record in self.records()}
        space = self.plan.searched
        if len(tried) >= min(self.plan.trials, space.size or self.plan.trials):
            return False
        for draw in range(_DRAWS_BEFORE_CHANCE):
            point = self._suggest(len(tried) * _DRAWS_BEFORE_CHANCE + draw)
            if tuple(point.items()) not in tried:
                break
        else:
            left = [point for point in grid(space) if tuple(point.items()) not in tried]
            point = random.Random(self.plan.sampler_seed + len(tried)).choice(left)
        self._enqueue([point])
        return True

    def _suggest(self, draw: int) -> Point:
        """What TPE suggests; its chance is that of this draw alone, so that a sweep that goes on draws the same."""
        from optuna.samplers import TPESampler
        from optuna.trial import TrialState

        startup = max(4, min(10, self.plan.trials // 3)) * len(self.plan.seeds)
        self.study.sampler = TPESampler(seed=self.plan.sampler_seed * 1_000_003 + draw, n_startup_trials=startup)
        trial = self.study.ask()
        point = self.plan.searched.suggest(trial)
        self.study.tell(trial, state=TrialState.FAIL)  # it is queued anew, with its seeds
        return point


def read_record(folder: Path) -> dict[str, Any]:
    """What ``sweep.json`` says.

    Raises:
        InputError: It is missing or damaged.
    """
    path = folder / RECORD
    if not path.exists():
        raise InputError(f"{folder} holds no sweep.")
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        _ = found["plan"]["space"], found["plan"]["seeds"], found["plan"]["score"], found["greater_is_better"]
        found["plan"]["base"] = current_names(found["plan"]["base"], OLD_NAMES)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged: {error!r}") from error
    return found


def _pruner(plan: SweepPlan) -> Any:
    from optuna import pruners

    if plan.pruner == "median":
        return pruners.MedianPruner(n_startup_trials=4)
    if plan.pruner == "hyperband":
        return pruners.HyperbandPruner(min_resource=plan.base.eval_steps, max_resource=plan.base.max_steps)
    return pruners.NopPruner()

"""Single trials: pruned, diverged, stopped again and again, scored by more sets at the end."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace

import pytest

from distilface_st.datasets.sts import STSSubset, STSTask
from distilface_st.evaluation.sts import STSEvaluator
from distilface_st.models.load import load_model
from distilface_st.sweep import Choice, Space, SweepWatcher, run_sweep
from distilface_st.sweep.store import SweepStore
from distilface_st.sweep.trials import run_trial
from distilface_st.training.history import read_history
from distilface_st.training.trainer import TrainingInterrupted

from .conftest import rows

STATUSES = ("complete", "pruned")


def never(score, step):
    return False


def only_claim(plan):
    store = SweepStore(plan)
    return store, store.next()


def test_a_hopeless_trial_ends_at_its_evaluation_and_keeps_its_curve(plan):
    plan = replace(plan, base=replace(plan.base, max_steps=6))
    _, claim = only_claim(plan)
    outcome = run_trial(plan, claim.config, claim.folder, lambda score, step: step == 4)
    assert (outcome.status, outcome.step, outcome.steps, outcome.reason) == ("pruned", 4, 4, "hopeless at step 4")
    scores = {row["step"]: row["mine"] for row in read_history(claim.folder / "history.csv") if "mine" in row}
    assert list(scores) == [0, 2, 4]
    assert outcome.score == scores[4]
    _, claim = only_claim(replace(plan, output=plan.output.with_name("other")))
    assert run_trial(plan, claim.config, claim.folder, lambda score, step: step == 6).status == "complete"


@pytest.mark.slow
def test_the_median_pruner_ends_what_is_worse_than_most(plan):
    space = Space((Choice("learning_rate", (1e-7, 2e-7, 3e-7, 4e-7, 0.05)),))
    plan = replace(plan, space=space, base=replace(plan.base, max_steps=4), pruner="median")
    plan = replace(plan, evaluator=Fading(plan.evaluator))
    run_sweep(plan)
    assert [row["status"] for row in rows(plan.output)] == ["complete"] * 4 + ["pruned"]


class Fading(STSEvaluator):
    """Scores how little the weights have grown."""

    def __init__(self, evaluator):
        super().__init__(evaluator.tasks, write_csv=False)

    def __call__(self, model, *args, **kwargs):
        size = sum(float(parameter.detach().square().sum()) for parameter in model.parameters())
        return {self.primary_metric: 1 / size}


def test_a_diverged_trial_is_recorded_with_its_reason_and_the_sweep_goes_on(plan):
    space = Space((Choice("learning_rate", (1e30, 1e-5)),))
    points = run_sweep(replace(plan, space=space, base=replace(plan.base, max_steps=4)))
    failed, complete = rows(plan.output)
    assert failed["status"] == "failed"
    assert "training diverged" in failed["reason"] or "not finite" in failed["reason"]
    assert complete["status"] == "complete"
    assert [point.configuration for point in points] == [{"learning_rate": 1e-5}]


def test_a_trial_whose_process_dies_without_getting_further_is_given_up(plan):
    _, claim = only_claim(plan)
    path = claim.folder / "starts.json"
    path.write_text(json.dumps({"step": 0, "starts": 4}))
    assert run_trial(plan, claim.config, claim.folder, never).status == "complete"
    path.write_text(json.dumps({"step": 0, "starts": 5}))
    outcome = run_trial(plan, claim.config, claim.folder, never)
    assert outcome.status == "failed"
    assert "not enough memory" in outcome.reason


class Listening(SweepWatcher):
    def __init__(self):
        self.told, self.counts = [], []

    def trials_changed(self, trials):
        self.counts.append(sum(trial.outcome is not None for trial in trials))

    def trial_at(self, number, step, score=None):
        self.told.append((number, step, score is not None))


@pytest.fixture(scope="module")
def finished(session_plan, tmp_path_factory):
    """A plan with more sets to score at the end, its best configuration, and what was told while it ran."""
    pairs = STSSubset("news", ("a cat", "a king", "the war"), ("a dog", "a queen", "a car"), (4.0, 5.0, 1.0))
    final = STSEvaluator(STSTask("STS99", (pairs,)), write_csv=False)
    plan = replace(session_plan, final=final, output=tmp_path_factory.mktemp("finished") / "sweep")
    listening = Listening()
    return plan, run_sweep(plan, listening)[0], listening


def test_more_sets_are_scored_at_the_end_and_decide_nothing(finished):
    plan, best, _ = finished
    (row, *_) = [row for row in rows(plan.output) if row["temperature"] == str(best.configuration["temperature"])]
    again = 100 * plan.final(load_model(plan.output / "best", device="cpu"))["STS99_spearman_cosine"]
    assert float(row["STS99"]) == pytest.approx(again)
    assert best.values == [float(row["mine"])]


def test_a_sweep_tells_of_trials_steps_and_scores(finished):
    _, _, listening = finished
    assert listening.counts == [0, 1, 1, 2]
    assert listening.told == [(n, s, scored) for n in (0, 1) for s, scored in ((1, False), (2, False), (2, True))]


def test_a_signal_in_the_last_step_of_a_trial_stops_the_sweep_after_it(plan):
    class Impatient(SweepWatcher):
        def trial_at(self, number, step, score=None):
            if step == plan.base.max_steps and score is None:
                os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    for finished in (1, 2):
        with pytest.raises(TrainingInterrupted):
            run_sweep(plan, Impatient())
        assert [row["status"] for row in rows(plan.output)] == ["complete"] * finished
        assert signal.getsignal(signal.SIGTERM) is before
    assert len(run_sweep(plan, Impatient())) == 2


@pytest.mark.slow
def test_hyperband_ends_trials_at_evaluations_and_lets_some_through(plan):
    space = Space((Choice("learning_rate", tuple(10.0 ** (-7 + number / 3) for number in range(16))),))
    plan = replace(plan, space=space, base=replace(plan.base, max_steps=8), pruner="hyperband")
    run_sweep(replace(plan, evaluator=Fading(plan.evaluator)))
    steps = {status: {row["step"] for row in rows(plan.output) if row["status"] == status} for status in STATUSES}
    assert steps["complete"]
    assert steps["pruned"]
    assert steps["pruned"] <= {"2", "4", "6"}

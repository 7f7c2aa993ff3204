"""A sweep on a real local Ray cluster: equal to one without it, also when a worker is killed on the way."""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import threading
import time
from dataclasses import replace

import pytest

from distilface_st.datasets.sts import load_scored_pairs
from distilface_st.evaluation.sts import STSEvaluator
from distilface_st.sweep import Choice, Space, read_results, run_sweep

from ..helpers import random_sentences, ray_workers
from .conftest import rows

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed (extra ray)"),
]


def outcomes(folder):
    names = ("status", "temperature", "seed", "score", "step", "steps", "key")
    return sorted(tuple(row[name] for name in names) for row in rows(folder))


def test_a_killed_workers_trial_goes_on_and_the_sweep_is_as_without_ray(plan, ray_cluster, tmp_path):
    from distilface_st.sweep import run_sweep_on_ray

    plan = replace(plan, base=replace(plan.base, max_steps=30, eval_steps=5), seeds=(1, 2))
    killed = []

    def kill_one():
        while not killed:
            if list((plan.output / "trials").glob("*/checkpoints/checkpoint-*")) and (at := ray_workers("train")):
                os.kill(at[0], signal.SIGKILL)
                killed.append(at[0])
            time.sleep(0.05)

    threading.Thread(target=kill_one, daemon=True).start()
    points = run_sweep_on_ray(plan, workers=2)
    assert killed
    assert [len(point.values) for point in points] == [2, 2]
    plain = replace(plan, output=tmp_path / "plain")
    run_sweep(plain)
    assert outcomes(plan.output) == outcomes(plain.output)
    assert (plan.output / "best" / "README.md").exists()
    assert not (plan.output / "ray").exists()


def test_asha_stops_hopeless_trials(plan, ray_cluster, tmp_path):
    from distilface_st.sweep import run_sweep_on_ray

    chance = random.Random(0)
    words = random_sentences(120, words=5)
    lines = [f"{a}\t{b}\t{chance.uniform(0, 5):.2f}" for a, b in zip(words[::2], words[1::2], strict=True)]
    (tmp_path / "many.tsv").write_text("\n".join(lines))  # so that no two scores are the same
    evaluator = STSEvaluator(load_scored_pairs(tmp_path / "many.tsv"), write_csv=False)
    space = Space((Choice("learning_rate", (1e-6, 1e-4, 1e-3, 3e-3, 1e-2, 2e-2)),))
    base = replace(plan.base, max_steps=12, eval_steps=3)
    plan = replace(plan, space=space, base=base, evaluator=evaluator, pruner="median")
    run_sweep_on_ray(plan, workers=2)
    found = [row["status"] for row in rows(plan.output)]
    assert set(found) == {"complete", "pruned"}
    assert len(found) == 6
    assert run_sweep(plan)[0].configuration == read_results(plan.output).best.configuration

"""A sweep on a real local Ray cluster: equal to one without it, also when a worker is killed on the way."""

from __future__ import annotations

import importlib.util
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from distilface_st.sweep import Choice, Space, run_sweep
from distilface_st.sweep.results import read_results

from .conftest import rows

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed (extra ray)"),
]


@pytest.fixture
def cluster():
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200_000_000)
    yield
    ray.shutdown()


def trial_processes():
    """Processes of Ray's workers that are at a trial, by what they call themselves."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            if line.startswith("ray::") and "train" in line.lower() and "IDLE" not in line:
                found.append(int(entry.name))
    return found


def outcomes(folder):
    names = ("status", "temperature", "seed", "score", "step", "steps", "key")
    return sorted(tuple(row[name] for name in names) for row in rows(folder))


def test_a_killed_workers_trial_goes_on_and_the_sweep_is_as_without_ray(plan, cluster, tmp_path):
    from distilface_st.sweep.ray_runner import run_sweep_on_ray

    plan = replace(plan, base=replace(plan.base, steps=60, evaluate_every=10), seeds=(1, 2))
    killed = []

    def kill_one():
        while not killed:
            if list((plan.output / "trials").glob("*/checkpoints/checkpoint-*")) and (at := trial_processes()):
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


def test_asha_stops_hopeless_trials(plan, cluster):
    from distilface_st.sweep.ray_runner import run_sweep_on_ray

    space = Space((Choice("learning_rate", (1e-6, 1e-5, 1e-4, 1e-3, 5e-3, 1e-2)),))
    plan = replace(plan, space=space, base=replace(plan.base, steps=40, evaluate_every=5), pruner="median")
    run_sweep_on_ray(plan, workers=2)
    found = {row["status"] for row in rows(plan.output)}
    assert found == {"complete", "pruned"}
    assert run_sweep(plan)[0].point == read_results(plan.output).best.point

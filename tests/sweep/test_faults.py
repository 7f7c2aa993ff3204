"""Sweeps whose processes are killed, stopped, or not alone."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from dataclasses import replace

import pytest

from distilface_st.sweep import Choice, Space, run_sweep

from .conftest import rows

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.sweep.preloaded"])


def sweep_by_itself(plan):
    """What a process does; 3 when it was stopped in good order."""
    import torch

    from distilface_st.training.trainer import TrainingInterrupted

    torch.set_num_threads(1)
    try:
        run_sweep(plan)
    except TrainingInterrupted:
        os._exit(3)


def started(plan):
    process = PROCESSES.Process(target=sweep_by_itself, args=(plan,))
    process.start()
    return process


def outcomes(folder):
    return sorted(
        tuple(value for name, value in row.items() if name not in ("trial", "seconds")) for row in rows(folder)
    )


def longer(plan):
    space = Space((Choice("temperature", (0.05, 0.1, 0.5)),))
    return replace(plan, space=space, seeds=(1, 2), base=replace(plan.base, max_steps=20, eval_steps=4))


@pytest.fixture
def long_plan(plan):
    return longer(plan)


@pytest.fixture(scope="module")
def uninterrupted(session_plan, tmp_path_factory):
    plan = replace(longer(session_plan), output=tmp_path_factory.mktemp("uninterrupted") / "sweep")
    process = started(plan)
    process.join()
    assert process.exitcode == 0
    return outcomes(plan.output)


def marks(folder):
    """What shows that a sweep has got further."""
    return {str(path) for name in ("run.json", "checkpoints/checkpoint-*") for path in folder.glob(f"trials/*/{name}")}


@pytest.mark.slow
def test_killed_at_random_moments_it_comes_to_the_same_trials(long_plan, uninterrupted):
    chance = random.Random(5)
    kills = 0
    while True:
        before, process = marks(long_plan.output), started(long_plan)
        while process.is_alive() and (kills == 8 or marks(long_plan.output) <= before):
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.5))
        if process.exitcode is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        kills += 1
    assert process.exitcode == 0
    assert kills > 2
    assert outcomes(long_plan.output) == uninterrupted
    assert not list(long_plan.output.glob("trials/*/checkpoints"))


@pytest.mark.slow
def test_two_processes_share_a_sweep_and_lose_and_double_nothing(long_plan, uninterrupted):
    both = [started(long_plan), started(long_plan)]
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert outcomes(long_plan.output) == uninterrupted
    starts = [json.loads(path.read_text())["starts"] for path in long_plan.output.glob("trials/*/starts.json")]
    assert starts == [1] * 6


@pytest.mark.slow
def test_a_stopped_trial_goes_on_from_its_checkpoint(plan):
    space = Space((Choice("temperature", (0.05,)),))
    plan = replace(plan, space=space, base=replace(plan.base, max_steps=60, eval_steps=5))
    process = started(plan)
    while not list(plan.output.glob("trials/*/checkpoints/checkpoint-*")):
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    process.join()
    assert process.exitcode == 3
    found = plan.output.glob("trials/*/checkpoints/checkpoint-*")
    at = max(int(checkpoint.name.split("-")[1]) for checkpoint in found)
    (history,) = plan.output.glob("trials/*/history.csv")
    before = history.read_text()
    run_sweep(plan)
    assert at < 60
    assert before.splitlines()[1 : at + 1] == history.read_text().splitlines()[1 : at + 1]
    assert rows(plan.output)[0]["steps"] == "60"
    assert json.loads(history.with_name("starts.json").read_text()) == {"step": at, "starts": 1}

from __future__ import annotations

from dataclasses import replace

import pytest
from sentence_transformers import SentenceTransformer

from distilface_st.errors import InputError
from distilface_st.sweep import Choice, Space, checked, run_sweep
from distilface_st.sweep.records import Outcome
from distilface_st.sweep.store import SweepStore

from .conftest import rows


def test_every_problem_is_named_before_anything_trains(plan):
    space = Space((Choice("batch_size", (4, 512)), Choice("layers", ("last", (0, 9)))))
    with pytest.raises(InputError) as error:
        checked(replace(plan, space=space, sampler="best"))
    for part in ("3 problems", "no sampler 'best'", "the batch size, 512", "layer 9 is out of range"):
        assert part in str(error.value)
    assert not plan.output.exists()


def test_a_failed_trial_is_recorded_a_finished_one_kept_and_the_best_saved(plan, monkeypatch):
    from distilface_st.sweep import trials

    def train(model, data, config, *args, **kwargs):
        ran.append(config.temperature)
        if config.temperature == 0.5:
            raise MemoryError("too large")
        return real(model, data, config, *args, **kwargs)

    ran, real = [], trials.train
    monkeypatch.setattr(trials, "train", train)
    points = run_sweep(checked(plan))
    assert run_sweep(plan)[0].configuration == points[0].configuration == {"temperature": 0.05}
    assert ran == [0.05, 0.5]
    assert [row["status"] for row in rows(plan.output)] == ["complete", "failed"]
    assert rows(plan.output)[1]["reason"] == "MemoryError: too large"
    assert SentenceTransformer(str(plan.output / "best"), device="cpu").encode("a cat").shape == (32,)
    with pytest.raises(InputError, match="other settings"):
        run_sweep(replace(plan, seeds=(1, 2)))


def test_two_stores_share_trials_and_a_dropped_one_is_taken_over(plan):
    first, second = SweepStore(plan), SweepStore(plan)
    one, two = first.next(), second.next()
    assert one.config.temperature != two.config.temperature
    assert first.next() is None
    one.lock.release()  # as when its process dies
    again = second.next()
    assert again.config == one.config
    second.tell(again, Outcome("complete", 50.0))
    assert [record.status for record in first.records()] == ["complete", "open"]


def test_a_sweep_of_another_version_goes_on_under_the_keys_it_gave(plan):
    keys = [record.key for record in SweepStore(plan).records()]
    journal = plan.output / "optuna.log"
    journal.write_text(journal.read_text().replace(keys[0], "a" * 12).replace(keys[1], "b" * 12))
    store = SweepStore(plan)
    assert [record.key for record in store.records()] == ["a" * 12, "b" * 12]
    assert store.next().folder.name == "a" * 12


def test_tpe_draws_each_point_once_and_the_same_after_a_restart(plan, tmp_path):
    space = Space((Choice("temperature", (0.05, 0.1, 0.5)),))
    drawn = []
    for name in ("a", "b"):
        mine = replace(plan, space=space, sampler="tpe", trials=5, output=tmp_path / name)
        store, found = SweepStore(mine), []
        while claim := store.next():
            found.append(claim.config.temperature)
            store.tell(claim, Outcome("complete", claim.config.temperature))
            if name == "b":
                store = SweepStore(mine)
        drawn.append(found)
        assert [record.number for record in store.records()] == [0, 1, 2]
    assert sorted(drawn[0]) == [0.05, 0.1, 0.5]
    assert drawn[0] == drawn[1]

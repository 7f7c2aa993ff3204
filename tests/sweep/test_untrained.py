"""Poolings compared without training, and the scores before the first step."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from distilface_st.errors import InputError
from distilface_st.models.build import build_model
from distilface_st.models.load import load_model
from distilface_st.sweep import Choice, Space, checked, run_sweep
from distilface_st.sweep.untrained import UNTRAINED
from distilface_st.training.history import read_history

from .conftest import rows

SPACE = Space((Choice("layers", ("last", (0, -1), "last_four")), Choice("layer_reduction", ("mean", "max", "concat"))))


@pytest.fixture
def encodings(monkeypatch, plan):
    """How often each sentence of the evaluation goes through an encoder."""
    from sentence_transformers import SentenceTransformer

    task = plan.evaluator.tasks[0]
    counts = dict.fromkeys([*task.sentences1, *task.sentences2], 0)
    original = SentenceTransformer.encode

    def encode(self, texts, *args, **kwargs):
        for text in counts.keys() & set(texts):
            counts[text] += 1
        return original(self, texts, *args, **kwargs)

    monkeypatch.setattr(SentenceTransformer, "encode", encode)
    return counts


def test_poolings_are_scored_from_one_pass_as_each_would_be_by_itself(plan, encodings):
    points = run_sweep(checked(replace(plan, space=SPACE, trained=False)))
    assert set(encodings.values()) == {1}
    assert len(points) == 9
    for point in points:
        changes = SPACE.changes(point.point)
        model = build_model(plan.base.encoder, pooling_mode="mean", device="cpu", **changes)
        assert point.mean == pytest.approx(100 * plan.evaluator(model)["mine_spearman_cosine"], abs=1e-3)
    assert {(row["status"], row["steps"]) for row in rows(plan.output)} == {("complete", "0")}
    best = plan.evaluator(load_model(plan.output / "best", device="cpu"))["mine_spearman_cosine"]
    assert points[0].mean == pytest.approx(100 * best, abs=1e-3)


def test_settings_that_need_training_are_refused_without_it(plan):
    with pytest.raises(InputError, match="steps is 0, but temperature only matters in training"):
        checked(replace(plan, trained=False))


def test_a_trial_takes_the_score_before_its_first_step_from_that_pass(plan, encodings):
    space = Space((Choice("layers", ("last", "all")),))
    run_sweep(replace(plan, space=space))
    assert set(encodings.values()) == {1 + 2}  # the pass, and the one evaluation of each of two trials
    known = json.loads((plan.output / UNTRAINED).read_text())["scores"]
    found = {read_history(path)[0]["mine"] for path in plan.output.glob("trials/*/history.csv")}
    assert found == {scores["mine"] for scores in known.values()}


def test_where_a_pooling_cannot_be_scored_so_the_trial_does_it(plan):
    space = Space((Choice("pooling_mode", (("mean", "max"),)),))
    points = run_sweep(replace(plan, space=space))
    assert len(points) == 1
    assert not (plan.output / UNTRAINED).exists()
    (path,) = plan.output.glob("trials/*/history.csv")
    assert "mine" in read_history(path)[0]

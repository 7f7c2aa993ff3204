from __future__ import annotations

import json
import os
import random
import signal

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import TrainerCallback

from distilface_st import AdaptationConfig, InputError, RetrievalEvaluator, TrainingInterrupted, adapt, load_model
from distilface_st.adaptation.budget import Plan
from distilface_st.adaptation.guard import Guard
from distilface_st.evaluation.base import Evaluation, MetricsEvaluator

from ..conftest import COMMON_WORDS

pytestmark = pytest.mark.usefixtures("quick_runs")
SETTINGS = {
    "max_steps": 12,
    "batch_size": 16,
    "learning_rate": 2e-3,
    "max_length": 32,
    "teacher": "none",
    "eval_steps": 4,
}


@pytest.fixture(scope="module")
def notes():
    """Documents that begin with common words, and whose titles are of words that only they hold."""
    chance = random.Random(0)
    found = []
    for number in range(240):
        own = [
            f"{chance.choice('bcdfg')}{chance.choice('aeiou')}{chance.choice('lmnrst')}{number % 10}" for _ in range(6)
        ]
        common = chance.choices(COMMON_WORDS, k=12)
        text = " ".join(word for pair in zip(common, own * 2, strict=True) for word in pair)
        found.append((" ".join(own[:3]), f"{text.capitalize()}. {' '.join(common[:8]).capitalize()}."))
    return found


@pytest.fixture(scope="module")
def encoder(tiny_encoder, tmp_path_factory):
    """A finished sentence encoder: the last layer's mean, with a module after it."""
    folder = tmp_path_factory.mktemp("finished") / "encoder"
    model = SentenceTransformer(modules=[Transformer(str(tiny_encoder)), Pooling(32, "mean")], device="cpu")
    model.save(str(folder))
    return folder


@pytest.fixture
def run(encoder, notes, tmp_path, monkeypatch):
    for part in ("guard", "linear_map"):  # a random encoder has no judgement
        monkeypatch.setattr(f"distilface_st.adaptation.{part}.LEAST_AGREEMENT", -100.0)

    def run(output=tmp_path / "run", texts=notes, resume=False, callbacks=(), labelled=None, **changes):
        config = AdaptationConfig(**(SETTINGS | changes))
        return adapt(
            encoder,
            texts,
            output,
            config,
            resume=resume,
            labelled=labelled,
            callbacks=callbacks,
            device="cpu",
            cache_dir=tmp_path / "cache",
        )

    return run


class StopAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


def test_it_learns_and_shows_what_it_has_brought(run, encoder, tmp_path):
    result = run(max_steps=40, eval_steps=20)
    found = result.run["adaptation"]
    assert set(found["scores"]) == {"before", "bm25", "after"}
    assert found["scores"]["after"]["mrr@10"] > found["scores"]["before"]["mrr@10"] + 0.02
    low, high = found["change"]["mrr@10_interval"]
    assert low < found["change"]["mrr@10"] < high
    assert result.run["improved"]
    assert found["better"][0]["rank_after"] < found["better"][0]["rank_before"]
    # What is saved is what was measured, on the test that is saved beside it.
    lines = (tmp_path / "run" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    queries, documents = zip(*((one["query"], one["document"]) for one in map(json.loads, lines)), strict=True)
    scores = RetrievalEvaluator(queries, documents).score(load_model(tmp_path / "run" / "model", device="cpu"))
    assert scores["mrr@10"] == pytest.approx(found["scores"]["after"]["mrr@10"], abs=1e-6)
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Found better than before" in page
    assert found["better"][0]["query"] in page
    # The pooling of a finished encoder stays.
    assert [type(part) for part in result.model] == [type(part) for part in load_model(encoder)]


def test_what_is_worse_is_never_handed_back(run, encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(Guard, "score", lambda *_: -101.0)
    result = run()
    assert not result.run["improved"]
    assert result.run["adaptation"]["kept_share"] == 0
    start = load_model(encoder, device="cpu").encode(["the red house"])
    np.testing.assert_allclose(
        load_model(tmp_path / "run" / "model", device="cpu").encode(["the red house"]), start, atol=1e-6
    )
    assert "The encoder is kept as it came" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_labelled_data_chooses_in_the_place_of_the_test(run, tmp_path):
    class Labelled(MetricsEvaluator):
        description = "My labels"

        def __init__(self):
            super().__init__("mine", "mine", "points", 8, False, False)
            self.points = iter([1.0, 3.0, 2.0, 2.0, 0.0, 9.0, 8.0])  # before, three evaluations; three mixtures

        def evaluate(self, model):
            return Evaluation({"points": next(self.points)}, {})

    result = run(labelled=Labelled())
    found = result.run["adaptation"]
    assert [(row["share"], row["labelled"]) for row in found["mixtures"]] == [(0.0, 0.0), (1.0, 9.0), (0.75, 8.0)]
    assert found["kept_share"] == 1.0
    assert found["chosen_by"] == "your labelled data"
    assert "your labelled data" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert result.run["kept"] == "step 4, the best mine_points"


def test_a_run_that_is_stopped_leaves_a_model_and_goes_on(run, tmp_path):
    whole = run(tmp_path / "whole")
    with pytest.raises(TrainingInterrupted):
        run(callbacks=[StopAt(6)])
    assert load_model(tmp_path / "run" / "model", device="cpu").encode("a cat").shape == (32,)
    with pytest.raises(InputError, match="holds a run already"):
        run()
    result = run(resume=True)
    for name, tensor in whole.model.state_dict().items():
        np.testing.assert_allclose(result.model.state_dict()[name], tensor, atol=1e-6)
    assert result.run["adaptation"]["scores"] == whole.run["adaptation"]["scores"]


@pytest.mark.slow
def test_a_better_teacher_is_learned_from_and_a_worse_one_is_not(run, encoder, notes, tmp_path):
    better = run(tmp_path / "teacher", max_steps=40).output / "model"
    guided = run(teacher=str(better)).run["adaptation"]
    assert guided["guide"] == "model"
    assert guided["scores"]["teacher"]["mrr@10"] > guided["scores"]["before"]["mrr@10"]
    worse = run(tmp_path / "other", teacher=str(encoder)).run["adaptation"]
    assert worse["guide"] == "the encoder itself"
    assert worse["scores"]["teacher"]["mrr@10"] == worse["scores"]["before"]["mrr@10"]


def test_the_time_limit_ends_a_run_that_takes_longer_than_planned(run, monkeypatch):
    monkeypatch.setattr(Plan, "of", lambda config, loss, lesson, *_: Plan(10_000, 5_000, len(lesson.rows), ""))
    result = run(max_steps=0, minutes=0.15)
    assert result.run["steps"] < 10_000
    assert result.run["adaptation"]["seconds"] < 60


def test_the_budget_decides_the_steps(run, tmp_path):
    plan = run(max_steps=0, eval_steps=0, minutes=0.5).run["adaptation"]["steps"]
    assert "times through the pairs" in plan
    with pytest.raises(InputError, match="minutes are too few here: give --minutes"):
        run(tmp_path / "other", max_steps=0, minutes=0.001)

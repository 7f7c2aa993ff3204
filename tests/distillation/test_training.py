from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from distilface_st import (
    DistillationConfig,
    InputError,
    TrainingInterrupted,
    distill,
    load_model,
    load_pairs,
    make_student,
)
from distilface_st.datasets.sts import load_scored_pairs
from distilface_st.distillation.teachers import Teacher, teacher_of
from distilface_st.evaluation.sts import STSEvaluator

from ..training.test_train import StopAt

pytestmark = pytest.mark.usefixtures("quick_runs")

CONFIG = DistillationConfig(
    max_steps=30, batch_size=16, eval_steps=10, learning_rate=3e-3, warmup_steps=2, precision="fp32"
)


@pytest.fixture
def run(teacher_model, data, tmp_path):
    def start(output, config=CONFIG, teachers=None, **options):
        torch.manual_seed(0)
        student = make_student(teacher_model, layers=2, embedding_size=16, device="cpu")
        known = teachers or [teacher_of(teacher_model)]
        return distill(
            student, known, data, config, tmp_path / output, cache_dir=tmp_path / "teachers", device="cpu", **options
        )

    return start


def agreement(model, teacher, sentences):
    mine, theirs = (m.encode(sentences, normalize_embeddings=True) for m in (model, teacher))
    off = ~np.eye(len(sentences), dtype=bool)
    return np.corrcoef((mine @ mine.T)[off], (theirs @ theirs.T)[off])[0, 1]


@pytest.mark.parametrize(
    "objectives",
    [
        {"regression": 1.0},
        {"contrastive": 1.0},
        {"relational": 1.0},
        {"ranking": 1.0},
        {"regression": 1.0, "contrastive": 1.0, "relational": 1.0, "matryoshka_dims": (8,)},
    ],
    ids="+".join,
)
def test_every_objective_draws_the_student_to_its_teacher(run, teacher_model, data, objectives):
    none = {"regression": 0.0, "contrastive": 0.0, "relational": 0.0, "ranking": 0.0}
    sentences = data.dataset[:60]["sentence"]
    before = agreement(make_student(teacher_model, layers=2, embedding_size=16, device="cpu"), teacher_model, sentences)
    result = run("run", replace(CONFIG, **(none | objectives)))
    assert agreement(result.model, teacher_model, sentences) > before + 0.02


def test_a_run_leaves_a_model_its_history_and_its_record(run, teacher_model, tmp_path):
    (tmp_path / "mine.tsv").write_text("a cat\ta dog\t4\na cat\tthe war\t1\na king\ta queen\t5\na king\ta car\t0\n")
    evaluator = STSEvaluator(load_scored_pairs(tmp_path / "mine.tsv"), write_csv=False)
    result = run("run", evaluator=evaluator)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["teachers"] == [{"name": "teacher", "fingerprint": teacher_of(teacher_model).fingerprint}]
    assert record["loss"]["name"] == "DistillationLoss"
    assert list(record["scores_after"]) == list(record["scores_before"])
    assert -1 <= result.history[-1]["teacher_similarity"] <= 1
    assert not (tmp_path / "run" / "checkpoints").exists()
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "Teacher: teacher" in card
    opened = SentenceTransformer(str(tmp_path / "run" / "model"), device="cpu")
    np.testing.assert_allclose(opened.encode("a cat"), result.model.encode("a cat"), atol=1e-6)


def test_a_student_and_a_teacher_in_half_precision_make_a_student_in_fp32(teacher_model, data, tmp_path):
    teacher = copy.deepcopy(teacher_model).bfloat16()
    student = make_student(teacher, layers=2, device="cpu").half()
    config = replace(CONFIG, max_steps=2)
    result = distill(student, [teacher_of(teacher)], data, config, tmp_path / "run", cache_dir=tmp_path, device="cpu")
    saved = load_model(result.output / "model", device="cpu")
    assert {parameter.dtype for parameter in saved.parameters()} == {torch.float32}
    assert next(teacher.parameters()).dtype == torch.bfloat16


def test_several_teachers_of_different_widths_teach_at_once(run, teacher_model, data):
    class Halved:
        def encode(self, sentences, **options):
            return teacher_model.encode(sentences)[:, :20]

    teachers = [teacher_of(teacher_model), Teacher(Halved(), "halved", "h")]
    result = run("run", replace(CONFIG, teacher_weights=(1.0, 3.0)), teachers=teachers)
    assert [teacher["name"] for teacher in result.run["teachers"]] == ["teacher", "halved"]
    assert result.run["loss"]["settings"]["teacher_weights"] == [1.0, 3.0]


def test_a_stopped_run_goes_on_as_if_nothing_had_happened_projections_included(run, tmp_path):
    whole = run("whole")
    with pytest.raises(TrainingInterrupted):
        run("stopped", callbacks=[StopAt(14)])
    resumed = run("stopped", resume=True)
    for row, expected in zip(resumed.history, whole.history, strict=True):
        assert row["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    np.testing.assert_allclose(resumed.model.encode("a cat"), whole.model.encode("a cat"), atol=1e-4)


def test_a_checkpoint_without_the_projections_is_refused(run, tmp_path):
    with pytest.raises(TrainingInterrupted):
        run("stopped", callbacks=[StopAt(14)])
    for state in (tmp_path / "stopped").rglob("loss.safetensors"):
        state.unlink()
    with pytest.raises(InputError, match="the checkpoint is not whole"):
        run("stopped", resume=True)


def test_what_does_not_fit_is_refused_before_anything_is_written(run, teacher_model, data, tmp_path):
    with pytest.raises(InputError, match="fewer than the batch size"):
        run("run", replace(CONFIG, batch_size=500))
    with pytest.raises(InputError, match="each must be smaller than the model's 32"):
        run("run", replace(CONFIG, matryoshka_dims=(32,)))
    with pytest.raises(InputError, match="give one above 0 for each of the 1 teachers"):
        run("run", replace(CONFIG, teacher_weights=(1.0, 2.0)))
    (tmp_path / "pairs.tsv").write_text("a\tb\n" + "\n".join(f"the cat {i}\ta dog {i}" for i in range(40)))
    pairs = load_pairs(tmp_path / "pairs.tsv", cache_dir=tmp_path / "cache")
    with pytest.raises(InputError, match="takes sentences"):
        distill(teacher_model, [teacher_of(teacher_model)], pairs, CONFIG, tmp_path / "run")
    with pytest.raises(InputError, match="at least one teacher"):
        distill(teacher_model, [], data, CONFIG, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    shutil.rmtree(tmp_path / "teachers", ignore_errors=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"regression": -1.0},
        {"regression": 0.0, "contrastive": 0.0, "relational": 0.0},
        {"temperature": 0.0},
        {"matryoshka_dims": (0,)},
        {"teacher_weights": (0.0,)},
        {"max_steps": 0},
        {"dropout": 1.0},
        {"learning_rate": 0.0},
        {"precision": "int8"},
    ],
    ids=str,
)
def test_settings_that_no_run_could_use_are_refused(changes):
    with pytest.raises(InputError):
        replace(CONFIG, **changes)

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from distilface_st import DistillationLoss

NONE = {"regression": 0.0, "contrastive": 0.0, "relational": 0.0, "ranking": 0.0}


class Model(nn.Module):
    """As much of a SentenceTransformer as the loss asks for: rows of a table, looked up by token id."""

    device = torch.device("cpu")

    def __init__(self, rows, dimension, seed=0):
        super().__init__()
        self.table = nn.Parameter(torch.randn(rows, dimension, generator=torch.Generator().manual_seed(seed)))

    def get_embedding_dimension(self):
        return self.table.shape[1]

    def forward(self, features):
        return {**features, "sentence_embedding": self.table[features["input_ids"][:, 0]]}

    def encode(self, sentences, **kwargs):
        return nn.functional.normalize(self.table[[int(s) for s in sentences]].detach(), dim=1)


def unit(rows, dimension, seed):
    values = np.random.default_rng(seed).normal(size=(rows, dimension))
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def by_hand(student, teachers, projections, weights, objectives, temperatures):
    """The objectives in numpy, written from their definitions, sentence by sentence."""
    student = student / np.linalg.norm(student, axis=1, keepdims=True)
    weights = np.asarray(weights) / np.sum(weights)
    rows = len(student)
    total = 0.0
    for teacher, projection, weight in zip(teachers, projections, weights, strict=True):
        mine = student @ projection.T
        mine /= np.linalg.norm(mine, axis=1, keepdims=True)
        cosines = mine @ teacher.T
        total += objectives["regression"] * weight * np.mean(1 - np.diag(cosines))
        for i in range(rows):
            exponentials = np.exp(cosines[i] / temperatures[0])
            total -= objectives["contrastive"] * weight * np.log(exponentials[i] / exponentials.sum()) / rows
    theirs = sum(weight * teacher @ teacher.T for teacher, weight in zip(teachers, weights, strict=True))
    mine = student @ student.T
    pairs = [(i, j) for i in range(rows) for j in range(rows) if i != j]
    total += objectives["relational"] * 20 * np.mean([(mine[i, j] - theirs[i, j]) ** 2 for i, j in pairs])
    for i in range(rows):
        others = [j for j in range(rows) if j != i]
        p = np.exp(theirs[i, others] / temperatures[2])
        q = np.exp(mine[i, others] / temperatures[1])
        p, q = p / p.sum(), q / q.sum()
        total += objectives["ranking"] * np.sum(p * np.log(p / q)) / rows
    return total


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(2, 7),
    seed=st.integers(0, 1000),
    weights=st.lists(st.floats(0.1, 5), min_size=1, max_size=3),
    objectives=st.fixed_dictionaries({name: st.sampled_from([0.0, 0.5, 2.0]) for name in NONE}),
)
def test_the_loss_is_its_definition(rows, seed, weights, objectives):
    if not any(objectives.values()):
        objectives["ranking"] = 1.0
    teachers = [unit(rows, 3 + index, seed + index) for index in range(len(weights))]
    model = Model(rows, 4, seed)
    loss = DistillationLoss(
        model,
        teachers,
        **objectives,
        temperature=0.3,
        student_temperature=0.2,
        teacher_temperature=0.1,
        teacher_weights=weights,
    )
    found = loss([{"input_ids": torch.arange(rows)[:, None]}], torch.arange(rows))
    projections = [projection.weight.detach().double().numpy() for projection in loss.projections]
    expected = by_hand(
        model.table.detach().double().numpy(), teachers, projections, weights, objectives, (0.3, 0.2, 0.1)
    )
    assert found.item() == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_labels_say_which_rows_of_the_teacher_are_meant():
    teacher = unit(6, 4, 1)
    model = Model(6, 4)
    model.table.data = torch.tensor(teacher, dtype=torch.float32)
    loss = DistillationLoss(model, [teacher], **{**NONE, "relational": 1.0})
    rows = torch.tensor([4, 0, 2])
    assert loss([{"input_ids": rows[:, None]}], rows).item() == pytest.approx(0, abs=1e-6)
    assert loss([{"input_ids": rows[:, None]}], torch.tensor([1, 3, 5])).item() > 0.01


def test_a_student_that_is_its_teacher_has_no_relational_and_ranking_loss():
    teacher = unit(5, 4, 3)
    model = Model(5, 4)
    model.table.data = torch.tensor(7 * teacher, dtype=torch.float32)  # lengths do not matter
    objectives = {**NONE, "relational": 1.0, "ranking": 1.0}
    loss = DistillationLoss(model, [teacher], **objectives, student_temperature=0.1, teacher_temperature=0.1)
    assert loss([{"input_ids": torch.arange(5)[:, None]}], torch.arange(5)).item() == pytest.approx(0, abs=1e-5)


def test_fitted_projections_are_those_of_least_squares():
    student, mixing = unit(400, 6, 1), np.random.default_rng(2).normal(size=(6, 9))
    teacher = student @ mixing
    model = Model(400, 6)
    model.table.data = torch.tensor(student, dtype=torch.float32)
    loss = DistillationLoss(model, [teacher / np.linalg.norm(teacher, axis=1).mean()])
    loss.fit_projections([str(i) for i in range(400)])
    features = [{"input_ids": torch.arange(400)[:, None]}]
    loss.objectives = {**NONE, "regression": 1.0}
    assert loss(features, torch.arange(400)).item() < 1e-3


def test_smaller_widths_are_trained_as_if_alone():
    teacher = unit(5, 3, 1)
    model = Model(5, 6)
    objectives = {**NONE, "relational": 1.0}
    both = DistillationLoss(model, [teacher], **objectives, matryoshka_dims=[2])
    narrow = Model(5, 2)
    narrow.table.data = model.table.data[:, :2]
    features = [{"input_ids": torch.arange(5)[:, None]}], torch.arange(5)
    alone = [DistillationLoss(m, [teacher], **objectives)(*features).item() for m in (model, narrow)]
    assert both(*features).item() == pytest.approx(np.mean(alone), rel=1e-5)


def test_gradients_reach_student_and_projections_and_statistics_are_forgotten():
    model = Model(5, 4).train()
    loss = DistillationLoss(model, [unit(5, 3, 1), unit(5, 6, 2)])
    loss([{"input_ids": torch.arange(5)[:, None]}], torch.arange(5)).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in loss.parameters())
    assert set(loss.pop_statistics()) == {"teacher_similarity"}
    assert loss.pop_statistics() == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"teachers": []}, "at least one teacher"),
        ({"teachers": [unit(5, 3, 1), unit(4, 3, 1)]}, "as many rows"),
        ({"teacher_weights": [1.0, 2.0]}, "one above 0 for each"),
        ({"teacher_weights": [0.0]}, "one above 0 for each"),
        ({"regression": -1.0}, "none below 0"),
        (NONE, "at least one above"),
        ({"temperature": 0.0}, "must be above 0"),
        ({"matryoshka_dims": [4]}, "smaller than the model's 4"),
        ({"matryoshka_dims": [2, 2]}, "smaller than the model's 4"),
    ],
)
def test_settings_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DistillationLoss(Model(5, 4), **({"teachers": [unit(5, 3, 1)]} | arguments))

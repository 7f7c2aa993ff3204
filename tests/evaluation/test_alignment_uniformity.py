from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from sentence_transformers import SentenceTransformer

from distilface_st.errors import InputError
from distilface_st.evaluation import alignment_uniformity
from distilface_st.evaluation.alignment_uniformity import AlignmentUniformityEvaluator, alignment, uniformity
from tests.evaluation.test_sts import Stub

PAIRS = [("a man eats", "he eats fish"), ("a red car", "the car was red"), ("a man eats", "one man ate")]


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def model(tiny_encoder: Path) -> SentenceTransformer:
    return SentenceTransformer(str(tiny_encoder), device="cpu")


@pytest.mark.parametrize("block_rows", [3, 8, 1024])
def test_uniformity_is_the_log_mean_potential_over_all_pairs(monkeypatch: pytest.MonkeyPatch, block_rows: int) -> None:
    monkeypatch.setattr(alignment_uniformity, "_BLOCK_ROWS", block_rows)
    vectors = unit(np.random.default_rng(0).normal(size=(20, 5)))
    for t in (1.0, 2.0):
        assert uniformity(vectors, t) == pytest.approx(np.log(np.exp(-t * pdist(vectors) ** 2).mean()), rel=1e-9)


def test_alignment_is_the_mean_distance_to_the_power_alpha() -> None:
    first, second = np.array([[1.0, 0], [0, 1]]), np.array([[1.0, 0], [0, -1]])
    assert alignment(first, second) == pytest.approx((0 + 4) / 2)
    assert alignment(first, second, alpha=1) == pytest.approx((0 + 2) / 2)


def test_collapsed_embeddings_are_least_uniform_and_spread_ones_more() -> None:
    collapsed = unit(np.ones((6, 4)))
    assert uniformity(collapsed) == pytest.approx(0, abs=1e-12)
    assert uniformity(np.concatenate([np.eye(4), -np.eye(4)])) < uniformity(np.eye(4)) < -1


def test_metrics_are_those_of_the_pairs_and_their_distinct_sentences() -> None:
    stub = Stub()
    metrics = AlignmentUniformityEvaluator(PAIRS, name="dev")(stub)
    distinct = list(dict.fromkeys(text for pair in PAIRS for text in pair))
    vectors = unit(np.stack([stub.vector(text) for text in distinct]))
    aligned = np.mean([np.sum(np.square(np.subtract(*(vectors[distinct.index(t)] for t in p)))) for p in PAIRS])
    uniform = np.log(np.exp(-2 * pdist(vectors) ** 2).mean())
    assert metrics == pytest.approx(
        {
            "dev_alignment": aligned,
            "dev_uniformity": uniform,
            "dev_alignment_uniformity": -(aligned + uniform),
        },
        rel=1e-5,
    )
    (asked,) = stub.asked
    assert sorted(asked) == sorted(distinct)


def test_uniformity_can_be_of_other_sentences() -> None:
    stub, others = Stub(), ["x", "y", "x", "z"]
    metrics = AlignmentUniformityEvaluator(PAIRS, others)(stub)
    vectors = unit(np.stack([stub.vector(text) for text in ("x", "y", "z")]))
    assert metrics["uniformity"] == pytest.approx(uniformity(vectors), rel=1e-5)
    assert metrics["alignment"] == AlignmentUniformityEvaluator(PAIRS)(stub)["alignment"]


def test_the_primary_metric_is_known_beforehand_and_better_when_greater() -> None:
    evaluator = AlignmentUniformityEvaluator(PAIRS, name="dev")
    assert evaluator.primary_metric == "dev_alignment_uniformity"
    assert evaluator.greater_is_better
    assert evaluator.primary_metric in evaluator(Stub())
    assert AlignmentUniformityEvaluator(PAIRS).primary_metric == "alignment_uniformity"


def test_without_pairs_the_positives_are_dropout_views(model: SentenceTransformer) -> None:
    sentences = [text for pair in PAIRS for text in pair]
    metrics = AlignmentUniformityEvaluator(sentences=sentences, batch_size=2)(model)
    assert 0 < metrics["alignment"] < 1
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.4
    assert AlignmentUniformityEvaluator(sentences=sentences)(model)["alignment"] > metrics["alignment"]


def test_dropout_views_leave_no_trace_in_training(model: SentenceTransformer) -> None:
    evaluator = AlignmentUniformityEvaluator(sentences=[text for pair in PAIRS for text in pair])
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = evaluator(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module.training for module in model.modules())
    torch.manual_seed(2)
    assert evaluator(model) == first


def test_dropout_views_need_dropout(model: SentenceTransformer) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    with pytest.raises(InputError, match="no active dropout"):
        AlignmentUniformityEvaluator(sentences=["a man", "a dog"])(model)


def test_an_encoder_without_dropout_needs_pairs() -> None:
    with pytest.raises(InputError, match="has no dropout"):
        AlignmentUniformityEvaluator(sentences=["a man", "a dog"])(Stub())


@pytest.mark.parametrize("arguments", [{}, {"sentences": ["one", "one"]}, {"pairs": [("same", "same")]}])
def test_two_distinct_sentences_are_needed(arguments: dict[str, list]) -> None:
    with pytest.raises(InputError, match="two distinct sentences"):
        AlignmentUniformityEvaluator(**arguments)


def test_the_csv_and_the_model_card_are_written(model: SentenceTransformer, tmp_path: Path) -> None:
    evaluator = AlignmentUniformityEvaluator(PAIRS)
    metrics = evaluator(model, str(tmp_path), epoch=1, steps=9)
    with (tmp_path / "alignment_uniformity_results.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert {key: float(value) for key, value in row.items()} == {"epoch": 1, "steps": 9, **metrics}
    assert model.model_card_data.eval_results_dict[evaluator] == metrics

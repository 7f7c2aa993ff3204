from __future__ import annotations

import numpy as np
import pytest
import torch

from distilface_st import InputError
from distilface_st.export.export_model import linear_layers, most_sensitive_first
from distilface_st.export.graph_format import verify
from distilface_st.export.sentence_graph import SentenceGraph


class TorchEngine:
    """The torch model as an engine, its embeddings changed on the way out."""

    runtime = "torch"

    def __init__(self, graph, change) -> None:
        self.graph, self.change, self.shapes = graph, change, []

    @torch.no_grad()
    def run(self, feeds):
        self.shapes.append(feeds["input_ids"].shape)
        tensors = {name: torch.from_numpy(values) for name, values in feeds.items()}
        return self.change(self.graph(**tensors).numpy().copy())


@pytest.fixture(scope="module")
def graph(tiny_model) -> SentenceGraph:
    return SentenceGraph(tiny_model)


def negate_last_row(rows: np.ndarray) -> np.ndarray:
    rows[-1] *= -1
    return rows


def test_the_same_embeddings_pass_on_batches_of_many_shapes(graph):
    engine = TorchEngine(graph, lambda rows: rows)
    found = verify(graph, engine, "fp32", 64)
    assert found["max_abs_difference"] == 0
    assert found["mean_cosine"] == pytest.approx(1)
    assert len(set(engine.shapes)) == len(engine.shapes) > 4
    assert max(tokens for _, tokens in engine.shapes) == 64
    assert 1 in {rows for rows, _ in engine.shapes}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (negate_last_row, "is not the model"),
        (lambda rows: rows + 0.05 * np.abs(rows).max(), "is not the model"),
        (lambda rows: rows * np.nan, "is not the model"),
        (lambda rows: rows * 0, "is not the model"),
        (lambda rows: rows[:, :-1], "shape"),
    ],
)
def test_other_embeddings_are_refused(graph, change, message):
    with pytest.raises(InputError, match=message):
        verify(graph, TorchEngine(graph, change), "fp32", 64)


def test_int8_is_held_to_text_more_than_to_random_tokens(graph):
    def turned(rows: np.ndarray) -> np.ndarray:
        return rows + 0.6 * np.abs(rows).mean(axis=1, keepdims=True)

    engine = TorchEngine(graph, turned)
    text = [{key: value.numpy() for key, value in graph.example(3, 9, torch.Generator()).items()}]
    assert 0.5 < verify(graph, engine, "int8", 64)["min_cosine"] < 0.9
    with pytest.raises(InputError, match="on text"):
        verify(graph, engine, "int8", 64, text)
    assert verify(graph, TorchEngine(graph, lambda rows: rows), "int8", 64, text)["min_cosine_on_text"] > 0.9999


def test_the_layer_with_the_wildest_weights_is_the_most_sensitive(tiny_model):
    graph = SentenceGraph(tiny_model)
    layers = linear_layers(graph)
    name = "0.model.encoder.layer.1.intermediate.dense"
    layers[name].weight[:, 0] += 50  # sets the scale of every row, and is multiplied with nothing but zeros
    before = graph.encoder.encoder.layer[1].attention.output.LayerNorm
    before.weight[0] = before.bias[0] = 0
    weights = {key: layer.weight.clone() for key, layer in layers.items()}
    batches = [graph.example(4, 12, torch.Generator().manual_seed(3))]
    order = most_sensitive_first(graph, batches)
    assert order[0] == name
    assert sorted(order) == sorted(layers)
    assert all(torch.equal(layer.weight, weights[key]) for key, layer in layers.items())

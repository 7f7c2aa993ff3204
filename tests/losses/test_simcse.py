from __future__ import annotations

import copy
import os
import socket

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from distilface_st.losses import SimCSELoss
from distilface_st.models.build import build_model

SENTENCES = ["the man is in the house", "a cat and a dog", "war and music", "he was the king of a small country"]


class Counter(torch.nn.Module):
    """A stand-in for a SentenceTransformer that returns given embeddings and counts its calls."""

    def __init__(self, p=0.1):
        super().__init__()
        self.dropout = torch.nn.Dropout(p)
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.calls = []

    def forward(self, features):
        self.calls.append(features["input_ids"].shape)
        return {"sentence_embedding": self.dropout(features["input_ids"].float() * self.weight)}


def embeddings(columns=2, batch=5, width=7, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, width, generator=generator, dtype=torch.float64).to(dtype) for _ in range(columns)]


def reference(columns, temperature, similarity="cosine", symmetric=False):
    """The formula of the paper in float64 numpy, with loops."""
    vectors = [np.asarray(column, dtype=np.float64) for column in columns]
    if similarity == "cosine":
        vectors = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in vectors]

    def one_way(anchors, candidates):
        total = 0.0
        for i, anchor in enumerate(anchors):
            scores = [np.dot(anchor, candidate) / temperature for candidate in candidates]
            top = max(scores)
            total -= scores[i] - top - np.log(sum(np.exp(score - top) for score in scores))
        return total / len(anchors)

    loss = one_way(vectors[0], np.concatenate(vectors[1:]))
    return (loss + one_way(vectors[1], vectors[0])) / 2 if symmetric else loss


def tokenized(model, sentences=SENTENCES):
    return dict(model.preprocess(sentences))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    batch=st.integers(1, 9),
    columns=st.integers(2, 4),
    temperature=st.floats(0.01, 2),
    similarity=st.sampled_from(["cosine", "dot"]),
    symmetric=st.booleans(),
)
def test_equals_a_float64_evaluation_of_the_formula(seed, batch, columns, temperature, similarity, symmetric):
    given_embeddings = embeddings(columns, batch, seed=seed, dtype=torch.float64)
    loss = SimCSELoss(Counter(), temperature, similarity, symmetric)
    expected = reference(given_embeddings, temperature, similarity, symmetric)
    assert loss.compute_loss_from_embeddings(given_embeddings).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), temperature=st.floats(0.01, 1), columns=st.integers(2, 3))
def test_equals_the_stock_loss_at_scale_one_over_temperature(seed, temperature, columns):
    given_embeddings = embeddings(columns, seed=seed)
    stock = MultipleNegativesRankingLoss(Counter(), scale=1 / temperature)
    ours = SimCSELoss(Counter(), temperature).compute_loss_from_embeddings(given_embeddings)
    torch.testing.assert_close(ours, stock.compute_loss_from_embeddings(given_embeddings, None), rtol=1e-4, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(order=st.permutations(range(6)), symmetric=st.booleans())
def test_the_order_of_the_batch_does_not_matter(order, symmetric):
    given_embeddings = embeddings(3, batch=6, dtype=torch.float64)
    loss = SimCSELoss(Counter(), symmetric=symmetric)
    shuffled = [column[list(order)] for column in given_embeddings]
    torch.testing.assert_close(
        loss.compute_loss_from_embeddings(shuffled), loss.compute_loss_from_embeddings(given_embeddings)
    )


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_gradient_matches_finite_differences(similarity, symmetric):
    given_embeddings = [e.requires_grad_() for e in embeddings(3, batch=3, width=4, dtype=torch.float64)]
    loss = SimCSELoss(Counter(), 0.5, similarity, symmetric)
    assert torch.autograd.gradcheck(lambda *columns: loss.compute_loss_from_embeddings(list(columns)), given_embeddings)


def test_half_precision_is_computed_in_fp32_also_under_autocast():
    given_embeddings = embeddings(dtype=torch.bfloat16)
    exact = SimCSELoss(Counter()).compute_loss_from_embeddings([e.float() for e in given_embeddings])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = SimCSELoss(Counter()).compute_loss_from_embeddings(given_embeddings)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact)


def test_one_column_runs_the_encoder_once_on_the_batch_with_itself():
    model = Counter().train()
    ids = torch.arange(1, 13).reshape(4, 3)
    SimCSELoss(model)([{"input_ids": ids, "attention_mask": torch.ones_like(ids)}])
    assert model.calls == [(8, 3)]


def test_columns_of_one_length_share_a_forward_pass_and_others_do_not():
    model = Counter().eval()
    short, long = torch.arange(1, 13).reshape(4, 3), torch.arange(1, 41).reshape(4, 10)
    for second, calls in ((short, [(8, 3)]), (long, [(4, 3), (4, 10)])):
        model.calls.clear()
        columns = [{"input_ids": ids, "attention_mask": torch.ones_like(ids)} for ids in (short, second)]
        _embed(SimCSELoss(model), columns)
        assert model.calls == calls


def _embed(loss, columns):
    """Run the loss on embeddings of unequal width; only the forward passes matter here."""
    loss.compute_loss_from_embeddings = lambda embeddings: sum(e.sum() for e in embeddings)
    loss(columns)


def test_one_column_takes_dropout_views_as_positives(tiny_encoder):
    model = build_model(tiny_encoder, device="cpu").train()
    features = tokenized(model)
    torch.manual_seed(3)
    loss = SimCSELoss(model)([dict(features)])
    doubled = {key: torch.cat([v, v]) if isinstance(v, torch.Tensor) else v for key, v in features.items()}
    torch.manual_seed(3)
    both = model(doubled)["sentence_embedding"].detach()
    assert not torch.equal(both[:4], both[4:])
    assert loss.item() == pytest.approx(reference([both[:4], both[4:]], 0.05), rel=1e-4)


def test_two_columns_take_the_given_positives(tiny_encoder):
    model = build_model(tiny_encoder, device="cpu").eval()
    anchors, positives = tokenized(model, SENTENCES), tokenized(model, SENTENCES[::-1])
    loss = SimCSELoss(model)([anchors, positives]).item()
    expected = reference([model.encode(SENTENCES), model.encode(SENTENCES[::-1])], 0.05)
    assert loss == pytest.approx(expected, rel=1e-4)


def test_one_column_in_eval_mode_is_refused(tiny_encoder):
    model = build_model(tiny_encoder, device="cpu").eval()
    with pytest.raises(ValueError, match="the model is in eval mode, so both views"):
        SimCSELoss(model)([tokenized(model)])


def test_one_column_without_dropout_is_refused(tiny_encoder):
    model = build_model(tiny_encoder, device="cpu").train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    with pytest.raises(ValueError, match="every dropout probability is 0"):
        SimCSELoss(model)([tokenized(model)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 0}, "temperature is 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"similarity": "euclidean"}, "allowed are cosine and dot"),
        ({"mini_batch_size": 0}, "mini_batch_size is 0"),
    ],
)
def test_bad_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SimCSELoss(Counter(), **arguments)


def _gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_gradient_caching_gives_the_gradient_of_the_whole_batch(tiny_encoder, columns):
    """With dropout at zero for pairs; with dropout views, the two views' masks replayed by hand."""
    model = build_model(tiny_encoder, device="cpu")
    texts = [SENTENCES, SENTENCES[::-1], SENTENCES[1:] + SENTENCES[:1]][:columns]
    columns_of = lambda: [tokenized(model, text) for text in texts]  # noqa: E731
    if columns == 1:
        model.train()
    else:
        model.eval()
    torch.manual_seed(5)
    loss = SimCSELoss(model, mini_batch_size=3)(columns_of())
    loss.backward()
    cached = _gradients(model)
    model.zero_grad()
    torch.manual_seed(5)
    passes = columns_of() * (2 if columns == 1 else 1)
    outputs = []
    for features in passes:
        parts = []
        for rows in (slice(0, 3), slice(3, 4)):
            part = {k: v[rows] if isinstance(v, torch.Tensor) else v for k, v in features.items()}
            width = int(part["attention_mask"].sum(1).max())
            part = {k: v[:, :width] if isinstance(v, torch.Tensor) else v for k, v in part.items()}
            parts.append(model(part)["sentence_embedding"])
        outputs.append(torch.cat(parts))
    whole = SimCSELoss(model).compute_loss_from_embeddings(outputs)
    whole.backward()
    torch.testing.assert_close(loss.detach(), whole.detach())
    expected = _gradients(model)
    assert cached.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(cached[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_statistics_are_the_mean_similarities_since_the_last_call():
    model = Counter().train()
    loss = SimCSELoss(model)
    assert loss.pop_statistics() == {}
    anchors, positives = torch.eye(3), torch.eye(3) + 0.0
    loss.compute_loss_from_embeddings([anchors, positives])
    loss.compute_loss_from_embeddings([anchors, anchors.roll(1, 0)])
    statistics = loss.pop_statistics()
    assert statistics["positive_similarity"] == pytest.approx(0.5)
    assert statistics["negative_similarity"] == pytest.approx((0 + 3 / 6) / 2)
    assert loss.pop_statistics() == {}


def test_statistics_leave_evaluation_out():
    model = Counter().eval()
    loss = SimCSELoss(model)
    loss.compute_loss_from_embeddings(embeddings())
    assert loss.pop_statistics() == {}


def _one_of_two(rank, port, folder, symmetric):
    """One gloo process with half the batch; writes its loss and the averaged gradient."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    try:
        columns = [c[rank * 3 : rank * 3 + 3].requires_grad_() for c in embeddings(3, batch=6, dtype=torch.float64)]
        weight = torch.eye(7, dtype=torch.float64, requires_grad=True)
        loss = SimCSELoss(Counter(), symmetric=symmetric, gather_across_devices=True)
        value = loss.compute_loss_from_embeddings([column @ weight for column in columns])
        value.backward()
        torch.distributed.all_reduce(weight.grad)
        torch.distributed.all_reduce(value.detach())
        if rank == 0:
            torch.save({"loss": value.detach() / 2, "gradient": weight.grad / 2}, f"{folder}/result.pt")
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("symmetric", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.slow
def test_two_gloo_processes_equal_one_with_the_joint_batch(tmp_path, symmetric):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    mp.spawn(_one_of_two, args=(port, str(tmp_path), symmetric), nprocs=2)
    result = torch.load(tmp_path / "result.pt", weights_only=True)
    weight = torch.eye(7, dtype=torch.float64, requires_grad=True)
    columns = [column @ weight for column in embeddings(3, batch=6, dtype=torch.float64)]
    joint = SimCSELoss(Counter(), symmetric=symmetric).compute_loss_from_embeddings(columns)
    joint.backward()
    torch.testing.assert_close(result["loss"], joint.detach())
    torch.testing.assert_close(result["gradient"], weight.grad)


def test_config_and_citation_are_there_for_the_model_card():
    loss = SimCSELoss(Counter(), temperature=0.1)
    assert loss.get_config_dict()["temperature"] == 0.1
    assert "gao2021simcse" in loss.citation
    assert copy.copy(loss.get_config_dict()).keys() >= {"similarity", "symmetric", "mini_batch_size"}

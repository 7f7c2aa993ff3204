from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

from distilface_st.modules import MultiLayerPooling
from distilface_st.modules.multi_layer_pooling import LAYER_SELECTIONS, resolve_layers

SENTENCES = ["the man is in the house", "a cat", "he was the king of a small country in the north , and not a good one"]


def hidden_states(layers=4, batch=3, tokens=5, width=8, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(batch, tokens, width, generator=generator).to(dtype) for _ in range(layers + 1))


def features(states, lengths=(5, 2, 3)):
    mask = (torch.arange(states[0].shape[1])[None] < torch.tensor(lengths)[:, None]).long()
    return {"all_layer_embeddings": states, "token_embeddings": states[-1], "attention_mask": mask}


def reference(states, mask, indices, reduction, mode):
    """The same pooling in float64 numpy, one sentence and one token at a time."""
    rows = []
    for i in range(len(mask)):
        tokens = []
        for t in range(int(mask[i].sum())):
            stack = np.stack([states[j][i, t].double().numpy() for j in indices])
            token = {"mean": stack.mean(0), "max": stack.max(0), "concat": stack.reshape(-1)}[reduction]
            tokens.append(token)
        tokens = np.stack(tokens)
        rows.append({"mean": tokens.mean(0), "max": tokens.max(0), "cls": tokens[0], "lasttoken": tokens[-1]}[mode])
    return np.stack(rows)


@pytest.mark.parametrize("selection", [*LAYER_SELECTIONS, [0, -1], [2, 1]])
@pytest.mark.parametrize("reduction", ["mean", "max", "concat"])
@pytest.mark.parametrize("mode", ["mean", "max", "cls", "lasttoken"])
def test_equals_an_independent_float64_evaluation(selection, reduction, mode):
    states = hidden_states()
    given_features = features(states)
    pooling = MultiLayerPooling(8, 4, layers=selection, layer_reduction=reduction, pooling_mode=mode)
    embedding = pooling(given_features)["sentence_embedding"]
    expected = reference(states, given_features["attention_mask"], pooling.layer_indices, reduction, mode)
    assert embedding.shape == (3, pooling.get_embedding_dimension())
    np.testing.assert_allclose(embedding.numpy(), expected, atol=1e-6)


def test_a_tuple_of_token_poolings_is_the_concatenation_of_each():
    states = hidden_states()
    both = MultiLayerPooling(8, 4, layer_reduction="concat", pooling_mode=("mean", "max"))
    each = [MultiLayerPooling(8, 4, layer_reduction="concat", pooling_mode=mode) for mode in ("mean", "max")]
    expected = torch.cat([pooling(features(states))["sentence_embedding"] for pooling in each], dim=1)
    assert both.get_embedding_dimension() == 2 * 4 * 8
    torch.testing.assert_close(both(features(states))["sentence_embedding"], expected)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 1000), padding=st.integers(1, 6), reduction=st.sampled_from(["mean", "max", "concat"]))
def test_padding_changes_nothing(seed, padding, reduction):
    states = hidden_states(seed=seed)
    padded = tuple(torch.nn.functional.pad(state, (0, 0, 0, padding), value=100.0) for state in states)
    pooling = MultiLayerPooling(8, 4, layer_reduction=reduction, pooling_mode=("mean", "max"))
    torch.testing.assert_close(
        pooling(features(padded))["sentence_embedding"], pooling(features(states))["sentence_embedding"]
    )


@settings(max_examples=50, deadline=None)
@given(order=st.permutations([0, 1, 2, 3, 4]), reduction=st.sampled_from(["mean", "max"]))
def test_the_order_of_layers_matters_to_concat_only(order, reduction):
    states = hidden_states()
    ordered = MultiLayerPooling(8, 4, layers=list(order), layer_reduction=reduction)
    sorted_ = MultiLayerPooling(8, 4, layers=[0, 1, 2, 3, 4], layer_reduction=reduction)
    torch.testing.assert_close(
        ordered(features(states))["sentence_embedding"], sorted_(features(states))["sentence_embedding"]
    )
    concat = MultiLayerPooling(8, 4, layers=list(order), layer_reduction="concat")
    first = concat(features(states))["sentence_embedding"][:, :8]
    alone = MultiLayerPooling(8, 4, layers=[order[0]])(features(states))["sentence_embedding"]
    torch.testing.assert_close(first, alone)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("reduction", ["mean", "max", "concat"])
def test_half_precision_rounds_once(dtype, reduction):
    states = hidden_states(layers=12, tokens=40, dtype=dtype)
    lengths = (40, 40, 40)
    pooling = MultiLayerPooling(8, 12, layers="all", layer_reduction=reduction)
    embedding = pooling(features(states, lengths))["sentence_embedding"]
    exact = pooling(features(tuple(state.double() for state in states), lengths))["sentence_embedding"]
    assert embedding.dtype == dtype
    torch.testing.assert_close(embedding, exact.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-6)


@pytest.mark.parametrize("reduction", ["mean", "max", "concat"])
@pytest.mark.parametrize("mode", ["mean", "max", "cls", "lasttoken", "weightedmean"])
def test_flattened_input_gives_what_padded_input_gives(reduction, mode):
    states, lengths = hidden_states(), (5, 2, 3)
    flat_states = tuple(torch.cat([state[i, :n] for i, n in enumerate(lengths)])[None] for state in states)
    offsets = torch.tensor([0, 5, 7, 10])
    flat = {"all_layer_embeddings": flat_states, "token_embeddings": flat_states[-1], "cu_seq_lens_q": offsets}
    pooling = MultiLayerPooling(8, 4, layer_reduction=reduction, pooling_mode=mode)
    torch.testing.assert_close(pooling(flat)["sentence_embedding"], pooling(features(states))["sentence_embedding"])


def test_prompt_tokens_are_left_out_when_asked():
    states = hidden_states()
    without = MultiLayerPooling(8, 4, include_prompt=False)(features(states) | {"prompt_length": 2})
    rest = tuple(state[:, 2:] for state in states)
    expected = MultiLayerPooling(8, 4)(features(rest, (3, 0, 1)))
    rows = [0, 2]  # sentence 1 consists of the prompt alone
    torch.testing.assert_close(without["sentence_embedding"][rows], expected["sentence_embedding"][rows])


def test_hidden_states_are_turned_on_and_the_last_layer_equals_stock_pooling(tiny_encoder):
    encoder = Transformer(str(tiny_encoder))
    stock = SentenceTransformer(modules=[encoder, Pooling(32)], device="cpu").encode(SENTENCES)
    assert not encoder.config.output_hidden_states
    ours = SentenceTransformer(modules=[encoder, MultiLayerPooling(32, 4, layers="last")], device="cpu")
    assert encoder.config.output_hidden_states
    np.testing.assert_allclose(ours.encode(SENTENCES), stock, atol=1e-6)


def test_missing_hidden_states_are_an_error_that_says_what_to_do(tiny_encoder):
    model = SentenceTransformer(modules=[Transformer(str(tiny_encoder))], device="cpu")
    model.append(MultiLayerPooling(32, 4))
    with pytest.raises(ValueError, match=r"found no hidden states.*output_hidden_states = True"):
        model.encode(SENTENCES)


def test_an_encoder_of_another_depth_is_refused(tiny_encoder):
    with pytest.raises(ValueError, match="made for 6 hidden layers, but the encoder has 4"):
        SentenceTransformer(modules=[Transformer(str(tiny_encoder)), MultiLayerPooling(32, 6)], device="cpu")
    with pytest.raises(ValueError, match="made for 6 hidden layers, but the encoder gave 4"):
        MultiLayerPooling(8, 6)(features(hidden_states(layers=4)))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([5], "layer 5 is out of range for 4 hidden layers; allowed are -5 to 4"),
        ([-6], "layer -6 is out of range for 4 hidden layers; allowed are -5 to 4"),
        ([4, -1], "selects a layer twice; allowed are -5 to 4"),
        ([1, 1], "selects a layer twice; allowed are -5 to 4"),
        ([], "layers is empty.*allowed are -5 to 4"),
        ("middle", "'middle': allowed are the names last, .*from -5 to 4"),
        ([1.5], "1.5, which is not a whole number; allowed are -5 to 4"),
        ([True], "True, which is not a whole number"),
    ],
)
def test_bad_selections_name_the_allowed_range(layers, message):
    with pytest.raises(ValueError, match=message):
        MultiLayerPooling(8, 4, layers=layers)


def test_named_selections_deeper_than_the_encoder_are_refused():
    with pytest.raises(ValueError, match="'last_four' needs more layers than the encoder's 3"):
        resolve_layers("last_four", 3)
    with pytest.raises(ValueError, match="needs more layers than the encoder's 1"):
        resolve_layers("first_last", 1)


@pytest.mark.parametrize(
    ("name", "indices"),
    [
        ("last", (6,)),
        ("second_to_last", (5,)),
        ("all", (1, 2, 3, 4, 5, 6)),
        ("first_last", (1, 6)),
        ("last_two", (5, 6)),
        ("last_four", (3, 4, 5, 6)),
    ],
)
def test_names_mean_what_the_paper_means(name, indices):
    assert resolve_layers(name, 6) == indices


def test_unknown_reduction_and_pooling_mode_are_refused():
    with pytest.raises(ValueError, match="allowed are mean, max, concat"):
        MultiLayerPooling(8, 4, layer_reduction="sum")
    with pytest.raises(ValueError, match="Invalid pooling mode"):
        MultiLayerPooling(8, 4, pooling_mode="median")


@pytest.mark.parametrize("layers", ["all", [0, -1]])
def test_saves_and_loads(tmp_path, layers):
    pooling = MultiLayerPooling(8, 4, layers, "concat", ("mean", "cls"), include_prompt=False)
    pooling.save(str(tmp_path))
    loaded = MultiLayerPooling.load(str(tmp_path))
    assert loaded.get_config_dict() == pooling.get_config_dict()
    assert loaded.get_embedding_dimension() == pooling.get_embedding_dimension()


def test_gradients_reach_the_selected_layers_only():
    states = tuple(state.requires_grad_() for state in hidden_states())
    MultiLayerPooling(8, 4, layers=[1, 3])(features(states))["sentence_embedding"].sum().backward()
    assert [state.grad is not None for state in states] == [False, True, False, True, False]

"""Models that pool hidden states give the same embeddings as a copy, from a pickle, and in another process."""

from __future__ import annotations

import copy
import multiprocessing
import pickle

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer, WeightedLayerPooling
from torch import nn
from transformers.utils import output_capturing

from distilface_st.errors import InputError
from distilface_st.models.build import build_model
from distilface_st.models.load import load_model
from distilface_st.models.save import save_model
from distilface_st.modules import MultiLayerPooling

SENTENCES = ["the man is in the house", "a cat", "he was the king of a small country in the north"]


@pytest.fixture(params=["bert", "distilbert", "gpt2", "twin"])
def make(request, tiny_encoder, tiny_distilbert, tmp_path):
    """Builds a model that pools hidden states, the same again each time."""
    if request.param == "twin":  # what a mean over layers is saved as, in stock modules
        save_model(build_model(tiny_encoder, device="cpu"), tmp_path / "model")
        return lambda: load_model(tmp_path / "model", device="cpu")
    folder = tiny_distilbert if request.param == "distilbert" else tiny_encoder
    if request.param == "gpt2":  # its last hidden state is normalized once more
        folder = _gpt2(tiny_encoder, tmp_path / "gpt2")
    return lambda: build_model(folder, layers="last_two", device="cpu")


def _gpt2(tokenizer, folder):
    from transformers import AutoTokenizer, GPT2Config, GPT2Model

    tokenizer = AutoTokenizer.from_pretrained(tokenizer)
    torch.manual_seed(0)
    sizes = {"vocab_size": len(tokenizer), "n_positions": 64, "n_embd": 32, "n_layer": 3, "n_head": 4}
    GPT2Model(GPT2Config(**sizes, initializer_range=0.2)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("has_encoded", [False, True])
def test_a_pickle_opens_in_a_process_that_has_no_such_encoder_yet(make, has_encoded, monkeypatch):
    model, expected = make(), make().encode(SENTENCES)
    if has_encoded:  # transformers hangs functions that cannot be pickled on the layers
        model.encode(SENTENCES)
    for _ in range(2):  # what has arrived goes on
        pickled = pickle.dumps(model)
        empty = type(output_capturing._CAN_RECORD_REGISTRY)()
        for place in ("transformers.utils.output_capturing", "transformers.modeling_utils"):
            monkeypatch.setattr(f"{place}._CAN_RECORD_REGISTRY", empty)
        model = pickle.loads(pickled)
        np.testing.assert_array_equal(model.encode(SENTENCES), expected)


def test_a_copy_is_whole_and_apart(make):
    model = make()
    expected = model.encode(SENTENCES)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model[0].parameters():
            parameter.zero_()
    np.testing.assert_array_equal(twin.encode(SENTENCES), expected)
    assert [name for name, _ in twin.named_modules()] == [name for name, _ in model.named_modules()]
    assert not any(a is b for a, b in zip(twin.modules(), model.modules(), strict=True))


def test_hooks_of_others_and_shared_layers_travel(tiny_encoder):
    model = build_model(tiny_encoder, device="cpu")
    stack = model[0].model.encoder.layer
    stack[2] = stack[1]
    stack[0].register_forward_hook(_doubled)
    expected = model.encode(SENTENCES)
    arrived = pickle.loads(pickle.dumps(model))
    assert arrived[0].model.encoder.layer[2] is arrived[0].model.encoder.layer[1]
    np.testing.assert_array_equal(arrived.encode(SENTENCES), expected)


def _doubled(module, arguments, output):
    return output * 2


def test_the_stock_pooling_of_a_loaded_model_refuses_input_without_hidden_states(twin):
    model = copy.deepcopy(twin)
    assert isinstance(model[1], WeightedLayerPooling)
    model[0].config.output_hidden_states = False
    with pytest.raises(ValueError, match="WeightedLayerPooling found no hidden states"):
        model.encode(SENTENCES)


def test_a_folder_whose_encoder_gives_no_hidden_states_is_refused(tiny_encoder, tmp_path):
    layers = WeightedLayerPooling(32, 4, 1, nn.Parameter(torch.ones(4)))
    SentenceTransformer(modules=[Transformer(str(tiny_encoder)), layers, Pooling(32)]).save(str(tmp_path))
    with pytest.raises(InputError, match=r"hidden layers that its encoder's config\.json has not turned on"):
        load_model(tmp_path)


@pytest.fixture
def twin(tiny_encoder, tmp_path):
    save_model(build_model(tiny_encoder, device="cpu"), tmp_path / "model")
    return load_model(tmp_path / "model", device="cpu")


@pytest.mark.slow
def test_a_pool_of_processes_gives_the_same_embeddings(twin):
    expected = twin.encode(SENTENCES)
    pool = twin.start_multi_process_pool(["cpu"])
    try:
        np.testing.assert_allclose(twin.encode(SENTENCES, pool=pool, chunk_size=2), expected, atol=1e-6)
    finally:
        twin.stop_multi_process_pool(pool)


def _send_embeddings(model, connection):
    connection.send(model.encode(SENTENCES))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="there is no fork here")
def test_a_forked_process_gives_the_same_embeddings(twin):
    expected = twin.encode(SENTENCES)
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_send_embeddings, args=(twin, there), daemon=True)
    process.start()
    assert here.poll(60)
    np.testing.assert_allclose(here.recv(), expected, atol=1e-6)
    process.join()


def test_pooling_of_our_own_travels_alone():
    pooling = pickle.loads(pickle.dumps(MultiLayerPooling(8, 4, layers=[1, 3], layer_reduction="max")))
    assert (pooling.layer_indices, pooling.layer_reduction) == ((1, 3), "max")

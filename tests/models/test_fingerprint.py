from __future__ import annotations

import torch

from distilface_st.models.fingerprint import encoder_fingerprint, fingerprints_of, model_fingerprint


def test_fingerprints_of_weights_tell_them_apart_and_nothing_else():
    first, second = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    assert model_fingerprint(first) != model_fingerprint(second)
    second.load_state_dict(first.state_dict())
    assert model_fingerprint(first) == model_fingerprint(second)
    assert model_fingerprint(first.bfloat16()) != model_fingerprint(second)


def test_an_encoders_fingerprint_counts_whatever_decides_its_embeddings(packed, tiny_encoder):
    from distilface_st import EdgeEncoder, build_model

    first, second = EdgeEncoder(packed), EdgeEncoder(packed)
    assert encoder_fingerprint(first) == encoder_fingerprint(second)
    second.max_seq_length -= 1
    assert encoder_fingerprint(first) != encoder_fingerprint(second)
    assert fingerprints_of(first) & fingerprints_of(second), "version 0.1 did not count the longest input"
    second = EdgeEncoder(packed)
    second.prompts = {"query": "find: "}
    assert not fingerprints_of(first) & fingerprints_of(second)
    layers = {encoder_fingerprint(build_model(tiny_encoder, layers=name)) for name in ("last", "last_two", "all")}
    assert len(layers) == 3


def test_an_exported_model_is_the_same_however_it_is_opened_and_another_is_another(packed, exported):
    from distilface_st import EdgeEncoder, load_model

    opened = [encoder_fingerprint(load_model(folder, runtime="onnxruntime")) for folder in (packed, exported)]
    assert opened == [encoder_fingerprint(EdgeEncoder(folder)) for folder in (packed, exported)]
    assert opened[0] != opened[1]


def test_packed_models_of_the_same_weights_differ_by_their_pooling(tiny_encoder, tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    from distilface_st import EdgeEncoder, pack_model

    found = []
    for mode in ("mean", "cls"):
        modules = [Transformer(str(tiny_encoder)), Pooling(32, mode)]
        pack_model(SentenceTransformer(modules=modules, device="cpu"), tmp_path / mode)
        found.append(fingerprints_of(EdgeEncoder(tmp_path / mode)))
    assert not found[0] & found[1]


def test_an_encoder_without_weights_is_known_by_its_name():
    encoder = object()
    assert encoder_fingerprint(encoder, "a") != encoder_fingerprint(encoder, "b")

from __future__ import annotations

import copy
import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import semantic_search

from distilface_st import InputError, OnnxEncoder, load_model, save_model, sts_suite
from tests.export.test_export_model import scored_pairs

pytest.importorskip("onnxruntime")

SENTENCES = ["a small cat", "", "The government of the state was at war, and people walked.", "red"] * 12


@pytest.fixture(scope="module")
def opened(exported) -> SentenceTransformer:
    return load_model(exported, runtime="onnxruntime")


def test_it_is_a_sentence_transformer_that_gives_the_models_embeddings(tiny_model, opened):
    assert isinstance(opened, SentenceTransformer)
    np.testing.assert_allclose(opened.encode(SENTENCES), tiny_model.encode(SENTENCES), atol=1e-4)
    assert opened.encode("a cat").shape == (32,)
    assert opened.encode([]).shape == (0,)
    assert opened.encode("a cat", convert_to_tensor=True).dtype == torch.float32
    assert (opened.get_embedding_dimension(), opened.max_seq_length, str(opened.device)) == (32, 64, "cpu")


def test_openvino_results_are_not_overwritten_by_later_batches(tiny_model, exported):
    pytest.importorskip("openvino")
    found = load_model(exported, runtime="openvino").encode(SENTENCES, batch_size=4)
    expected = tiny_model.encode(SENTENCES)
    cosine = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() > 0.999  # OpenVINO may compute in bfloat16


@pytest.mark.parametrize(
    "options",
    [
        {"truncate_dim": 8},
        {"normalize_embeddings": True},
        {"prompt_name": "query"},
        {"prompt": "the "},
        {"batch_size": 5},
        {"truncate_dim": 8, "normalize_embeddings": True},
    ],
)
def test_encodes_options_work_as_in_torch(tiny_model, opened, options):
    np.testing.assert_allclose(opened.encode(SENTENCES, **options), tiny_model.encode(SENTENCES, **options), atol=1e-4)


@pytest.mark.parametrize("precision", ["int8", "uint8", "binary", "ubinary"])
def test_embeddings_can_be_quantized(opened, precision):
    found = opened.encode(SENTENCES, precision=precision)
    assert found.dtype == {"int8": np.int8, "uint8": np.uint8, "binary": np.int8, "ubinary": np.uint8}[precision]
    assert found.shape == (len(SENTENCES), 4 if "binary" in precision else 32)


def test_queries_similarity_and_evaluation_work(tiny_model, opened):
    queries = opened.encode_query(SENTENCES[:3])
    np.testing.assert_allclose(queries, tiny_model.encode_query(SENTENCES[:3]), atol=1e-4)
    found = opened.encode(SENTENCES[:3])
    assert opened.similarity(found, found).diagonal().numpy() == pytest.approx(1, abs=1e-5)
    assert [hits[0]["corpus_id"] for hits in semantic_search(found, opened.encode(SENTENCES[:3]), top_k=1)] == [0, 1, 2]
    ours, theirs = (sts_suite(model, tasks=[scored_pairs()])["scores"] for model in (opened, tiny_model))
    assert ours == pytest.approx(theirs, abs=0.1)


@pytest.mark.slow
def test_settings_of_the_model_travel_with_it(tiny_model, tmp_path):
    from distilface_st import EdgeEncoder, export_model

    model = copy.deepcopy(tiny_model)
    model.prompts, model.default_prompt_name = {"query": "the query of ", "document": "a "}, "document"
    model.truncate_dim, model.similarity_fn_name, model.max_seq_length = 16, "dot", 20
    export_model(model, tmp_path / "export")
    reopened = load_model(tmp_path / "export")
    assert (reopened.truncate_dim, reopened.similarity_fn_name, reopened.max_seq_length) == (16, "dot", 20)
    expected = model.encode(SENTENCES[:4])
    np.testing.assert_allclose(reopened.encode(SENTENCES[:4]), expected, atol=1e-4)
    np.testing.assert_allclose(EdgeEncoder(tmp_path / "export").encode(SENTENCES[:4]), expected, atol=1e-4)


def test_it_is_saved_and_opened_again(opened, tmp_path):
    save_model(opened, tmp_path / "saved")
    saved, exported = (
        json.loads((folder / "modules.json").read_text()) for folder in (tmp_path / "saved", opened[0].folder)
    )
    assert saved == exported  # the model's own list, which other software reads
    again = load_model(tmp_path / "saved", runtime="onnxruntime")
    np.testing.assert_array_equal(again.encode("a cat"), opened.encode("a cat"))


def test_copies_open_their_own_engine(opened):
    for twin in (copy.deepcopy(opened), pickle.loads(pickle.dumps(opened))):
        assert twin[0]._engine is None
        np.testing.assert_array_equal(twin.encode("a cat"), opened.encode("a cat"))


@pytest.mark.slow
def test_a_pool_of_processes_encodes(opened):
    found = opened.encode(SENTENCES, device=["cpu", "cpu"], chunk_size=10)
    np.testing.assert_allclose(found, opened.encode(SENTENCES), atol=1e-5)


def test_the_longest_input_can_be_shortened(exported):
    model = load_model(exported, runtime="onnxruntime")
    model.max_seq_length = 6
    np.testing.assert_allclose(model.encode("cat dog " * 40), model.encode("cat dog cat dog"), atol=1e-6)
    with pytest.raises(ValueError, match="1 to 64 tokens"):
        model.max_seq_length = 65


def test_what_is_no_string_is_refused(opened):
    for bad in ([3], ["a", None], [("a", "b")]):
        with pytest.raises((InputError, ValueError)):
            opened.encode(bad)


def test_threads_and_providers_reach_the_engine(exported):
    assert load_model(exported, runtime="onnxruntime", threads=1).encode("a cat").shape == (32,)
    with pytest.raises(InputError, match="no provider Teapot"):
        load_model(exported, runtime="onnxruntime", providers=["Teapot"])


def test_a_runtime_for_a_model_that_is_not_exported_is_refused(tiny_model, tmp_path):
    save_model(tiny_model, tmp_path / "model")
    with pytest.raises(InputError, match="is not an exported model, so it has no runtime"):
        load_model(tmp_path / "model", runtime="auto")


def test_an_export_in_a_subfolder_cannot_be_reached_from_outside(exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "copy")
    entries = json.loads((folder / "modules.json").read_text())
    entries[0]["path"] = "../elsewhere"
    (folder / "modules.json").write_text(json.dumps(entries))
    with pytest.raises(InputError, match="leads out of the model's folder"):
        load_model(folder)


def test_a_name_on_the_hub_is_downloaded_first(exported, opened, monkeypatch):
    asked = {}

    def snapshot_download(name, **kwargs):
        asked.update(kwargs, name=name)
        return str(exported)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    encoder = OnnxEncoder.load("owner/name", revision="v1", runtime="onnxruntime")
    assert (asked["name"], asked["revision"]) == ("owner/name", "v1")
    features = encoder(encoder.preprocess(["a cat"]))
    np.testing.assert_allclose(features["sentence_embedding"][0], opened.encode("a cat"), atol=1e-6)


def test_it_composes_by_hand(exported, opened):
    model = SentenceTransformer(modules=[OnnxEncoder(exported, "onnxruntime", threads=1)], device="cpu")
    np.testing.assert_allclose(model.encode("a cat"), opened.encode("a cat"), atol=1e-6)

"""What every room asks of an encoder: unit rows, token counts, prompts, and a name that lasts."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerFast, RobertaConfig, RobertaModel

from distilface_st import EdgeEncoder, InputError, build_model, encode_file, load_model, save_model
from distilface_st.models.encoders import (
    embedding_dimension,
    embeddings_of,
    lasting_name,
    longest_input,
    open_encoder,
    prompt_of,
    token_counter,
    unit_embeddings,
)
from distilface_st.models.fingerprint import encoder_fingerprint

from ..conftest import make_encoder


def test_embeddings_have_length_one_and_counts_are_the_tokenizers(tiny_encoder, tmp_path):
    save_model(build_model(tiny_encoder, device="cpu"), tmp_path / "model")
    for encoder in (open_encoder(tmp_path / "model"), open_encoder("distilface-micro")):
        found = unit_embeddings(encoder, ["The cat sleeps.", "Profits rose."])
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
        assert unit_embeddings(encoder, [], "document").shape == (0, embedding_dimension(encoder))
        assert token_counter(encoder)(["the cat", "the"]) == [2, 1]
    assert token_counter(EdgeEncoder())(["word " * 1000]) == [1000]


def test_queries_and_documents_get_their_prompts(tiny_model):
    for kind, prompt in (("query", "the query of "), ("document", "")):
        expected = tiny_model.encode(["x"], prompt=prompt, normalize_embeddings=True)
        np.testing.assert_allclose(unit_embeddings(tiny_model, ["x"], kind), expected, atol=1e-6)
    query, document = (unit_embeddings(tiny_model, ["x"], kind) for kind in ("query", "document"))
    assert np.abs(query - document).max() > 0.01


E5 = {"query": "the query of ", "document": "", "passage": "the house of "}
"""What sentence-transformers makes of a model that has prompts for queries and passages."""


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime"])
def test_documents_get_the_prompt_called_passage_where_there_is_no_other(tiny_encoder, runtime):
    encoder = EdgeEncoder("micro", "onnxruntime") if runtime != "torch" else build_model(tiny_encoder, device="cpu")
    encoder.prompts = E5
    for kind, name in (("query", "query"), ("document", "passage")):
        expected = encoder.encode(["war", "a car"], prompt=E5[name], normalize_embeddings=True)
        np.testing.assert_allclose(unit_embeddings(encoder, ["war", "a car"], kind), expected, atol=1e-5)
        np.testing.assert_allclose(unit_embeddings(encoder, ["war"], kind), expected[:1], atol=1e-2)


def test_the_order_of_prompts_is_that_of_sentence_transformers():
    encoder = EdgeEncoder("micro")
    encoder.prompts = {"corpus": "c: ", "passage": "p: ", "other": "o: "}
    encoder.default_prompt_name = "other"
    for method, prompts in ((encoder.encode_document, ["", "p: "]), (encoder.encode_query, ["o: ", ""])):
        other, right = (encoder.encode("war", prompt=prompt) for prompt in prompts)
        np.testing.assert_allclose(method("war"), right, atol=1e-5)
        assert np.abs(method("war") - other).max() > 1e-3
        np.testing.assert_allclose(method("war", prompt="x: "), encoder.encode("war", prompt="x: "), atol=1e-5)
        np.testing.assert_allclose(method("war", prompt_name="corpus"), encoder.encode("war", "corpus"), atol=1e-5)
    assert prompt_of("document", {"passage": "p", "document": "d"}) == "document"
    assert prompt_of("document", {"corpus": "", "document": ""}) == "document"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_does_not_leave_an_encoder(monkeypatch, value):
    encoder = EdgeEncoder("micro", "onnxruntime")
    run = encoder._engine.run

    def damaged(feeds):
        rows = run(feeds).copy()
        rows[:, 3] = value
        return rows

    class Plain:
        def encode(self, texts, **_):
            return np.full((len(texts), 4), value)

    monkeypatch.setattr(encoder._engine, "run", damaged)
    for call in (
        lambda: encoder.encode("the cat"),
        lambda: encoder.encode(["the cat"], precision="int8"),
        lambda: encoder.encode_query(["the cat"]),
        lambda: embeddings_of(Plain(), ["the cat"]),
        lambda: unit_embeddings(Plain(), ["the cat"], "document"),
    ):
        with pytest.raises(InputError, match=r"embedding of 'the cat' is not finite \(1 of 1 are so\)"):
            call()


def test_a_length_that_float32_cannot_hold_is_refused():
    class Huge:
        def encode(self, texts, **_):
            return np.full((len(texts), 4), 1e30)

    assert np.isfinite(embeddings_of(Huge(), ["x"])).all()
    with pytest.raises(InputError, match="not finite"), np.errstate(over="ignore"):
        unit_embeddings(Huge(), ["x"])


@pytest.mark.parametrize("pooling_mode", ["mean", "cls"])
def test_texts_without_any_token_have_zeros_in_torch_too(tmp_path, pooling_mode):
    folder = make_encoder(tmp_path / "encoder")
    backend = AutoTokenizer.from_pretrained(folder).backend_tokenizer
    backend.post_processor = TemplateProcessing(single="$A", special_tokens=[])
    PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", model_max_length=64).save_pretrained(folder)
    model = build_model(folder, pooling_mode=pooling_mode, device="cpu")
    expected = model.encode(["the cat", "a dog"])
    np.testing.assert_allclose(embeddings_of(model, ["the cat", "", "a dog", "\u200b"])[[0, 2]], expected, atol=1e-5)
    for texts in ([""], ["", "\u200b"], ["", "the cat"], ["the cat", ""]):
        found = unit_embeddings(model, texts, "document")
        assert found.shape == (len(texts), 32)
        np.testing.assert_array_equal(found.any(axis=1), [text == "the cat" for text in texts])
    (tmp_path / "texts.jsonl").write_text('{"text": ""}\n', encoding="utf-8")
    encode_file(model, tmp_path / "texts.jsonl", tmp_path / "texts.npy")
    assert not np.load(tmp_path / "texts.npy").any()
    model.prompts, model.default_prompt_name = {"query": "the king "}, "query"  # whose tokens make it a text
    assert embeddings_of(model, [""]).any()


def test_an_object_with_encode_alone_is_an_encoder():
    class Plain:
        def encode(self, texts, **_):
            return np.full((len(texts), 4), 3.0)

    np.testing.assert_allclose(unit_embeddings(Plain(), ["x", "y"], "query"), 0.5)
    assert embedding_dimension(Plain()) == 4
    assert token_counter(Plain())(["x" * 8]) == [3]


LONG = "the old king of the north " * 40  # 240 tokens
LIMITS = {"static": None, "endless": None, "roberta": 64, "dense": 64, "exported": 64}


def test_any_sentence_transformer_is_an_encoder(odd_model, request, tmp_path):
    longest = LIMITS[request.node.callspec.params["odd_model"]]
    assert longest_input(odd_model) == longest
    assert token_counter(odd_model)(["the cat", LONG, ""]) == [2, 240, 0]
    fingerprint = encoder_fingerprint(odd_model)
    together = unit_embeddings(odd_model, [LONG, "the cat"])
    assert encoder_fingerprint(odd_model) == fingerprint
    alone = unit_embeddings(odd_model, ["the cat"])
    np.testing.assert_allclose(together[1:], alone, atol=1e-5)
    head = " ".join(LONG.split()[: longest - 2]) if longest else LONG
    np.testing.assert_allclose(together[:1], unit_embeddings(odd_model, [head]), atol=1e-5)
    (tmp_path / "text.txt").write_text(f"{LONG}\nthe cat\n")
    encode_file(odd_model, tmp_path / "text.txt", tmp_path / "rows.npy", normalize_embeddings=True)
    np.testing.assert_allclose(np.load(tmp_path / "rows.npy"), together, atol=1e-5)
    save_model(odd_model, tmp_path / "model")
    opened = open_encoder(tmp_path / "model", device="cpu")
    np.testing.assert_allclose(unit_embeddings(opened, [LONG, "the cat"]), together, atol=1e-5)
    said = f"| Longest input | {f'{longest} tokens' if longest else 'no limit'} |"
    assert said in (tmp_path / "model" / "README.md").read_text()


def test_a_folder_that_states_more_than_its_positions_is_cut_where_they_end(tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    vocabulary = len(AutoTokenizer.from_pretrained(make_encoder(tmp_path)))
    RobertaModel(RobertaConfig(**sizes, vocab_size=vocabulary, max_position_embeddings=34)).save_pretrained(tmp_path)
    built = build_model(tmp_path, layers="last_two", device="cpu")
    save_model(built, tmp_path / "model")
    settings = tmp_path / "model" / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"model_max_length": 34}))
    for model in (built, load_model(tmp_path / "model", device="cpu")):
        assert model.max_seq_length == 32
        assert model.encode(LONG).shape == (32,)


def test_what_embeds_no_batches_of_text_is_refused_in_one_line(unfit_model, tmp_path):
    model, message = unfit_model
    with pytest.raises(InputError, match=message):
        unit_embeddings(model, ["the cat"])
    with pytest.raises(InputError, match=message):
        build_model(model)
    model.save(str(tmp_path))
    with pytest.raises(InputError, match=message):
        load_model(tmp_path, device="cpu")


def test_names_that_last():
    assert lasting_name("micro") == "distilface-micro"
    with pytest.raises(InputError, match="not an exported model"):
        open_encoder("bundled", runtime="onnxruntime")

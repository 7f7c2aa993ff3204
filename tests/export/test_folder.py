from __future__ import annotations

import copy
from dataclasses import replace

import pytest

from distilface_st import InputError, build_model
from distilface_st.export.folder import _long_probes, new_manifest, save_tokenizer
from distilface_st.export.sentence_graph import SentenceGraph
from distilface_st.inference.tokenization import TOKENIZER, SentenceTokenizer

LONG = " ".join(map(str, range(100)))


@pytest.fixture
def model(tiny_distilbert):
    return build_model(tiny_distilbert, layers="last", device="cpu")


def tokenizer_of(model, folder, **changes) -> SentenceTokenizer:
    """The tokenizer as it is exported, with what the manifest says of it changed."""
    manifest = replace(new_manifest(model, SentenceGraph(model), "fp32", None, None), **changes)
    save_tokenizer(model, folder, manifest)
    return SentenceTokenizer(folder, manifest)


@pytest.mark.parametrize(("truncation_side", "padding_side"), [("left", "left"), ("left", "right"), ("right", "left")])
@pytest.mark.parametrize("limit", [64, 3])
def test_sides_and_limits_are_those_of_the_model(model, tmp_path, truncation_side, padding_side, limit):
    model.tokenizer.truncation_side, model.tokenizer.padding_side = truncation_side, padding_side
    model.max_seq_length = limit
    found = tokenizer_of(model, tmp_path)
    texts = [LONG, "a cat", *_long_probes(found.tokenizer, limit)]
    expected = model.preprocess(texts)
    for ours, theirs in zip(found.pad(found.ids(texts)), ("input_ids", "attention_mask"), strict=True):
        assert ours.tolist() == expected[theirs].tolist()


@pytest.mark.parametrize("limit", [4, 60])
def test_probes_lie_at_the_limit_and_differ_wherever_they_are_cut(model, limit):
    tokenizer = copy.deepcopy(model.tokenizer.backend_tokenizer)
    tokenizer.no_truncation()
    probes = _long_probes(tokenizer, limit)
    counts = {len(tokenizer.encode(probe).ids) for probe in probes}
    assert {limit, limit + 1} <= counts
    ids = tokenizer.encode(probes[-1], add_special_tokens=False).ids
    assert len(ids) >= 2 * limit
    windows = {tuple(ids[start : start + limit]) for start in range(len(ids) - limit)}
    assert len(windows) == len(ids) - limit


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"padding_side": "left"}, "pads differently"),
        ({"pad_token_id": 1}, "pads differently"),
        ({"max_seq_length": 63}, "reads .* differently"),
    ],
)
def test_what_would_be_lost_is_seen(model, tmp_path, changes, message):
    if "max_seq_length" in changes:  # of which the manifest says less than the model does
        preprocess = model.preprocess
        model.preprocess = lambda texts, max_length=None, **options: preprocess(texts, **options)
    with pytest.raises(InputError, match=message):
        tokenizer_of(model, tmp_path, **changes)


def test_a_tokenizer_that_cuts_at_the_other_end_is_seen(model, tmp_path, monkeypatch):
    model.tokenizer.truncation_side = "left"
    monkeypatch.setattr(SentenceTokenizer, "max_seq_length", property(lambda self: 64, cut_at_the_right))
    with pytest.raises(InputError, match="differently"):
        tokenizer_of(model, tmp_path)


def cut_at_the_right(tokenizer, limit):
    tokenizer.tokenizer.enable_truncation(limit)


@pytest.mark.parametrize("setting", ["query_length", "document_length"])
def test_a_model_that_cuts_queries_and_documents_differently_is_refused(model, tmp_path, setting):
    setattr(model[0], setting, 8)
    with pytest.raises(InputError, match="queries and documents differently"):
        tokenizer_of(model, tmp_path)


def test_lower_casing_and_special_tokens_go_along(model, tmp_path):
    from tokenizers.normalizers import Sequence, Strip
    from tokenizers.processors import TemplateProcessing

    backend = model.tokenizer.backend_tokenizer
    backend.normalizer = Sequence([Strip()])  # without lower-casing
    backend.post_processor = TemplateProcessing(single="[SEP] $A", special_tokens=[("[SEP]", 3)])
    found = tokenizer_of(model, tmp_path)
    for text in ("A Cat", "a cat", "[MASK] [SEP]"):
        assert found.ids_of_one(text) == model.preprocess([text])["input_ids"][0].tolist()
    assert found.ids_of_one("a cat") != found.ids_of_one("A Cat")


def test_prompts_are_counted_as_the_model_counts_them(model, tmp_path, monkeypatch):
    model.prompts = {"query": "the query of ", "odd": "a [SEP]"}
    tokenizer_of(model, tmp_path)
    monkeypatch.setattr(SentenceTokenizer, "prompt_length", lambda self, prompt: 1)
    with pytest.raises(InputError, match="prompt 'the query of ' cannot be exported"):
        tokenizer_of(model, tmp_path)


def test_the_file_holds_the_side_where_text_is_cut_and_no_padding(model, tmp_path):
    import json

    model.tokenizer.truncation_side = "left"
    tokenizer_of(model, tmp_path)
    content = json.loads((tmp_path / TOKENIZER).read_text(encoding="utf-8"))
    assert (content["truncation"]["direction"], content["padding"]) == ("Left", None)

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distilface_st.sweep.tokens import SharedTokens

WORDS = st.lists(st.sampled_from(["the", "cat", "king", "Zürich", "x1", ""]), max_size=12).map(" ".join)


def equal(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]) if torch.is_tensor(value) else value == second[name]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batches=st.lists(st.lists(WORDS, min_size=1, max_size=5), min_size=1, max_size=4), length=st.sampled_from([4, 64])
)
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_text_looked_up_is_as_if_tokenized_now(tiny_model, batches, length, side):
    tiny_model.tokenizer.padding_side = side
    try:
        expected = [tiny_model.preprocess(batch, max_length=length) for batch in batches]
        with SharedTokens().used_by(tiny_model):
            for _ in range(2):
                for batch, features in zip(batches, expected, strict=True):
                    equal(tiny_model.preprocess(batch, max_length=length), features)
    finally:
        tiny_model.tokenizer.padding_side = "right"


def test_a_text_is_tokenized_once_prompts_and_what_does_not_fit_each_time(tiny_model, monkeypatch):
    seen = []
    original = tiny_model.preprocess
    monkeypatch.setattr(
        tiny_model, "preprocess", lambda texts, **options: seen.append(texts) or original(texts, **options)
    )
    tokens = SharedTokens(most=3)
    with tokens.used_by(tiny_model):
        tiny_model.preprocess(["a cat", "a dog", "a cat"])
        tiny_model.preprocess(["a dog", "the war"])
        tiny_model.preprocess(["a king", "a cat"])
        tiny_model.preprocess(["a cat"], prompt="query: ")
    assert seen == [["a cat", "a dog"], ["the war"], ["a king", "a cat"], ["a cat"]]

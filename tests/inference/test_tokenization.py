from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilface_st.inference.manifest import read_manifest
from distilface_st.inference.tokenization import SentenceTokenizer

ROWS = st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=12), min_size=1, max_size=8)


@pytest.fixture(scope="module")
def tokenizers(exported):
    manifest = read_manifest(exported)
    return {
        side: SentenceTokenizer(exported, replace(manifest, padding_side=side, pad_token_id=0))
        for side in ("right", "left")
    }


@pytest.mark.parametrize("side", ["right", "left"])
@given(rows=ROWS)
def test_padding_fills_one_side_up_to_the_longest_row(tokenizers, side, rows):
    ids, mask = tokenizers[side].pad(rows)
    longest = max(map(len, rows))
    assert ids.shape == mask.shape == (len(rows), longest)
    assert ids.dtype == mask.dtype == np.int64
    for row, found, real in zip(rows, ids.tolist(), mask.tolist(), strict=True):
        blank = [0] * (longest - len(row))
        assert found == (row + blank if side == "right" else blank + row)
        assert real == ([1] * len(row) + blank if side == "right" else blank + [1] * len(row))


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=60), min_size=1, max_size=6))
def test_ids_are_those_of_the_models_own_tokenizer(tokenizers, tiny_model, texts):
    expected = tiny_model.tokenizer(texts, truncation=True, max_length=64)["input_ids"]
    assert tokenizers["right"].ids(texts) == expected
    assert [tokenizers["right"].ids_of_one(text) for text in texts] == expected


def test_a_prompts_length_leaves_out_the_token_at_its_end(tokenizers):
    assert tokenizers["right"].prompt_length("the cat") == 3
    assert tokenizers["right"].ids_of_one("the cat")[:3] == tokenizers["right"].ids_of_one("the cat is red")[:3]

from __future__ import annotations

import json
import re
from functools import cache

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, BertTokenizerFast, PreTrainedTokenizerFast

from distilface_st import InputError
from distilface_st.distillation.vocabulary import trim_vocabulary
from tests.conftest import COMMON_WORDS

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = [*"abcdefghijklmnopqrstuvwxyz"]
PIECES = [*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
WORDS = ["king", "kings", "##s", "##ing", "walk", "##ed", "sing", "queen", "##een", "the"]
TEXTS = ["the king sings", "the king walked", "the queen"]


def vocabulary_of(pieces: list[str]) -> dict[str, int]:
    return {token: index for index, token in enumerate(dict.fromkeys(pieces))}


def bert(pieces: list[str]) -> BertTokenizerFast:
    return BertTokenizerFast(vocab=vocabulary_of(pieces), do_lower_case=True)


def backend(pieces: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocabulary_of(pieces), unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def tokens(tokenizer, text: str) -> list[str]:
    return tokenizer.backend_tokenizer.encode(text).tokens


@cache
def trimmed_minilm(folder, size: int):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer, *trim_vocabulary(tokenizer, COMMON_WORDS, size)


def test_what_is_frequent_is_kept_and_what_is_rare_is_not():
    tokenizer = bert([*PIECES, *WORDS])
    trimmed, kept = trim_vocabulary(tokenizer, TEXTS, len(PIECES) + 2)
    old = tokenizer.convert_ids_to_tokens(kept.tolist())
    assert set(old) - set(PIECES) == {"the", "king"}
    assert trimmed.convert_ids_to_tokens(range(len(trimmed))) == old


def test_ties_and_tokens_never_seen_go_by_the_old_id():
    tokenizer = bert([*PIECES, "zebra", "yak", "ox", "ant"])
    _, kept = trim_vocabulary(tokenizer, ["ox yak", "ox yak", "a"], len(PIECES) + 3)
    assert set(tokenizer.convert_ids_to_tokens(kept.tolist())) - set(PIECES) == {"yak", "ox", "zebra"}


def test_kept_are_the_old_ids_in_ascending_order():
    tokenizer = bert([*PIECES, *WORDS])
    trimmed, kept = trim_vocabulary(tokenizer, TEXTS, len(PIECES) + 3)
    assert kept.dtype == np.int64
    assert kept.shape == (len(PIECES) + 3,) == (len(trimmed),)
    assert (np.diff(kept) > 0).all()
    ids = trimmed(TEXTS[0])["input_ids"]
    assert kept[ids].tolist() == tokenizer.convert_tokens_to_ids(trimmed.convert_ids_to_tokens(ids))


def test_texts_are_counted_whole_and_without_special_tokens():
    tokenizer = bert([*PIECES, *WORDS])
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=9)
    _, kept = trim_vocabulary(tokenizer, ["a a a queen queen"], len(PIECES) + 1)
    assert tokenizer.convert_tokens_to_ids("queen") in kept


def test_many_texts_are_read_once_from_an_iterator():
    tokenizer = bert([*PIECES, *WORDS])
    texts = iter(["king"] * 1500 + ["queen"] * 1600)
    _, kept = trim_vocabulary(tokenizer, texts, len(PIECES) + 1)
    assert set(tokenizer.convert_ids_to_tokens(kept.tolist())) - set(PIECES) == {"queen"}
    assert list(texts) == []


@pytest.mark.parametrize("size", [len(PIECES) + len(WORDS) - 1, 1_000_000])
def test_a_size_that_is_large_enough_changes_nothing(size):
    tokenizer = bert([*PIECES, *WORDS])  # "##s" is in both
    trimmed, kept = trim_vocabulary(tokenizer, TEXTS, size)
    assert trimmed is tokenizer
    assert kept.tolist() == list(range(len(PIECES) + len(WORDS) - 1))


def test_the_tokenizer_given_is_not_changed():
    tokenizer = bert([*PIECES, *WORDS])
    before = tokenizer.backend_tokenizer.to_str()
    trim_vocabulary(tokenizer, TEXTS, len(PIECES))
    assert tokenizer.backend_tokenizer.to_str() == before


def test_a_size_that_is_too_small_is_refused_with_the_least_one():
    tokenizer = bert([*PIECES, *WORDS])
    with pytest.raises(InputError, match=f"too small: {len(PIECES)} must be kept"):
        trim_vocabulary(tokenizer, TEXTS, len(PIECES) - 1)
    assert len(trim_vocabulary(tokenizer, TEXTS, len(PIECES))[0]) == len(PIECES)


def test_another_kind_of_vocabulary_is_refused_by_name():
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"a": 0, "b": 1}, [])))
    with pytest.raises(InputError, match=r"that of \w+ is BPE"):
        trim_vocabulary(tokenizer, TEXTS, 1)


def test_a_slow_tokenizer_is_refused():
    with pytest.raises(InputError, match="dict is not a fast tokenizer"):
        trim_vocabulary({}, TEXTS, 1)


def test_something_that_is_no_string_is_refused():
    with pytest.raises(InputError, match="Sentence 1 is of type int"):
        trim_vocabulary(bert([*PIECES, *WORDS]), ["king", 7], len(PIECES))


def test_special_tokens_padding_and_truncation_keep_their_meaning():
    order = [*WORDS, *PIECES]  # so that special tokens get new ids
    tokenizer = bert(order)
    tokenizer.backend_tokenizer.enable_truncation(5)
    tokenizer.backend_tokenizer.enable_padding(
        length=7, pad_id=tokenizer.pad_token_id, pad_token=tokenizer.pad_token, direction="left"
    )
    tokenizer.model_max_length = 48
    trimmed, kept = trim_vocabulary(tokenizer, TEXTS, len(PIECES) + 1)
    assert type(trimmed) is type(tokenizer)
    assert trimmed.model_max_length == 48
    assert trimmed.backend_tokenizer.truncation == tokenizer.backend_tokenizer.truncation
    for name in ("pad", "unk", "cls", "sep", "mask"):
        old, new = getattr(tokenizer, f"{name}_token_id"), getattr(trimmed, f"{name}_token_id")
        assert new != old
        assert kept[new] == old
    assert tokens(trimmed, "the a b c d e") == ["[PAD]", "[PAD]", "[CLS]", "the", "a", "b", "[SEP]"]
    assert (
        kept[trimmed.backend_tokenizer.encode("the a").ids].tolist() == tokenizer.backend_tokenizer.encode("the a").ids
    )
    pair = trimmed("the", "the")
    assert trimmed.convert_ids_to_tokens(pair["input_ids"]) == ["[CLS]", "the", "[SEP]", "the", "[SEP]"]


def test_added_tokens_are_kept():
    tokenizer = bert([*PIECES, *WORDS])
    tokenizer.add_tokens(["<name>"])
    trimmed, kept = trim_vocabulary(tokenizer, TEXTS, len(PIECES) + 1)
    assert kept[-1] == tokenizer.convert_tokens_to_ids("<name>")
    assert tokens(trimmed, "a<name>b") == ["[CLS]", "a", "<name>", "b", "[SEP]"]


@pytest.mark.parametrize(
    "processor",
    [
        processors.BertProcessing(("[SEP]", 1), ("[CLS]", 0)),
        processors.Sequence([processors.ByteLevel(), processors.BertProcessing(("[SEP]", 1), ("[CLS]", 0))]),
    ],
)
def test_other_post_processors_are_renumbered(processor):
    raw = backend(["zzz", "[CLS]", "[SEP]", *PIECES, "king"])
    state = json.loads(processor.__getstate__())
    for part in [state, *state.get("processors", [])]:
        if "sep" in part:
            part |= {"sep": ["[SEP]", 2], "cls": ["[CLS]", 1]}
    whole = json.loads(raw.to_str()) | {"post_processor": state}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(whole)))
    trimmed, kept = trim_vocabulary(tokenizer, ["king"], len(PIECES) + 1)
    assert tokenizer.convert_tokens_to_ids("zzz") not in kept
    ids = trimmed.backend_tokenizer.encode("king zzz").ids
    assert trimmed.convert_ids_to_tokens(ids) == ["[CLS]", "king", "z", "##z", "##z", "[SEP]"]


def test_it_reloads_from_its_folder_and_without_transformers(tmp_path):
    trimmed, _ = trim_vocabulary(bert([*WORDS, *PIECES]), TEXTS, len(PIECES) + 2)
    trimmed.save_pretrained(tmp_path)
    text = "the king walks, queens sing"
    for reloaded in (AutoTokenizer.from_pretrained(tmp_path), type(trimmed).from_pretrained(tmp_path)):
        assert reloaded(text) == trimmed(text)
        assert reloaded.get_vocab() == trimmed.get_vocab()
        assert reloaded.all_special_ids == trimmed.all_special_ids
    assert Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(text).ids == trimmed(text)["input_ids"]


def test_a_token_with_a_character_of_no_own_is_kept():
    pieces = [token for token in PIECES if token not in ("##q", "z")]
    tokenizer = bert([*pieces, "zoo", "iraq", "king"])  # "z" and "##q" are nowhere else
    trimmed, kept = trim_vocabulary(tokenizer, ["king"], len(pieces) + 2)
    assert set(tokenizer.convert_ids_to_tokens(kept.tolist())) - set(pieces) == {"zoo", "iraq"}
    assert tokens(trimmed, "iraq zoo king")[1:-1] == ["iraq", "zoo", "k", "##i", "##n", "##g"]


def test_a_token_that_could_end_within_one_that_cannot_be_split_is_dropped():
    pieces = [token for token in PIECES if token != "##q"]
    tokenizer = bert([*pieces, "ab", "##bx", "##xyq"])
    assert tokens(tokenizer, "abxyq")[1:-1] == ["ab", "##xyq"]
    trimmed, kept = trim_vocabulary(tokenizer, ["cbx cbx ab"], len(pieces) + 2)  # "##bx" would leave y and q behind
    assert set(tokenizer.convert_ids_to_tokens(kept.tolist())) - set(pieces) == {"ab", "##xyq"}
    trimmed, _ = trim_vocabulary(tokenizer, [], len(pieces) + 1)
    assert tokens(trimmed, "abxyq")[1:-1] == ["a", "##b", "##xyq"]


def test_a_vocabulary_that_cannot_be_trimmed_safely_is_refused():
    pieces = [token for token in PIECES if token != "##q"]
    with pytest.raises(InputError, match="what follows '##qx' could become unknown"):
        trim_vocabulary(bert([*pieces, "ab", "##qx", "##xyq"]), [], len(pieces) + 2)


SINGLE = ["a", "b", "c", "##a", "##b", "##c"]
bodies = st.text("abc", min_size=2, max_size=3)
longer = st.lists(st.tuples(st.sampled_from(["", "##"]), bodies).map("".join), min_size=1, max_size=12, unique=True)


@st.composite
def vocabularies_and_words(draw):
    """Some of the single characters, longer tokens, and words put together from both."""
    missing = draw(st.sets(st.sampled_from(SINGLE), max_size=1))
    pieces = [token for token in [*SINGLE, *draw(longer)] if token not in missing]
    joined = st.lists(st.sampled_from(pieces), min_size=1, max_size=4).map("".join)
    words = st.lists(joined.map(lambda word: word.replace("##", "")), min_size=1, max_size=10)
    return pieces, draw(words), draw(words)


@settings(max_examples=300, deadline=None)
@example((["a", "b", "##a", "##b", "ab", "##ba", "##acb"], ["bba", "bba"], ["abacb"]), 1)
@given(vocabularies_and_words(), st.integers(0, 6))
def test_any_vocabulary_trimmed_splits_covered_words_alike_and_makes_none_unknown(given_words, more):
    pieces, seen, others = given_words
    tokenizer = backend(["[UNK]", *pieces])
    trimmed, kept = trimmed_or_discard(tokenizer, [" ".join(seen)], more)
    names = {tokenizer.id_to_token(int(old)) for old in kept}
    for word in (*seen, *others):
        before, after = tokenizer.encode(word).tokens, trimmed.encode(word).tokens
        if "[UNK]" not in before:
            assert "[UNK]" not in after
            assert after == before or not names.issuperset(before)


def trimmed_or_discard(tokenizer: Tokenizer, texts: list[str], more: int):
    """With ``more`` tokens than must be kept; vocabularies that are refused are no examples."""
    whole = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    with pytest.raises(InputError, match=r"is too small|cannot be trimmed") as refusal:
        trim_vocabulary(whole, texts, 0)
    least = re.search(r"small: (\d+) must", str(refusal.value))
    assume(least is not None)
    trimmed, kept = trim_vocabulary(whole, texts, int(least[1]) + more)
    return trimmed.backend_tokenizer, kept


@settings(max_examples=50, deadline=None)
@given(text=st.text(max_size=60))
def test_no_text_loses_anything_in_the_real_vocabulary(minilm, text):
    tokenizer, trimmed, kept = trimmed_minilm(minilm, 4000)
    before, after = tokens(tokenizer, text), tokens(trimmed, text)
    assert after.count("[UNK]") == before.count("[UNK]")
    if set(tokenizer.convert_tokens_to_ids(before)) <= set(kept.tolist()):
        assert after == before


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(COMMON_WORDS), max_size=20).map(" ".join))
def test_covered_text_stays_as_it_is_in_the_real_vocabulary(minilm, text):
    tokenizer, trimmed, kept = trimmed_minilm(minilm, 4000)
    ids = tokenizer.backend_tokenizer.encode(text).ids
    assert kept[trimmed.backend_tokenizer.encode(text).ids].tolist() == ids


def test_the_real_vocabulary_has_the_size_that_was_asked_for(minilm):
    _, trimmed, kept = trimmed_minilm(minilm, 4000)
    assert len(trimmed) == len(kept) == 4000

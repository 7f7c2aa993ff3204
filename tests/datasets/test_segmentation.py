"""Sentences are found where a reader would find them, and no character is lost."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilface_st.datasets.segmentation import cut_points, split_sentences


@pytest.mark.parametrize(
    "sentences",
    [
        ["It rained.", "We stayed at home!", "Why?", "Nobody knows."],
        ["Dr. Smith met Mrs. Jones on St. Helena.", "They talked."],
        ["J. R. R. Tolkien wrote it.", "C. S. Lewis read it."],
        ["It was named by J. A. Lestage in 1940."],
        ["It cost 3.5 million in 1990.", "2 years later it cost 4.1."],
        ["See No. 5 and Fig. 3 of vol. 2, pp. 10 to 12.", "Then stop."],
        ["The answer was no.", "He left."],
        ["She was born on Jan. 3 in Rome.", "Her brother was older."],
        ["He works at Acme Inc. in Boston.", "He likes it."],
        ["He works at Acme Inc.", "He likes it."],
        ["The U.S. Army came at 5 a.m. and left.", "It was cold."],
        ["They live in the U.S.", "The house is small."],
        ["King Charles X.", "The famed tenor sang."],
        ['"Is it late?"', '"It is."', "They went (at last.)", "Nobody saw them."],
        ["He said “Go.”", "“Where?” she asked."],
        ["Wait ... is that so?", "It seems…", "Well."],
        ["Really?!", "Yes."],
        ["It has e.g. cats, dogs, etc. and birds, i.e. Animals, cf. Brown et al. 2019."],
        ["Élodie est là.", "Über alles."],
        ["Это дом.", "Это кот."],
        ["It fell to a low.", "$5 was the price."],
        ["1. First do this.", "2. Then do that."],
        ["see www.example.com or file.txt for more"],
    ],
)
def test_sentence_ends_are_found(sentences):
    assert split_sentences(" ".join(sentences)) == sentences


@pytest.mark.parametrize(
    "sentences",
    [
        ["今天下雨。", "我们在家！", "为什么？", "没人知道……好的。"],
        ["他说：“走吧。”", "然后离开了。"],
        ["好吗?", "很好!", "版本3.5发布了。"],
        ["価格は３．５円です．", "次に進む．"],
        ["「行くよ！」", "と彼は言った。", "Ｕ．Ｓ．です"],
        ["मैं घर गया।", "वह आया।", "क्यों?"],
        ["هل أنت بخير؟", "وداعا۔"],
        ["ሰላም።", "እንዴት ነህ።"],
    ],
)
@pytest.mark.parametrize("space", ["", " "])
def test_sentence_ends_of_other_scripts_need_no_white_space(sentences, space):
    assert split_sentences(space.join(sentences)) == sentences


def test_words_are_cut_at_graphemes_last():
    assert cut_points("one two") == (["one", "two"], " ")
    assert cut_points("我们iPhone15カタカナ") == (["我", "们", "iPhone15", "カタカナ"], "")
    assert cut_points("e\u0301" * 3) == (["e\u0301"] * 3, "")
    assert cut_points("👨‍👩‍👧👍🏽กำ") == (["👨‍👩‍👧", "👍🏽", "ก", "ำ"], "")


@pytest.mark.parametrize("text", ["", "  \n\t "])
def test_blank_text_has_no_sentences(text):
    assert split_sentences(text) == []


def test_line_breaks_are_white_space():
    assert split_sentences("It\nrained.\nWe slept.") == ["It\nrained.", "We slept."]


@given(
    st.text(alphabet=st.one_of(st.sampled_from('.!?…"”)(’ \n。！中．AaDr1'), st.characters(exclude_categories=["Cs"])))
)
def test_no_character_but_white_space_is_lost(text):
    sentences = split_sentences(text)
    assert "".join("".join(sentences).split()) == "".join(text.split())
    assert all(sentence and sentence == sentence.strip() for sentence in sentences)


@pytest.mark.parametrize(
    "text",
    [
        *("." * 200_000, ". " * 100_000, "a. " + "(" * 200_000, "a." + ")" * 200_000, "a." + " " * 200_000),
        *("。" * 200_000, "。 " * 100_000, "。!" * 100_000 + "」" * 200_000, "中" * 200_000, "中." * 100_000),
    ],
)
def test_time_is_linear_in_strange_text(text):
    start = time.perf_counter()
    split_sentences(text)
    assert time.perf_counter() - start < 2

"""Splitting: nothing lost, nothing over budget, whole sentences."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilface_st import InputError
from distilface_st.datasets.segmentation import cut_points
from distilface_st.search.documents import PassageSplitter
from distilface_st.search.hits import Document


def words(texts):
    return [len(text.split()) for text in texts]


@given(
    st.lists(st.lists(st.sampled_from("cat dog sun sea sky".split()), min_size=1, max_size=30), max_size=12),
    st.integers(8, 24),
)
def test_every_word_is_kept_in_order_and_no_passage_is_over_budget(sentences, budget):
    text = " ".join(" ".join(sentence).capitalize() + "." for sentence in sentences)
    found = PassageSplitter(words, budget, 0)([Document("d", text)])
    assert [passage.number for passage in found] == list(range(len(found)))
    assert " ".join(passage.text for passage in found).split() == text.split()
    assert all(words([passage.text])[0] <= budget for passage in found)


def test_overlap_repeats_whole_sentences_within_its_budget():
    text = "Alpha beta gamma delta epsilon. Zeta eta. Theta iota kappa lambda. Mu nu xi omicron pi rho sigma."
    found = [passage.text for passage in PassageSplitter(words, 9, 2)([Document("d", text)])]
    assert found == [
        "Alpha beta gamma delta epsilon. Zeta eta.",
        "Zeta eta. Theta iota kappa lambda.",
        "Mu nu xi omicron pi rho sigma.",
    ]


def test_a_word_longer_than_the_budget_is_cut():
    found = PassageSplitter(lambda texts: [len(text) for text in texts], 8, 0)([Document("d", "x" * 30)])
    assert "".join(passage.text for passage in found) == "x" * 30
    assert max(len(passage.text) for passage in found) <= 8


def letters(texts):
    return [len(text) for text in texts]


def test_text_without_spaces_is_cut_at_sentences_and_kept_as_it_is():
    sentences = [f"第{number}句话说的是今天的天气很好。" for number in range(36)]
    found = [passage.text for passage in PassageSplitter(letters, 40, 0)([Document("d", "".join(sentences))])]
    assert "".join(found) == "".join(sentences)
    assert all(text.endswith("。") and len(text) <= 40 for text in found)


@pytest.mark.parametrize("text", ["e\u0301" * 30, "👨‍👩‍👧" * 12, "नमस्ते" * 10, "今天天气iPhone很好" * 5])
def test_no_cut_is_in_the_middle_of_a_grapheme_or_a_word(text):
    found = [passage.text for passage in PassageSplitter(letters, 20, 0)([Document("d", text)])]
    assert "".join(found) == text
    parts, _ = cut_points(text)
    ends = set(accumulate(map(len, parts)))
    assert all(end in ends for end in accumulate(map(len, found)))


def test_lines_are_not_joined_into_sentences():
    found = PassageSplitter(words, 8, 0)(
        [Document("d", "A title without end\nThe first sentence of the text. Another.")]
    )
    assert found[0].text.startswith("A title without end")


@pytest.mark.parametrize(("budget", "overlap"), [(7, 0), (16, 8), (16, -1)])
def test_budgets_that_make_no_sense(budget, overlap):
    with pytest.raises(InputError, match="repeat less than half"):
        PassageSplitter(words, budget, overlap)

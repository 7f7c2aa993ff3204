from __future__ import annotations

import random

import pytest

from distilface_st.adaptation.material import prepare
from distilface_st.datasets.corpus import as_corpus
from distilface_st.errors import InputError

from ..helpers import random_sentences


def articles(count, sentences=4, titled=True, seed=0):
    """Documents of random sentences, each with a title of its own."""
    text = iter(random_sentences(count * (sentences + 1) + 50, seed=seed))
    found = []
    for number in range(count):
        body = " ".join(f"{next(text).capitalize()}." for _ in range(sentences))
        found.append((f"{next(text)} {number}", body) if titled else body)
    return found


def test_titles_are_the_queries_where_there_are_titles():
    texts = dict(articles(300))
    material = prepare(as_corpus(list(texts.items())), seed=0)
    assert len(material.queries) == 30
    assert [texts[query] for query in material.queries] == material.documents
    assert material.kinds == {"title": 270, "cloze": 270}
    assert "300 documents, 100% with a title" in material.found
    assert "by their titles" in material.plan


def test_else_a_sentence_is_taken_out_and_is_not_in_the_document():
    material = prepare(as_corpus(articles(300, titled=False)), seed=0)
    for query, document in zip(material.queries, material.documents, strict=True):
        assert query not in document
        assert len(document.split(".")) == 4
    assert material.kinds == {"cloze": 270}
    assert "without titles" in material.found


def test_nothing_of_the_test_is_trained_on():
    texts = articles(300)
    # Nearly the same documents, which must not help: one of four sentences differs.
    texts += [(f"{title} again", f"{body.rsplit(' ', 7)[0]} x.") for title, body in texts[:150]]
    material = prepare(as_corpus(texts), seed=1)
    trained = {side for pair in material.pairs for side in pair}
    sentences = {sentence for text in trained for sentence in text.split(". ")}
    held_out = {sentence for document in material.documents for sentence in document.split(". ")[:-1]}
    assert not trained & {*material.queries, *material.documents}
    assert not sentences & held_out
    assert "near-duplicates" in material.plan


def test_single_sentences_are_searched_by_half_of_their_words():
    sentences = random_sentences(300, words=12)
    material = prepare(as_corpus(sentences), seed=0)
    for query, document in zip(material.queries, material.documents, strict=True):
        words = iter(document.split())
        assert all(word in words for word in query.split())
        assert query != document
    assert set(material.kinds) == {"words"}


def test_a_book_is_cut_into_passages_that_count_as_documents():
    chance = random.Random(0)
    book = "\n".join(
        " ".join(f"{s.capitalize()}." for s in random_sentences(30, seed=chance.random())) for _ in range(150)
    )
    material = prepare(as_corpus([book]), seed=0)
    assert len(material.queries) > 20
    assert set(material.kinds) <= {"cloze", "words"}


def test_the_same_seed_gives_the_same_material_and_another_one_does_not():
    corpus = as_corpus(articles(250))
    assert prepare(corpus, seed=3) == prepare(corpus, seed=3)
    assert prepare(corpus, seed=3).queries != prepare(corpus, seed=4).queries


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["One sentence about a cat."], "1 sentences"),
        (articles(10), "at least 200 documents are needed"),
        (["The same text."] * 500, "499 duplicates"),
        (["x" * 3000], "too little"),
    ],
)
def test_too_little_text_says_how_much_is_needed(texts, message):
    with pytest.raises(InputError, match=message):
        prepare(as_corpus(texts), seed=0)


def test_text_without_spaces_gives_a_test_and_pairs():
    chance = random.Random(0)
    signs = [chr(0x4E00 + i) for i in range(500)]
    texts = ["。".join("".join(chance.choices(signs, k=20)) for _ in range(3)) + "。" for _ in range(250)]
    material = prepare(as_corpus(texts), seed=0)
    assert len(material.queries) == 25
    assert len(material.pairs) >= 200

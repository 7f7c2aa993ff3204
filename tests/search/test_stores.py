"""One suite over every store."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from distilface_st import InputError
from distilface_st.search import SearchIndex, delete_from_index
from distilface_st.search import indexing as indexing_module

from .conftest import index_words, write_jsonl


def ids(index, query, k=10, **options):
    return [hit.id for hit in index.search([query], k, **options)[0]]


@pytest.fixture(scope="module")
def index(tmp_path_factory, corpus, encoder, settings):
    """An index that no test changes."""
    folder = tmp_path_factory.mktemp("stores") / "index"
    counts = index_words(corpus, folder, encoder, settings)
    assert counts == {"documents": 6, "blank": 1, "total": 5}
    with SearchIndex.open(folder, encoder) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path, corpus, encoder, settings):
    """An index to change."""
    index_words(corpus, tmp_path / "index", encoder, settings)
    return tmp_path / "index"


def test_finds_the_passage_and_its_sentence(index):
    hit = index.search(["a kitten plays"], 1)[0][0]
    assert hit.id == "cats"
    assert hit.metadata == {"lang": "en", "year": 1999, "tags": ["pet"]}
    assert hit.text[slice(*hit.highlight)] == "A kitten plays."


def test_scores_are_cosines_best_first(index, encoder):
    hits = index.search(["the dog barks"], 5)[0]
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    for hit in hits:
        cosine = float(encoder.encode(["the dog barks"])[0] @ encoder.encode([hit.text])[0])
        assert hit.score == pytest.approx(cosine, abs=1e-4)


@pytest.mark.parametrize("travel", [copy.deepcopy, lambda index: pickle.loads(pickle.dumps(index))])
def test_a_copy_opens_the_folder_anew(index, travel):
    with travel(index) as twin:
        assert twin.search(["a kitten plays"], 3) == index.search(["a kitten plays"], 3)
    assert ids(index, "a kitten plays", 1) == ["cats"]  # the other goes on


def test_several_queries_at_once_answer_as_alone(index):
    queries = ["cat", "profits", "rain in the north"]
    together = index.search(queries, 3)
    assert [[hit.id for hit in own] for own in together] == [ids(index, query, 3) for query in queries]
    assert index.search(np.array(queries), 3) == index.search(iter(queries), 3) == together


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({"lang": "de"}, {"katzen"}),
        ({"year": {">=": 2005, "<": 2020}}, {"dogs", "banks"}),
        ({"tags": "pet"}, {"cats", "dogs"}),
        ({"tags": ["loud", "none"]}, {"dogs"}),
        ({"lang": ["en", "de"], "year": {">": 2009}}, {"banks", "katzen"}),
        ({"score": 1.5}, {"katzen"}),
        ({"open": True}, {"rain"}),
        ({"missing": "x"}, set()),
        ({"lang": 'e"n'}, set()),
        ({"year": {"!=": 1999}}, {"dogs", "banks", "katzen"}),
    ],
)
def test_filter(index, conditions, expected):
    assert set(ids(index, "the cat", filter=conditions)) == expected
    found = {hit.id for hit in index.search(["the cat sofa"], filter=conditions, hybrid=True)[0]}
    assert found == expected


def test_hybrid_ranks_first_what_both_rankings_find(index):
    assert ids(index, "profits on Monday", 1, hybrid=True) == ["banks"]


def test_update_replaces_and_leaves_no_passage_behind(folder, tmp_path, encoder):
    changed = [{"id": "cats", "text": "Birds sing."}, {"id": "banks", "text": " "}, {"id": "new", "text": "Snow."}]
    counts = index_words(write_jsonl(tmp_path / "u.jsonl", changed), folder, encoder, mode="update")
    assert counts == {"documents": 3, "blank": 1, "total": 5}
    with SearchIndex.open(folder, encoder) as opened:
        assert sorted(ids(opened, "birds")) == ["cats", "dogs", "katzen", "new", "rain"]
        assert sorted(text for _, text in opened.store.texts() if "kitten" in text or "Shares" in text) == []
        assert ids(opened, "birds sing", 1, hybrid=True) == ["cats"]


def test_delete_and_add(folder, tmp_path, encoder):
    gone = tmp_path / "gone.txt"
    gone.write_text("dogs\nnobody\n", encoding="utf-8")
    assert delete_from_index(gone, folder) == {"deleted": 1, "missing": 1, "total": 4}
    more = write_jsonl(tmp_path / "more.jsonl", [{"id": "dogs", "text": "A wolf howls.", "lang": "en"}])
    assert index_words(more, folder, encoder, mode="add")["total"] == 5
    with SearchIndex.open(folder, encoder) as opened:
        hit = opened.search(["a wolf howls"], 1)[0][0]
        assert (hit.id, hit.metadata) == ("dogs", {"lang": "en"})
    again = write_jsonl(tmp_path / "again.jsonl", [{"id": "dogs", "text": "A wolf."}])
    with pytest.raises(InputError, match=r"again\.jsonl:1: the index has a document 'dogs' already"):
        index_words(again, folder, encoder, mode="add")


def test_an_id_may_be_any_text(folder, tmp_path, encoder):
    records = [
        {"id": name, "text": f"A wolf howls {i}."} for i, name in enumerate(["é", "漢🙂", 'a "b" \\ c', "d\u0001"])
    ]
    more = write_jsonl(tmp_path / "more.jsonl", records)
    before = index_words(more, folder, encoder, mode="add")["total"]
    assert index_words(more, folder, encoder, mode="update")["total"] == before
    with SearchIndex.open(folder, encoder) as opened:
        assert {hit.id for hit in opened.search(["a wolf howls"], 4)[0]} == {record["id"] for record in records}
    assert delete_from_index(more, folder) == {"deleted": 4, "missing": 0, "total": before - 4}


def test_work_cut_off_anywhere_ends_the_same(tmp_path, encoder, settings, monkeypatch):
    monkeypatch.setattr(indexing_module, "CHUNK", 3)
    corpus = write_jsonl(
        tmp_path / "c.jsonl", [{"id": f"d{i}", "text": f"word{i} common. more{i}."} for i in range(11)]
    )
    folder = tmp_path / "index"

    def die_at(position):
        def progress(done):
            if done >= position:
                raise KeyboardInterrupt

        return progress

    for position in (0, 3, 6, 9):
        with pytest.raises(KeyboardInterrupt):
            index_words(corpus, folder, encoder, settings, progress=die_at(position))
    assert index_words(corpus, folder, encoder, settings)["total"] == 11
    with SearchIndex.open(folder, encoder) as opened:
        assert sorted(ids(opened, "common", 20)) == sorted(f"d{i}" for i in range(11))
        assert opened.store.counts().passages == 11
        opened.verify()


def test_semantic_search_answers_as_sentence_transformers_does(tmp_path, encoder, settings):
    from sentence_transformers.util import semantic_search

    texts = ["the cat", "a dog barks", "cats and dogs", "stock market", "the rain"]
    (tmp_path / "c.txt").write_text("\n".join(texts), encoding="utf-8")
    index_words(tmp_path / "c.txt", tmp_path / "index", encoder, settings)
    queries = encoder.encode(["the cat and the dog", "market"])
    expected = semantic_search(queries, encoder.encode(texts), top_k=4)
    with SearchIndex.open(tmp_path / "index", encoder) as index:
        found = index.semantic_search(queries, top_k=4)
    assert [[hit["corpus_id"] for hit in own] for own in found] == [
        [hit["corpus_id"] for hit in own] for own in expected
    ]
    for own, theirs in zip(found, expected, strict=True):
        assert [hit["score"] for hit in own] == pytest.approx([hit["score"] for hit in theirs], abs=1e-4)


def test_sample_and_info(index, encoder):
    hits, vectors = index.sample(3)
    assert len({hit.id for hit in hits}) == 3
    for hit, vector in zip(hits, vectors, strict=True):
        assert vector == pytest.approx(encoder.encode([hit.text])[0], abs=1e-4)
    info = index.info()
    assert (info["documents"], info["passages"], info["model"]) == (5, 5, "words")
    assert info["fields"]["lang"] == ["de", "en"]

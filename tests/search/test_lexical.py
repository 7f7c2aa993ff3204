"""Words in hybrid search: in any script and Unicode form, with their marks, and where there are none."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest

from distilface_st.search import SearchIndex
from distilface_st.search import lexical as lexical_module
from distilface_st.search.lexical import LexicalIndex

from .conftest import index_words

TEXTS = [
    "Templates in C++17 are compiled.",
    "A pointer in C.",
    "The R language plots curves.",
    "Delegates came with C#.",
    "A service in .NET, and its net income.",
    "The net income rose.",
    "我家的黑猫喜欢在沙发上睡觉。",
    "北京大学今年招收新生。",
    "大连的海边很美。",
    unicodedata.normalize("NFD", "Un café à Orléans."),
    "ａｌｐｈａ ﬁnal STRASSE",
    "서울에서 열린 축제",
    "ภาษาไทยเขียนติดกัน",
    "हिन्दी भाषा",
    "!!! ...",
]


@pytest.fixture(scope="module")
def index(tmp_path_factory, encoder):
    home = tmp_path_factory.mktemp("lexical")
    (home / "c.txt").write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    index_words(home / "c.txt", home / "i", encoder)
    with SearchIndex.open(home / "i", encoder) as opened:
        yield opened


@pytest.fixture(scope="module")
def lexical(index):
    return LexicalIndex(index.folder / "lexical", index.store)


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("C++", 0),
        ("C++17", 0),
        ("c#", 3),
        ("R", 2),
        (".NET", 4),
        ("猫", 6),
        ("沙发", 6),
        ("北京大学", 7),
        (unicodedata.normalize("NFC", "café"), 9),
        (unicodedata.normalize("NFD", "CAFÉ"), 9),
        ("alpha", 10),
        ("final", 10),
        ("straße", 10),
        ("서울", 11),
        ("ไทย", 12),
        ("हिन्दी", 13),
    ],
)
def test_a_word_is_found_however_it_is_written(lexical, query, first):
    assert lexical.search([query], 3)[0][0].key == first


def test_parts_of_a_word_are_not_taken_for_it(lexical):
    assert [[hit.key for hit in own] for own in lexical.search(["大学", "ल", "don't t"], 9)] == [[7], [], []]


@pytest.mark.parametrize("query", ["!!!", "the and of", "zebra"])
def test_a_query_without_known_words_has_an_empty_half(index, query):
    found = [[hit.id for hit in index.search([query], 5, hybrid=hybrid)[0]] for hybrid in (True, False)]
    assert found[0] == found[1]
    assert len(found[0]) == 5


def test_a_corpus_without_words_has_an_empty_half(tmp_path, encoder):
    (tmp_path / "c.txt").write_text("!!!\n...\nthe\n", encoding="utf-8")
    index_words(tmp_path / "c.txt", tmp_path / "i", encoder)
    for _ in range(2):
        with SearchIndex.open(tmp_path / "i", encoder) as index:
            assert len(index.search(["the !!!"], 5, hybrid=True)[0]) == 3


@pytest.fixture
def copy(tmp_path, encoder):
    (tmp_path / "c.txt").write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    index_words(tmp_path / "c.txt", tmp_path / "i", encoder)
    return tmp_path / "i"


def test_an_index_that_cannot_be_written_to_keeps_its_words_in_memory(copy, encoder, monkeypatch):
    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with SearchIndex.open(copy, encoder) as index:
        assert [index.search(["R"], 1, hybrid=True)[0][0].text for _ in range(2)] == [TEXTS[2]] * 2
    assert not (copy / "lexical").exists()


def test_words_found_in_another_way_are_found_anew(copy, encoder, monkeypatch):
    def keys():
        with SearchIndex.open(copy, encoder) as index:
            return [hit.key for hit in LexicalIndex(copy / "lexical", index.store).search(["R"], 5)[0]]

    monkeypatch.setattr(lexical_module, "_FORM", 1)
    monkeypatch.setattr(lexical_module, "words_of", lambda text, is_query=False: ["r"])
    assert len(keys()) == 5
    monkeypatch.undo()
    assert keys() == [2]


def test_several_threads_build_the_words_once(copy, encoder, monkeypatch):
    from concurrent.futures import ThreadPoolExecutor

    built = []
    make = LexicalIndex.__init__
    monkeypatch.setattr(LexicalIndex, "__init__", lambda self, *given: built.append(1) or make(self, *given))
    with SearchIndex.open(copy, encoder) as index, ThreadPoolExecutor(4) as pool:
        vectors = np.asarray(encoder.encode(["R"]))
        list(pool.map(lambda _: index.search_vectors(vectors, 3, queries=["R"]), range(8)))
    assert len(built) == 1

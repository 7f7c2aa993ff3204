"""Pairs: two columns as given, or sentences that follow each other in a paragraph."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilface_st import InputError
from distilface_st.datasets.pairs import load_neighbours, load_pairs, neighbouring_sentences
from distilface_st.datasets.text_data import SeenTexts
from distilface_st.utils.provenance import text_fingerprint


def rows(data):
    return list(zip(data.dataset["anchor"], data.dataset["positive"], strict=True))


@pytest.fixture
def pairs(tmp_path):
    def load(name, content, **options):
        (tmp_path / name).write_text(content, encoding="utf-8")
        return load_pairs(tmp_path / name, cache_dir=tmp_path / "cache", **options)

    return load


@pytest.fixture
def neighbours(tmp_path):
    def load(name, content, **options):
        (tmp_path / name).write_text(content, encoding="utf-8")
        return load_neighbours(tmp_path / name, cache_dir=tmp_path / "cache", **options)

    return load


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", "one\tuno\ntwo\tdos\n"),
        ("a.tsv", "Anchor\tPositive\none\tuno\ntwo\tdos\n"),
        ("a.tsv", "id\tquestion\tanswer\n1\tone\tuno\n2\ttwo\tdos\n"),
        ("a.csv", "english,spanish\none,uno\ntwo,dos\n"),
        ("a.csv", "sentence2,score,sentence1\nuno,1,one\ndos,1,two\n"),
        ("a.jsonl", '{"text1": "one", "text2": "uno"}\n{"text2": "dos", "text1": "two"}\n'),
    ],
)
def test_two_columns_are_found(pairs, name, content):
    data = pairs(name, content)
    assert rows(data) == [("one", "uno"), ("two", "dos")]
    assert data.dataset.column_names == ["anchor", "positive"]
    assert data.fingerprint == text_fingerprint(["one", "uno", "two", "dos"])


def test_named_columns_are_read_in_their_order(pairs):
    data = pairs("a.tsv", "a\tb\none\tuno\n", columns=("b", "a"))
    assert rows(data) == [("uno", "one")]


def test_half_blank_pairs_and_duplicates_of_the_pair_are_dropped(pairs):
    data = pairs("a.tsv", "one\tuno\none\tdos\n one\tuno \n\tdos\ntwo\t \n\n")
    assert rows(data) == [("one", "uno"), ("one", "dos")]
    assert (data.read, data.blank, data.duplicates) == (6, 3, 1)


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("a.tsv", "one\tuno\ntwo\n", {}, r"a\.tsv:2: 1 cells where the first line has 2"),
        ("a.tsv", "a\tb\tc\n", {}, r"a\.tsv:1: name the two columns to pair; found: 'a', 'b', 'c'"),
        ("a.tsv", "a\tb\n", {"columns": ("a", "c")}, r"a\.tsv:1: no column 'c'"),
        ("a.csv", "a,b\n", {"columns": ("a", "a")}, "two different columns"),
        ("a.txt", "one\n", {}, r"a\.txt: .*pairs need two columns"),
        ("a.csv", "a,b\nx,\n", {}, "1 records read, 1 of them blank"),
    ],
)
def test_what_gives_no_pairs_is_refused(pairs, name, content, options, message):
    with pytest.raises(InputError, match=message):
        pairs(name, content, **options)


cells = st.sampled_from(["a", "b", "ab", "", "\0", "a\0"])


@given(st.lists(st.tuples(cells, cells), max_size=40))
def test_pairs_are_told_apart_by_both_sides(pairs):
    columns = [[first for first, _ in pairs], [second for _, second in pairs]]
    new = SeenTexts().add(columns)
    assert [pair for pair, is_new in zip(pairs, new, strict=True) if is_new] == list(dict.fromkeys(pairs))


A, B, C, D = "It rained all day.", "We stayed at home.", "Nobody went out.", "Dr. Smith was glad."


def test_consecutive_sentences_are_paired_within_paragraphs(neighbours):
    document = {"title": "Rain", "text": f"{A} {B} {C}\n{D} {A}\n\n{B}"}
    data = neighbours("a.jsonl", json.dumps(document) + "\n")
    assert rows(data) == [(A, B), (B, C), (D, A)]
    assert (data.read, data.blank, data.duplicates) == (1, 0, 0)


def test_a_line_of_a_text_file_is_a_paragraph(neighbours):
    data = neighbours("a.txt", f"{A} {B}\n\n{C}\n{A} {B} {D}\n")
    assert rows(data) == [(A, B), (B, D)]
    assert (data.read, data.blank, data.duplicates) == (4, 1, 1)


def test_limit_counts_documents(neighbours):
    assert rows(neighbours("a.txt", f"{A} {B}\n{C} {D}\n", limit=1)) == [(A, B)]


def test_sentences_of_scripts_without_spaces_are_neighbours_too(neighbours):
    sentences = ["今天一直在下雨。", "我们都待在家里！", "为什么？", "没有人知道答案。"]
    assert rows(neighbours("a.txt", "".join(sentences))) == [(sentences[0], sentences[1])]


def test_short_sentences_are_paired_with_nothing():
    assert list(neighbouring_sentences(f"{A} {B} Why not? {C} {D}")) == [(A, B), (C, D)]


def test_pairs_are_no_documents(neighbours):
    with pytest.raises(InputError, match="views=pairs"):
        neighbours("a.tsv", f"{A}\t{B}\n{C}\t{D}\n")


def test_documents_of_one_sentence_give_no_pairs(neighbours):
    with pytest.raises(InputError, match="2 records read, 0 of them blank, no anchor and positive left"):
        neighbours("a.txt", f"{A}\n{B}\n")


@given(st.lists(st.lists(st.sampled_from([A, B, C, D]), max_size=5), max_size=5))
def test_each_paragraph_of_n_sentences_gives_n_minus_one_pairs(paragraphs):
    document = "\n".join(" ".join(paragraph) for paragraph in paragraphs)
    assert len(list(neighbouring_sentences(document))) == sum(max(0, len(paragraph) - 1) for paragraph in paragraphs)


@pytest.mark.slow
def test_real_pairs(data_dir, tmp_path):
    given_pairs = load_pairs(data_dir / "wiki" / "neighbours.tsv.gz", cache_dir=tmp_path)
    with gzip.open(data_dir / "wiki" / "neighbours.tsv.gz", "rt", encoding="utf-8") as file:
        expected = dict.fromkeys(tuple(map(str.strip, line.split("\t"))) for line in file)
    assert rows(given_pairs) == list(expected)
    assert given_pairs.read == 107_080

    found = load_neighbours(data_dir / "wiki" / "articles.jsonl.gz", cache_dir=tmp_path)
    assert found.read == 8_000
    assert 25_000 < len(found.dataset) < 32_000

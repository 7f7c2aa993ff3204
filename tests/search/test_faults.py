"""Damaged, foreign and future indexes, and models that did not make them."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from distilface_st import InputError
from distilface_st.search import IndexSettings, SearchIndex
from distilface_st.search.lexical import LexicalIndex

from .conftest import index_words, write_jsonl
from .fakes import WordEncoder


@pytest.fixture(scope="module")
def built(tmp_path_factory, corpus, encoder):
    folder = tmp_path_factory.mktemp("built") / "index"
    index_words(corpus, folder, encoder, IndexSettings(options={"index": "hnsw"}, tokens=16, overlap=4))
    return folder


@pytest.fixture
def folder(built, tmp_path):
    return shutil.copytree(built, tmp_path / "index")


def one(folder, pattern):
    (path,) = folder.glob(pattern)
    return path


def test_another_model_is_refused(folder):
    with pytest.raises(InputError, match=r"was made with words .* is another model"):
        SearchIndex.open(folder).use(WordEncoder(1), "other")


def test_no_index(tmp_path):
    with pytest.raises(InputError, match="is no index: make one with `distilface index"):
        SearchIndex.open(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "has format 2, this version reads 1"),
        ({"type": "other"}, "not the manifest of an index"),
        ({"store": "pickle"}, "There is no store 'pickle'"),
        ({"model": None}, "is damaged"),
        ({"settings": {"index": "annoy"}}, "one of exact, hnsw"),
    ],
)
def test_foreign_and_future_manifests(folder, encoder, change, message):
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **change}), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        SearchIndex.open(folder, encoder)


@pytest.mark.parametrize("pattern", ["manifest.json", "passages.sqlite", "vectors-*.f32"])
def test_cut_short(folder, encoder, pattern):
    path = one(folder, pattern)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(InputError, match="damaged"), SearchIndex.open(folder, encoder) as index:
        index.verify()


@pytest.mark.parametrize("pattern", ["manifest.json", "passages.sqlite"])
def test_what_is_told_of_a_damaged_index_helps(folder, corpus, encoder, pattern):
    path = one(folder, pattern)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(InputError, match=r"damaged.* delete its folder and build the index again"):
        index_words(corpus, folder, encoder)
    shutil.rmtree(folder)
    assert index_words(corpus, folder, encoder)["total"] == 5


@pytest.mark.parametrize("pattern", ["passages.sqlite", "vectors-*.f32", "structure-*.faiss"])
def test_missing_files(folder, encoder, pattern):
    one(folder, pattern).unlink()
    with pytest.raises(InputError, match=r"missing|cut short"), SearchIndex.open(folder, encoder) as index:
        index.search(["cat"])


def test_a_structure_cut_short_is_found_with_the_first_search(folder, encoder):
    path = one(folder, "structure-*.faiss")
    os.truncate(path, path.stat().st_size - 1)
    with SearchIndex.open(folder, encoder) as index, pytest.raises(InputError, match="cut short"):
        index.search(["cat"])


@pytest.mark.parametrize("pattern", ["vectors-*.f32", "structure-*.faiss"])
def test_verify_finds_one_changed_bit(folder, encoder, pattern):
    path = one(folder, pattern)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size - 5)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))
    with SearchIndex.open(folder, encoder) as index, pytest.raises(InputError, match="is damaged"):
        index.verify()


def test_a_catalogue_cannot_name_files_elsewhere(folder, encoder):
    with sqlite3.connect(folder / "passages.sqlite") as connection:
        connection.execute("UPDATE state SET value = '../vectors-0.f32' WHERE name = 'vectors'")
    with pytest.raises(InputError, match="names a file"):
        SearchIndex.open(folder, encoder)


def test_opening_reads_no_vector(folder, encoder):
    before = one(folder, "vectors-*.f32").stat().st_atime_ns
    os.utime(one(folder, "vectors-*.f32"), ns=(before, before))
    with SearchIndex.open(folder, encoder) as index:
        assert index.store._view is None
        assert index.info()["passages"] == 5


def test_an_index_is_not_built_over(folder, corpus, encoder, tmp_path):
    with pytest.raises(InputError, match="There is an index already"):
        index_words(corpus, folder, encoder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x", encoding="utf-8")
    with pytest.raises(InputError, match="is no index: name another"):
        index_words(corpus, tmp_path / "mine", encoder)
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_other_work_waits_until_the_first_is_finished(tmp_path, corpus, encoder):
    def die(done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index_words(corpus, tmp_path / "i", encoder, progress=die)
    other = write_jsonl(tmp_path / "other.jsonl", [{"text": "x"}])
    with pytest.raises(InputError, match=r"unfinished work \(create corpus\.jsonl\)"):
        index_words(other, tmp_path / "i", encoder, mode="add")


def test_an_id_that_is_there_twice_names_both_places(tmp_path, encoder):
    twice = write_jsonl(tmp_path / "t.jsonl", [{"id": 1, "text": "a"}, {"id": "1", "text": "b"}])
    with pytest.raises(InputError, match=r"t\.jsonl:2: the id '1' is also that of .*t\.jsonl:1"):
        index_words(twice, tmp_path / "i", encoder)


@pytest.mark.parametrize(
    ("filter_", "message"),
    [
        ({"a b": 1}, "no name of a field"),
        ({"a": {"like": 1}}, "no operator"),
        ({"a": {">": None}}, "must compare with"),
        ({"a": []}, "lists 0 values"),
        ([], "A filter is an object"),
        ({"a": 2**70}, "must compare with"),
        ({"a": "\ud800"}, "not valid Unicode"),
    ],
)
def test_filters_that_are_none(folder, encoder, filter_, message):
    with SearchIndex.open(folder, encoder) as index, pytest.raises(InputError, match=message):
        index.search(["cat"], filter=filter_)


@pytest.mark.parametrize("query", ["", "  ", 3, "\ud800"])
def test_queries_that_are_none(folder, encoder, query):
    with SearchIndex.open(folder, encoder) as index, pytest.raises(InputError, match="query"):
        index.search([query])


class TwoPassages:
    """A store of two passages."""

    def version(self):
        return "1"

    def texts(self):
        return iter([(7, "a red house"), (8, "a blue river")])


def test_many_who_ask_for_the_words_at_once_find_them_whole(tmp_path):
    pytest.importorskip("bm25s")
    together = Barrier(4, timeout=20)

    def search(number):
        together.wait()
        return LexicalIndex(tmp_path / "index" / "lexical", TwoPassages()).search(["red river house"], 2)

    with ThreadPoolExecutor(4) as searchers:
        for found in searchers.map(search, range(4)):
            assert [sorted(hit.key for hit in hits) for hits in found] == [[7, 8]]

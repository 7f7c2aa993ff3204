"""The cache: made once, opened at no cost, never half, never stale."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from distilface_st.datasets import text_data as library
from distilface_st.datasets.sentences import load_sentences
from distilface_st.datasets.sources import find_source
from distilface_st.datasets.text_data import Recipe, text_data

RECIPE = Recipe("sentences", {}, ("sentence",))


def summary(data):
    return data.dataset["sentence"][:], data.read, data.blank, data.duplicates, data.fingerprint, data.source


def test_a_second_load_reads_nothing_and_reports_the_same(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("one\n\none\ntwo\n")
    first = load_sentences(tmp_path / "a.txt", cache_dir=tmp_path / "cache")
    monkeypatch.setattr("distilface_st.datasets.readers.line_blocks", lambda path: pytest.fail("read again"))
    second = load_sentences(tmp_path / "a.txt", cache_dir=tmp_path / "cache")
    assert summary(first) == summary(second)


def test_a_changed_file_is_read_again(tmp_path):
    source = tmp_path / "a.txt"
    for text in ("one\n", "two\n"):
        source.write_text(text)
        os.utime(source, ns=(ord(text[0]),) * 2)
        assert load_sentences(source, cache_dir=tmp_path / "cache").dataset["sentence"][:] == [text.strip()]


def test_other_settings_have_their_own_entry(tmp_path):
    (tmp_path / "a.csv").write_text("text,body\none,two\none,three\n")
    found = {
        len(load_sentences(tmp_path / "a.csv", cache_dir=tmp_path / "cache", **options).dataset)
        for options in ({}, {"deduplicate": False})
    }
    assert found == {1, 2}
    assert (
        load_sentences(tmp_path / "a.csv", cache_dir=tmp_path / "cache", column="body").dataset[1]["sentence"]
        == "three"
    )


def test_equal_text_has_an_equal_fingerprint_on_any_path(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    (tmp_path / "b.jsonl").write_text('{"text": " one"}\n{"text": "two"}\n{"text": "one"}\n')
    (tmp_path / "c.txt").write_text("two\none\n")
    a, b, c = (load_sentences(path, cache_dir=tmp_path / "cache").fingerprint for path in sorted(tmp_path.iterdir()))
    assert a == b != c


def test_many_who_load_one_new_text_at_once_have_it_made_once(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    together, made = Barrier(4, timeout=20), []
    write_rows = library._write_rows
    monkeypatch.setattr(library, "_write_rows", lambda *arguments: made.append(1) or write_rows(*arguments))

    def load(number):
        together.wait()
        return load_sentences(tmp_path / "a.txt", cache_dir=tmp_path / "cache").dataset["sentence"][:]

    with ThreadPoolExecutor(4) as loaders:
        assert list(loaders.map(load, range(4))) == [["one", "two"]] * 4
    assert len(made) == 1


def test_half_an_entry_is_made_anew(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    load_sentences(tmp_path / "a.txt", cache_dir=tmp_path / "cache")
    (entry,) = (tmp_path / "cache").glob("sentences-*")
    (entry / "rows.arrow").unlink()
    assert len(load_sentences(tmp_path / "a.txt", cache_dir=tmp_path / "cache").dataset) == 2


KILLED = """
import os, signal, sys
from pathlib import Path
from distilface_st.datasets.sources import find_source
from distilface_st.datasets.text_data import Cleaned, Recipe, text_data

def blocks():
    yield Cleaned([["one"]], read=1, blank=0)
    os.kill(os.getpid(), signal.SIGKILL)

text_data(find_source(sys.argv[1]), Recipe("sentences", {}, ("sentence",)), blocks(), Path(sys.argv[2]))
"""


def test_a_kill_leaves_nothing_that_is_taken_for_whole(tmp_path):
    from distilface_st.datasets.text_data import Cleaned

    source = tmp_path / "a.txt"
    source.write_text("one\ntwo\n")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(source), str(tmp_path / "cache")], check=False)
    assert killed.returncode == -signal.SIGKILL
    whole = iter([Cleaned([["one", "two"]], read=2, blank=0)])
    data = text_data(find_source(source), RECIPE, whole, tmp_path / "cache")
    assert data.dataset["sentence"][:] == ["one", "two"]


def test_the_default_cache_lies_with_that_of_datasets(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub")
    (tmp_path / "a.txt").write_text("one\n")
    load_sentences(tmp_path / "a.txt")
    assert len(list((tmp_path / "hub" / "distilface").glob("sentences-*"))) == 1

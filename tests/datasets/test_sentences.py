"""Sentences come out of every kind of file alike, cleaned and counted, in bounded memory; faults name file and line."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from distilface_st import InputError
from distilface_st.datasets.sentences import load_sentences
from distilface_st.datasets.text_data import SeenTexts
from distilface_st.utils.provenance import text_fingerprint

SENTENCES = ["The cat sat on the mat.", 'She said "yes", twice.', "Ärger, 漢字 und\u2028mehr.", "A cat's tail"]


def write(path: Path, content: bytes | str) -> Path:
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def lines(texts, header=None):
    return "".join(f"{text}\n" for text in ([header] if header else []) + list(texts))


def jsonl(texts, field="text"):
    return lines(json.dumps({"id": 1, field: text}) for text in texts)


def quoted(texts, header="id,text", row='1,"{}"'):
    return lines((row.format(text.replace('"', '""')) for text in texts), header)


@pytest.fixture
def load(tmp_path):
    def load(source, **options):
        return load_sentences(source, cache_dir=tmp_path / "cache", **options)

    return load


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", lines(SENTENCES)),
        ("a.TXT", "\r\n".join(SENTENCES)),
        ("a.txt.gz", lines(SENTENCES)),
        ("a.jsonl", jsonl(SENTENCES)),
        ("a.jsonl.gz", jsonl(SENTENCES, "sentence")),
        ("a.csv", quoted(SENTENCES)),
        ("a.csv.gz", quoted(SENTENCES, "id,Sentence")),
        ("a.tsv", lines((f"1\t{text}" for text in SENTENCES), "id\ttext")),
        ("a.tsv.gz", lines(SENTENCES, "whatever")),
        ("bom.txt", b"\xef\xbb\xbf" + lines(SENTENCES).encode()),
        ("bom.csv", b"\xef\xbb\xbf" + quoted(SENTENCES, "text,id", '"{}",1').encode()),
    ],
)
def test_every_text_file_gives_the_same_sentences(tmp_path, load, name, content):
    data = load(write(tmp_path / name, content))
    assert data.dataset["sentence"][:] == SENTENCES
    assert (data.read, data.blank, data.duplicates, data.source) == (4, 0, 0, name)
    assert data.fingerprint == text_fingerprint(SENTENCES)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet(tmp_path, load, kind):
    texts = pa.array([*SENTENCES, None], pa.string()).cast(kind)
    parquet.write_table(pa.table({"id": list(range(5)), "text": texts}), tmp_path / "a.parquet")
    data = load(tmp_path / "a.parquet")
    assert data.dataset["sentence"][:] == SENTENCES
    assert (data.read, data.blank) == (5, 1)


def test_rows_are_memory_mapped(tmp_path, load):
    (cached,) = load(write(tmp_path / "a.txt", lines(SENTENCES))).dataset.cache_files
    assert (tmp_path / "cache") in Path(cached["filename"]).parents


def test_ends_are_stripped_blanks_and_duplicates_dropped_and_counted(tmp_path, load):
    source = write(tmp_path / "a.txt", "  one two \n\n\t\none  two\none two\n\xa0\nthree\none two\r\n")
    data = load(source)
    assert data.dataset["sentence"][:] == ["one two", "one  two", "three"]
    assert (data.read, data.blank, data.duplicates) == (8, 3, 2)


def test_duplicates_can_be_kept(tmp_path, load):
    source = write(tmp_path / "a.txt", "one\ntwo\none\n")
    assert load(source).dataset["sentence"][:] == ["one", "two"]
    data = load(source, deduplicate=False)
    assert data.dataset["sentence"][:] == ["one", "two", "one"]
    assert data.duplicates == 0


def test_blank_records_of_every_format_are_counted(tmp_path, load):
    write(tmp_path / "a.jsonl", '\n{"text": "one"}\n{"text": null}\n{"text": " "}\n\n')
    write(tmp_path / "a.csv", 'id,text\n1,"two\nlines"\n\n2,\n')
    write(tmp_path / "a.tsv", "id\ttext\n\n1\tthree\n1\t \n")
    counts = [(data.read, data.blank) for data in map(load, sorted(tmp_path.glob("a.*")))]
    assert counts == [(3, 2), (5, 4), (3, 2)]


def test_limit_counts_records(tmp_path, load):
    data = load(write(tmp_path / "a.csv", "text\none\n\none\ntwo\n"), limit=3)
    assert (data.read, data.blank, data.duplicates) == (3, 1, 1)
    assert data.dataset["sentence"][:] == ["one"]


def test_a_named_column_is_read(tmp_path, load):
    source = write(tmp_path / "a.csv", "text,body\nno,yes\n")
    assert load(source, column="body").dataset["sentence"][:] == ["yes"]


def test_quotes_are_plain_characters_in_tsv_and_lines_may_break_in_csv(tmp_path, load):
    assert load(write(tmp_path / "a.tsv", 'text\n"one" two\n"three\n')).dataset["sentence"][:] == [
        '"one" two',
        '"three',
    ]
    assert load(write(tmp_path / "a.csv", 'text\n"one\ntwo"\n')).dataset["sentence"][:] == ["one\ntwo"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"fine\nfine\ncaf\xe9\n", r"a\.txt:3: not UTF-8 \(byte 0xe9 at byte 4 of the line\)"),
        ("a.txt.gz", b"fine\n\xff\n", r"a\.txt\.gz:2: not UTF-8"),
        ("a.txt", "", "no text to train on; 0 records read"),
        ("a.txt", "\n \n", "2 of them blank"),
        ("a.jsonl", '{"text": "a"}\n{"text": \n', r"a\.jsonl:2: not valid JSON"),
        ("a.jsonl", '{"text": "a"}\n\n["b"]\n', r"a\.jsonl:3: .*found a list"),
        ("a.jsonl", '{"text": "a"}\n{"txt": "b"}\n', r"a\.jsonl:2: no field 'text'; found: 'txt'"),
        ("a.jsonl", '{"text": "a"}\n{"text": 5}\n', r"a\.jsonl:2: field 'text' must be a string, found a number"),
        ("a.jsonl", '{"text": "\\ud800"}\n', r"a\.jsonl:1: .*surrogate"),
        ("a.jsonl", "[" * 100_000 + "\n", r"a\.jsonl:1: "),
        ("a.jsonl", '{"x": "a", "y": "b"}\n', r"a\.jsonl:1: name the column .*found: 'x', 'y'"),
        ("a.csv", "x,y,z\n1,2,3\n", r"a\.csv:1: name the column .*found: 'x', 'y', 'z'"),
        ("a.csv", 'text,y\n"1\n1",2\n1,2,3\n', r"a\.csv:4: 3 cells where the first line has 2"),
        ("a.csv", 'text\nfine\n"never\nclosed\n', r"a\.csv:3: cannot be read as CSV"),
        ("a.tsv", "text\ty\n1\t2\n1\n", r"a\.tsv:3: 1 cells where the first line has 2"),
        ("a.tsv", "Some sentence.\tThe next one.\n", r"a\.tsv:1: name the column .*views=pairs"),
        ("a.parquet", "text", r"a\.parquet: not a readable Parquet file"),
        ("a.pdf", "text", "not a kind of file that can be read; known are .txt"),
    ],
)
def test_faults_name_file_and_line(tmp_path, load, name, content, message):
    with pytest.raises(InputError, match=message):
        load(write(tmp_path / name, content))
    assert not [*(tmp_path / "cache").glob("[!.]*")]  # but for a lock


def test_a_fault_far_into_a_file_has_the_right_line(tmp_path, load):
    content = b"a line of this file\n" * 400_000 + b"\xff\n" + b"more\n" * 10
    with pytest.raises(InputError, match=r"a\.txt:400001: not UTF-8"):
        load(write(tmp_path / "a.txt", content))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.csv", {"column": "body"}, r"a\.csv:1: no column 'body'; found: 'text'"),
        ("a.jsonl", {"column": "body"}, r"a\.jsonl:1: no column 'body'"),
        ("a.txt", {"column": "body"}, "has no columns"),
        ("a.txt", {"limit": 0}, "limit must be 1 or more"),
    ],
)
def test_options_that_do_not_fit(tmp_path, load, name, options, message):
    content = {"a.csv": "text\na\n", "a.jsonl": '{"text": "a"}\n', "a.txt": "a\n"}[name]
    with pytest.raises(InputError, match=message):
        load(write(tmp_path / name, content), **options)


def test_a_broken_gzip_file_is_reported(tmp_path, load):
    whole = gzip.compress(b"some text\n" * 1000)
    for name, content in [("cut", whole[:-20]), ("plain", b"no gzip\n"), ("noise", whole[:20] + b"\xff" * 20)]:
        (tmp_path / f"{name}.txt.gz").write_bytes(content)
        with pytest.raises(InputError, match=rf"{name}\.txt\.gz: not a whole gzip file"):
            load(tmp_path / f"{name}.txt.gz")


def test_a_column_that_holds_no_strings(tmp_path, load):
    parquet.write_table(pa.table({"text": [1, 2]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="column 'text' must hold strings, found int64"):
        load(tmp_path / "a.parquet")


@given(st.lists(st.lists(st.sampled_from("abcdefghij") | st.text(max_size=3), max_size=30), max_size=8))
def test_duplicates_are_those_a_set_would_find(batches):
    seen, known = SeenTexts(), set()
    for batch in batches:
        expected = []
        for text in batch:
            expected.append(text not in known)
            known.add(text)
        assert seen.add([[text.encode("utf-8", "replace").decode() for text in batch]]).tolist() == expected
    assert len(seen) == len(known)


def test_duplicates_are_found_across_many_batches():
    seen = SeenTexts()
    for start in range(0, 50_000, 500):
        assert seen.add([[f"text {i}" for i in range(start, start + 1000)]]).sum() == (1000 if start == 0 else 500)
    assert not seen.add([[f"text {i}" for i in range(50_500)]]).any()


MEMORY = """
import re, sys
from pathlib import Path
from distilface_st.datasets.sentences import load_sentences

def peak():
    # not getrusage: its peak is inherited from the process that started this one
    return int(re.search("VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

def load(lines):
    with open(folder / f"{lines}.txt", "w") as file:
        for i in range(lines):
            file.write(f"line {i} of a text that holds no line twice, all of them about eighty characters long\\n")
    return load_sentences(folder / f"{lines}.txt", cache_dir=folder)

folder = Path(sys.argv[1])
load(60_000)
before = peak()
assert len(load(500_000).dataset) == 500_000
print((peak() - before) / 1024)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
def test_memory_does_not_grow_with_the_text(tmp_path):
    grown = subprocess.run([sys.executable, "-c", MEMORY, str(tmp_path)], capture_output=True, text=True, check=True)
    eight_bytes_a_line, noise = 500_000 * 8 / 2**20, 12
    assert float(grown.stdout) < eight_bytes_a_line + noise  # the text has 43 MB, a set of its hashes 30 more than this


@pytest.mark.slow
def test_real_sentences(data_dir, load):
    data = load(data_dir / "wiki" / "sentences.txt.gz")
    assert (data.read, data.blank, data.duplicates, len(data.dataset)) == (288_343, 0, 0, 288_343)
    head = load(data_dir / "wiki" / "wiki1m_head.txt")
    texts = [line.strip() for line in (data_dir / "wiki" / "wiki1m_head.txt").read_text("utf-8").split("\n")]
    assert head.dataset["sentence"][:] == list(dict.fromkeys(text for text in texts if text))

"""One reader: a file means the same text to every command, whoever wrote it and however."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from distilface_st import InputError, load_sentences
from distilface_st.datasets.readers import read_records
from distilface_st.models.encode_file import encode_file
from distilface_st.recipes.search import read_queries
from distilface_st.search.documents import read_documents

TEXTS = ["Grüße, «Welt»", "one\u2028two", "x" * 140_000 + "; y, z", '"quoted" 漢字']


class Encoder:
    """Knows only how many texts it was given."""

    def get_embedding_dimension(self):
        return 1

    def encode(self, texts, **options):
        return np.zeros((len(texts), 1), np.float32)


def cells(separator, texts=TEXTS, header="Text"):
    quoted = ('"{}"'.format(text.replace('"', '""')) for text in texts)
    return "\n".join([f"id{separator}{header}", *(f"{i}{separator}{text}" for i, text in enumerate(quoted))])


def lines(texts=TEXTS):
    return "\n".join(texts)


FILES = {
    "plain.txt": lines(),
    "bom.txt": "\ufeff" + lines(),
    "crlf.txt": lines().replace("\n", "\r\n") + "\r\n",
    "comma.csv": cells(","),
    "semicolon.csv": cells(";"),
    "tab.csv": "\ufeff" + cells("\t", header="content").replace("\n", "\r\n"),
    "plain.tsv": "\r\n".join(["id\tsentence", *(f"{i}\t{text}" for i, text in enumerate(TEXTS))]),
    "plain.jsonl": "\r\n".join(json.dumps({"id": "1", "body": text}, ensure_ascii=False) for text in TEXTS),
}


def read_everywhere(source, folder):
    """What training, encoding, indexing and searching find in a file."""
    trained = load_sentences(source, cache_dir=folder / "cache").dataset["sentence"][:]
    encode_file(Encoder(), source, folder / "out.jsonl")
    written = (folder / "out.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    indexed = [document.text for document in read_documents(source)]
    return trained, [json.loads(line)["text"] for line in written], indexed, read_queries(source)


@pytest.mark.parametrize("name", FILES)
def test_a_file_means_the_same_text_to_every_command(tmp_path, name):
    (tmp_path / name).write_bytes(FILES[name].encode())
    for texts in read_everywhere(tmp_path / name, tmp_path):
        assert texts == TEXTS


@pytest.mark.parametrize(
    "kind", ["string", "large_string", "string_view", "binary", "large_binary", "binary_view", "dictionary"]
)
def test_arrow_s_types_of_strings_and_bytes_are_alike(tmp_path, kind):
    if kind == "dictionary":
        texts = pa.array(TEXTS).dictionary_encode()
    else:
        texts = pa.array(TEXTS if "string" in kind else [text.encode() for text in TEXTS], getattr(pa, kind)())
    table = pa.table({"id": ["1", "2", "3", "4"], "text": texts})
    parquet.write_table(table, tmp_path / "a.parquet")
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    for source in (tmp_path / "a.parquet", tmp_path / "a.arrow"):
        for read in read_everywhere(source, tmp_path):
            assert read == TEXTS


def test_bytes_that_are_no_text_are_refused_as_text_and_pass_elsewhere(tmp_path):
    parquet.write_table(pa.table({"text": ["a"], "image": [b"\xff\xfe"]}), tmp_path / "a.parquet")
    assert [record for _, record in read_records(tmp_path / "a.parquet")] == [{"text": "a", "image": b"\xff\xfe"}]
    with pytest.raises(InputError, match="UTF8"):
        load_sentences(tmp_path / "a.parquet", column="image", cache_dir=tmp_path / "cache")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text;label\nfine;1\nnot, fine\n", r"a\.csv:3: 1 cells where the first line has 2"),
        ("text,label\nfine,1\nnot, fine,2\n", r"a\.csv:3: 3 cells where the first line has 2"),
        ("text\nfine\nnot, fine\n", r"a\.csv:3: 2 cells where the first line has 1"),
    ],
)
def test_ragged_rows_are_named_by_every_command(tmp_path, content, message):
    (tmp_path / "a.csv").write_text(content)
    for read in (lambda path: load_sentences(path, cache_dir=tmp_path), lambda path: [*read_documents(path)]):
        with pytest.raises(InputError, match=message):
            read(tmp_path / "a.csv")


def test_the_separator_is_the_one_that_cuts_all_rows_evenly(tmp_path):
    rows = {
        "one, two;3,5\nthree, four;2,5\n": ["one, two", "three, four"],  # commas are as regular, and give fewer cells
        '"a;b",1\n"c;d;e",2\n': ["a;b", "c;d;e"],
        '"never\nends;\nsoon",1\n' + '"x\ny",1\n' * 70: ["never\nends;\nsoon", *["x\ny"] * 70],
    }
    for (content, texts), header in zip(rows.items(), ("text;score", "text,score", "text,score"), strict=True):
        (tmp_path / "a.csv").write_text(f"{header}\n{content}")
        assert [record["text"] for _, record in read_records(tmp_path / "a.csv")] == texts

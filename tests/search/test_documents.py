"""Corpora of every kind, with their ids and metadata."""

from __future__ import annotations

import datetime
import gzip

import pyarrow as pa
import pytest
from pyarrow import parquet

from distilface_st import InputError
from distilface_st.search.documents import read_documents

from .conftest import write_jsonl


def read(path, **options):
    return [(document.id, document.text, document.metadata) for document in read_documents(path, **options)]


def test_lines_of_text_are_numbered_from_zero(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\ntwo\n", encoding="utf-8")
    assert read(tmp_path / "a.txt") == [("0", "one", {}), ("1", "", {}), ("2", "two", {})]


def test_a_source_without_a_record_is_an_error(tmp_path):
    (tmp_path / "a.txt").write_text("\n\n")
    (tmp_path / "b.jsonl").write_text("\n")
    assert len(list(read_documents(tmp_path))) == 2
    with pytest.raises(InputError, match="holds no document"):
        list(read_documents(tmp_path / "b.jsonl"))


def test_a_folder_puts_the_file_before_the_number(tmp_path):
    for name in ("b.txt", "a.txt"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    assert [row[0] for row in read(tmp_path)] == ["a.txt:0", "b.txt:0"]


def test_jsonl_keeps_metadata_with_its_types(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"id": 7, "text": "t", "n": 1, "l": ["x"], "d": {"e": None}}])
    assert read(path) == [("7", "t", {"n": 1, "l": ["x"], "d": {"e": None}})]


def test_csv_and_gzip(tmp_path):
    with gzip.open(tmp_path / "a.csv.gz", "wt", encoding="utf-8") as file:
        file.write('key,body,lang\nk1,"one, two",en\n')
    assert read(tmp_path / "a.csv.gz", id_field="key") == [("k1", "one, two", {"lang": "en"})]


def test_parquet_says_dates_as_text_and_no_number_as_null(tmp_path):
    table = pa.table({"id": ["a"], "text": ["t"], "day": [datetime.date(2020, 1, 2)], "x": [float("nan")]})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == [("a", "t", {"day": "2020-01-02", "x": None})]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"id": "1"}, "name the field that holds the text|no text in field"),
        ({"id": "1", "text": 5}, "no text in field 'text'"),
        ({"id": None, "text": "t"}, "field 'id' must hold an id"),
        ({"id": "", "text": "t"}, "field 'id' must hold an id"),
        ({"id": [1], "text": "t"}, "field 'id' must hold an id"),
        ({"id": "x" * 513, "text": "t"}, "an id of 513 bytes"),
        ({"id": "1", "text": "\ud800"}, "half a surrogate pair"),
    ],
)
def test_records_that_are_none_name_their_line(tmp_path, record, message):
    path = write_jsonl(tmp_path / "a.jsonl", [{"id": "0", "text": "fine"}, record])
    with pytest.raises(InputError, match=rf"a\.jsonl:2: .*({message})"):
        read(path)

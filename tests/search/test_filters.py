"""Conditions on metadata: every kind of value against every kind of condition, in every store."""

from __future__ import annotations

import operator
from itertools import product

import pytest

from distilface_st import InputError
from distilface_st.search import IndexSettings, SearchIndex
from distilface_st.search.filters import as_number, filter_of_words

from .conftest import index_words, needs_milvus, write_jsonl

VALUES = [
    *(1999, "1999", 7, "007", "7", "7.0", "1e5", 100000, "1e999", True, "true", "True", 1, "12345678901234567890123"),
    *(1.5, "1.50", "c. 1850", "2020-05-01", "", None, " 1999", {"z": 7}, 2**53 + 1, str(2**53 + 1), "-3"),
    *([], [1990, 2005], ["a", "b"], ["7", "x"], [True, "1999"], ["", 7.5]),
]
WANTED = [1999, "1999", 7, "7", "007", 7.0, True, "true", 1, "c. 1850", "2020", "", -3, "1.5", 1.5, 2**53 + 1, "x", "a"]
OPERATORS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le, "==": operator.eq}


def meets(item, sign, wanted):
    """The rule, said once more."""
    if isinstance(item, str) and isinstance(wanted, str):
        return OPERATORS[sign](item, wanted) and (item != "" or sign == "==")
    one, other = as_number(item), as_number(wanted)
    return one is not None and other is not None and OPERATORS[sign](one, other)


def expected(sign, wanted):
    found = set()
    for number, value in enumerate(VALUES):
        items = value if isinstance(value, list) else [value]
        met = any(meets(item, "==" if sign == "!=" else sign, wanted) for item in items)
        if value is not None and met != (sign == "!="):
            found.add(str(number))
    return found


@pytest.fixture(scope="module")
def index(tmp_path_factory, encoder, settings):
    home = tmp_path_factory.mktemp("filters")
    records = [{"id": str(number), "text": "cat", "f": value} for number, value in enumerate(VALUES)]
    index_words(write_jsonl(home / "c.jsonl", [*records, {"id": "none", "text": "cat"}]), home / "i", encoder, settings)
    with SearchIndex.open(home / "i", encoder) as opened:
        yield opened


def found(index, given, **options):
    return {hit.id for hit in index.search(["cat"], 100, given, highlight=False, **options)[0]}


def test_every_value_against_every_condition(index):
    for sign, wanted in product([*OPERATORS, "!="], WANTED):
        assert found(index, {"f": {sign: wanted}}) == expected(sign, wanted), (sign, wanted)
    assert found(index, {"f": ["a", 7]}) == expected("==", "a") | expected("==", 7)
    assert found(index, {"f": [*map(str, range(10_000, 10_254)), "a", 7]}) == found(index, {"f": ["a", 7]})


def test_what_is_stored_comes_back_as_it_was(index):
    hits = index.search(["cat"], 100)[0]
    values = {hit.id: hit.metadata for hit in hits}
    assert values.pop("none") == {}
    assert {number: repr(own["f"]) for number, own in values.items()} == {
        str(number): repr(value) for number, value in enumerate(VALUES)
    }


@pytest.fixture(scope="module")
def table(tmp_path_factory, encoder, settings):
    """An index of a .csv file, whose cells are text."""
    home = tmp_path_factory.mktemp("table")
    rows = ["007,cat one,1989,A1,9", "1e5,cat two,1990,7,10", "1.0,cat three,2005,007,x", "true,cat four,,1e5,"]
    (home / "c.csv").write_text("\n".join(["id,text,year,code,mixed", *rows]) + "\n", encoding="utf-8")
    index_words(home / "c.csv", home / "i", encoder, settings)
    with SearchIndex.open(home / "i", encoder) as opened:
        yield opened


@pytest.mark.parametrize(
    ("typed", "ids"),
    [
        (["year>=1990"], {"1e5", "1.0"}),
        (["year<1990"], {"007"}),
        (["year=1990"], {"1e5"}),
        (["year!=1990"], {"007", "1.0", "true"}),
        (["year>=1980", "year<2000"], {"007", "1e5"}),
        (["code=007"], {"1.0"}),
        (["code=7,A1"], {"007", "1e5"}),
        (["mixed>9"], {"1e5"}),
        (["code>=A"], {"007"}),
    ],
)
def test_filters_as_typed_find_what_a_csv_file_holds(table, typed, ids):
    assert found(table, filter_of_words(typed)) == ids
    assert found(table, filter_of_words(typed), hybrid=True) == ids


def test_ids_and_codes_are_what_they_were_in_the_file(table, encoder):
    assert {hit.id: hit.metadata["code"] for hit in table.search(["cat"])[0]} == {
        "007": "A1",
        "1e5": "7",
        "1.0": "007",
        "true": "1e5",
    }
    (found,) = table.semantic_search(encoder.encode(["cat"]))
    assert {hit["corpus_id"] for hit in found} == {"007", "1e5", "1.0", "true"}


def test_ids_that_are_the_files_own_stay_text_where_they_look_like_numbers(tmp_path, encoder):
    (tmp_path / "c.csv").write_text("id,text\n7,cat\n12345678901234567890,dog\n", encoding="utf-8")
    index_words(tmp_path / "c.csv", tmp_path / "i", encoder)
    with SearchIndex.open(tmp_path / "i", encoder) as index:
        (found,) = index.semantic_search(encoder.encode(["cat"]))
    assert [hit["corpus_id"] for hit in found] == ["7", "12345678901234567890"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"code": {">=": "a"}, "year": True}, None),
        ({"mixed": {">": 10}}, None),
        ({"missing": {">": 10}}, None),
        (
            {"day": {">=": 2020}},
            'day >= 2020 can match nothing: day holds text that is no number, such as "2020-05-01"',
        ),
        ({"n": "many"}, "n == 'many' can match nothing: n holds numbers, such as 3"),
        ({"n": {"<": "2020-05-01"}, "day": "2020-05-01"}, "n < '2020-05-01' can match nothing: n holds numbers"),
    ],
)
def test_a_filter_that_can_match_nothing_because_of_types_says_so(tmp_path, encoder, table, settings, given, message):
    if message is None:
        assert found(table, given) == set()
        return
    records = [{"text": "cat", "day": "2020-05-01", "n": 3}]
    index_words(write_jsonl(tmp_path / "c.jsonl", records), tmp_path / "i", encoder, settings)
    with SearchIndex.open(tmp_path / "i", encoder) as index, pytest.raises(InputError) as caught:
        found(index, given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@needs_milvus
def test_what_an_earlier_version_stored_in_milvus_is_compared_after_an_update(tmp_path, encoder, monkeypatch):
    (tmp_path / "c.csv").write_text("id,text,year\na,cat,1990\n", encoding="utf-8")
    monkeypatch.setattr("distilface_st.search.stores.milvus.compared", lambda metadata: {})
    index_words(tmp_path / "c.csv", tmp_path / "i", encoder, IndexSettings("milvus"))
    monkeypatch.undo()
    with SearchIndex.open(tmp_path / "i", encoder) as index:
        assert found(index, {"year": "1990"}) == {"a"}
        with pytest.raises(InputError, match="an earlier version stored it: put the documents in again with --update"):
            found(index, {"year": {">=": 1980}})
    index_words(tmp_path / "c.csv", tmp_path / "i", encoder, mode="update")
    with SearchIndex.open(tmp_path / "i", encoder) as index:
        assert found(index, {"year": {">=": 1980}}) == {"a"}


def test_numbers_beyond_64_bits_do_not_equal_their_neighbours(tmp_path, encoder, settings):
    hashes = [2**63 - 1, 2**63, 11679230632388718523, 11679230632388718524]
    records = [{"id": str(number), "text": "cat", "hash": value} for number, value in enumerate(hashes)]
    index_words(write_jsonl(tmp_path / "c.jsonl", records), tmp_path / "i", encoder, settings)
    with SearchIndex.open(tmp_path / "i", encoder) as index:
        for number, value in enumerate(hashes):
            assert found(index, filter_of_words([f"hash={value}"])) == {str(number)}
        with pytest.raises(InputError, match="write a greater one as text"):
            found(index, {"hash": hashes[2]})


def test_a_condition_typed_twice_is_refused():
    assert filter_of_words(["year=1990", "year<5"]) == {"year": {"==": "1990", "<": 5}}
    with pytest.raises(InputError, match="tag=b: == on 'tag' is there twice; tag=one,other is either"):
        filter_of_words(["tag=a", "tag=b"])

"""``distilface index`` and ``distilface search`` as typed."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from distilface_st.recipes.app import app


def run(*arguments, **options):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    home = tmp_path_factory.mktemp("index")
    corpus = home / "corpus.jsonl"
    records = [
        {"id": "a", "text": "The cat sleeps on the warm sofa.", "lang": "en"},
        {"id": "b", "text": "He plays the guitar in a small band. The drummer is late.", "lang": "en"},
        {"id": "c", "text": "Quarterly profits rose by ten percent.", "lang": "en", "year": 2020},
    ]
    corpus.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    found = run("index", corpus, home / "index", "--model", "distilface-micro", "--json", "-")
    assert json.loads(found.stdout) == {"documents": 3, "blank": 0, "total": 3}
    return home / "index"


def test_search_in_a_pipe_is_json(folder):
    found = run("search", folder, "music", "-k", 1)
    (result,) = json.loads(found.stdout)["results"]
    (hit,) = result["hits"]
    assert (result["query"], hit["id"], hit["metadata"]) == ("music", "b", {"lang": "en"})
    assert hit["text"][slice(*hit["highlight"])] == "He plays the guitar in a small band."


def test_filters_hybrid_and_queries_from_a_file(folder, tmp_path):
    (tmp_path / "q.txt").write_text("music\n\nearnings of a company\n", encoding="utf-8")
    found = run("search", folder, "--queries", tmp_path / "q.txt", "--filter", "year>=2000", "--hybrid")
    results = json.loads(found.stdout)["results"]
    assert [[hit["id"] for hit in result["hits"]] for result in results] == [["c"], ["c"]]


def test_queries_from_a_pipe(folder):
    found = run("search", folder, "-k", 1, input="a sleeping animal\n")
    assert json.loads(found.stdout)["results"][0]["hits"][0]["id"] == "a"


def test_verify(folder):
    found = run("search", folder, "--verify")
    assert found.exit_code == 0
    assert "is whole: 3 passages" in found.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "x"], "is no index"),
        (["INDEX", "x", "--filter", "year"], "--filter year: give"),
        (["INDEX", "x", "--queries", "q.txt"], "not both"),
        (["INDEX", "x", "--model", "distilface-mini"], "is another model"),
    ],
)
def test_mistakes_are_one_line(folder, arguments, message):
    found = run("search", *(folder if argument == "INDEX" else argument for argument in arguments))
    assert found.exit_code == 1
    assert message in found.stderr
    assert found.stderr.count("\n") == 1


def test_change_options_exclude_each_other(folder, tmp_path):
    (tmp_path / "c.txt").write_text("x\n", encoding="utf-8")
    found = run("index", tmp_path / "c.txt", folder, "--add", "--delete")
    assert (found.exit_code, "one of --add" in found.stderr) == (1, True)


@pytest.mark.parametrize("name", ["q.txt", "queries", "q.csv", "-"])
def test_queries_are_read_as_all_text_is(folder, tmp_path, name):
    text = "music\u2028of a band\r\n\r\nearnings\r\n"
    content = b"\xef\xbb\xbf" + (f"id;query\n1;{text}" if name == "q.csv" else text).encode()
    content = content.replace(b"\r\n\r\nearn", b"\r\n2;earn") if name == "q.csv" else content
    (tmp_path / "q").write_bytes(content)
    given = name if name == "-" else (tmp_path / "q").rename(tmp_path / name)
    found = run("search", folder, "--queries", given, "-k", 1, input=content if name == "-" else None)
    assert [result["query"] for result in json.loads(found.stdout)["results"]] == ["music\u2028of a band", "earnings"]


def test_a_query_in_another_encoding_is_refused_in_one_line(folder):
    for arguments in (["caf\udce9"], ["tea", "--filter", "lang=fr\udce9"]):
        found = run("search", folder, *arguments)
        assert (found.exit_code, found.stderr.count("\n")) == (1, 1)
        assert "is not valid UTF-8" in found.stderr

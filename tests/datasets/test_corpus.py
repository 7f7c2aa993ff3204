from __future__ import annotations

import gzip
import json

import pytest

from distilface_st.datasets.corpus import PASSAGE_CHARACTERS, TextDocument, as_corpus, passages, read_corpus
from distilface_st.errors import InputError


def documents(path, text, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return read_corpus(path, **options).documents


def test_lines_without_blank_ones_are_documents(tmp_path):
    lines = [f"Sentence number {i}." for i in range(30)]
    found = documents(tmp_path / "a.txt", "\n".join(lines))
    assert found == [TextDocument("", (line,)) for line in lines]


def test_a_lone_file_of_prose_gives_its_paragraphs(tmp_path):
    found = documents(tmp_path / "a.txt", "One line\nand another.\n\nA second paragraph.\n")
    assert found == [TextDocument("", ("One line and another.",)), TextDocument("", ("A second paragraph.",))]


@pytest.mark.parametrize(
    "text",
    [
        "# First\n\nIts text.\n\nMore.\n\n## Second ##\nOther text.\n",
        "First\n=====\n\nIts text.\n\nMore.\n\nSecond\n---\nOther text.\n",
    ],
)
def test_headings_are_titles_of_what_stands_below_them(tmp_path, text):
    found = documents(tmp_path / "a.md", text)
    assert found == [TextDocument("First", ("Its text.", "More.")), TextDocument("Second", ("Other text.",))]


def test_headings_of_a_page_are_titles_and_menus_and_scripts_say_nothing(tmp_path):
    page = """<!doctype html><html><head><title>The page</title><style>p { color: red }</style>
    <body><nav>Home | Next</nav><p>Before <em>any</em> heading &amp; after <br>a break.
    <h2>First<a class="headerlink" href="#first">#</a></h2><p>Its text.<script>alert("<p>no</p>")</script></p>
    <table><tr><td>A cell<td>Another</table><h3></h3><h2>Empty</h2></body></html>"""
    expected = [
        TextDocument("The page", ("Before any heading & after", "a break.")),
        TextDocument("First", ("Its text.", "A cell", "Another")),
    ]
    assert documents(tmp_path / "a.html", page) == expected
    inside_main = page.replace("<h2>First", '<div role="main"><h2>First', 1)
    assert documents(tmp_path / "b.htm", inside_main) == expected[1:]
    assert documents(tmp_path / "c.html", "<p>unclosed <b>text <h1>and < & heading") == [
        TextDocument("", ("unclosed text",))
    ]


def test_a_folder_is_read_with_its_subfolders_and_says_what_it_left_out(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / "a.txt").write_text("A note.\n\nOf two paragraphs.")
    (tmp_path / "sub" / "b.md").write_text("# B\n\nText of b.")
    (tmp_path / ".git" / "c.txt").write_text("hidden")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\0")
    (tmp_path / "records.jsonl").write_text(json.dumps({"title": "R", "text": "Text of r."}))
    corpus = read_corpus(tmp_path)
    assert corpus.documents == [
        TextDocument("", ("A note.", "Of two paragraphs.")),
        TextDocument("R", ("Text of r.",)),
        TextDocument("B", ("Text of b.",)),
    ]
    assert corpus.skipped == {".png": 1}


@pytest.mark.parametrize(
    ("record", "columns", "expected"),
    [
        ({"id": "7", "name": "T", "text": "X y"}, (), TextDocument("T", ("X y",))),
        ({"heading": "H", "summary": "S", "body": "X\n\n y"}, (), TextDocument("H", ("X", "y"))),
        ({"question": "Q?", "answer": "A"}, (), TextDocument("Q?", ("A",))),
        ({"anchor": "Q", "positive": "A"}, (), TextDocument("Q", ("A",))),
        ({"only": "X"}, (), TextDocument("", ("X",))),
        ({"foo": "F", "bar": "B"}, ("bar",), TextDocument("", ("B",))),
        ({"foo": "F", "bar": "B"}, ("foo", "bar"), TextDocument("F", ("B",))),
        ({"title": None, "text": "X"}, (), TextDocument("", ("X",))),
    ],
)
def test_fields_of_records(tmp_path, record, columns, expected):
    assert documents(tmp_path / "a.jsonl", json.dumps(record), columns=columns) == [expected]


def test_duplicates_and_blank_documents_are_left_out_and_counted():
    corpus = as_corpus(["A cat.", "a  CAT.", "...", "", ("Title", "A dog.")])
    assert corpus.documents == [TextDocument("", ("A cat.",)), TextDocument("Title", ("A dog.",))]
    assert (corpus.duplicates, corpus.blank, corpus.titled) == (1, 2, 0.5)


def test_a_limit_stops_reading(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.write('{"text": "one a"}\n{"text": "two b"}\nnot json\n')
    assert len(read_corpus(path, limit=2).documents) == 2
    with pytest.raises(InputError, match=r"a.jsonl.gz:3: not valid JSON"):
        read_corpus(path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.png": b"\x89"}, "no file here is text that can be read; found: .png"),
        ({}, "no file here is text"),
        ({"a.txt": b"a\0b"}, "not text"),
        ({"a.txt": "é".encode("latin-1")}, "a.txt:1: not UTF-8"),
        ({"a.jsonl": b'{"a": "x", "b": "y"}'}, "name the field that holds the text"),
        ({"a.jsonl": b'{"text": 3}'}, "no text in field 'text'"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_corpus(tmp_path)


@pytest.mark.parametrize("text", ["word " * 1000, "x" * 5000, "Short. " * 300, "很长的句子" * 400])
def test_passages_hold_the_whole_text_and_are_never_too_long(text):
    found = passages(TextDocument("", (text.strip(), "The end.")))
    assert all(len(passage) <= PASSAGE_CHARACTERS for passage in found)
    assert "".join("".join(found).split()) == "".join(f"{text}The end.".split())
    assert len(found) <= 2 * len(text) / PASSAGE_CHARACTERS + 1

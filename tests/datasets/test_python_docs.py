from __future__ import annotations

import sys

import pytest

from distilface_st.datasets.python_docs import PythonDocs, gather_python_docs, paragraphs_of, words_of


@pytest.fixture(scope="module")
def docs() -> PythonDocs:
    """The standard library alone, as on a machine where nothing else is installed."""
    return gather_python_docs(packages=())


@pytest.fixture
def make_package(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(name: str, **modules: str) -> str:
        (tmp_path / name).mkdir()
        for module, source in {"__init__": "", **modules}.items():
            (tmp_path / name / f"{module}.py").write_text(source, encoding="utf-8")
        return name

    return make


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("Open :func:`~os.path.join` or ``x``.", ["Open os.path.join or x."]),
        ("See `the manual <https://example.org>`_ and :class:`Row <db.Row>`.", ["See the manual and Row."]),
        ("Not *this* but **that**, 2 * 3 * 4.", ["Not this but that, 2 * 3 * 4."]),
        ("Do.\n\n    >>> do()\n    1\n\nThen stop.", ["Do.", "Then stop."]),
        ("Do.\n\nParameters\n----------\nx : int\n    A number.", ["Do.", "x : int A number."]),
        ("Do.\n\nReferences\n----------\n.. [1] Knuth.\n\nMore Knuth.", ["Do."]),
        ("Do.\n\n.. versionadded:: 3.9\n\n.. note::\n    Slow.", ["Do.", "Slow."]),
        ("read(size) -> bytes\n\nRead.", ["Read."]),
        (":param path: The file.\n:returns: Rows.", ["path: The file. returns: Rows."]),
        ("======\nTitle\n======\n", ["Title"]),
        ("   \n\n", []),
    ],
)
def test_markup_headings_and_examples_are_removed(docstring, expected):
    assert paragraphs_of(docstring) == expected


def test_the_standard_library_alone_is_enough_to_train_and_test_on(docs):
    assert len(docs.train) > 800
    assert len(docs.test) > 500
    assert len(docs.neighbours) > 3000
    assert set(docs.counts) == {"stdlib", "topics"}


def test_modules_are_split_and_implementations_stay_with_their_module(docs):
    seen, held_out = ({entry.module for entry in part} for part in (docs.train, docs.test))
    assert seen.isdisjoint(held_out)
    assert held_out < set(sys.stdlib_module_names)
    modules = {entry.name: entry.module for entry in docs.entries}
    assert modules["io.BufferedReader"] == "io", "written in _pyio.py"
    assert not [name for name in modules if name.startswith(("_pyio.", "_pydecimal."))]


def test_no_held_out_text_occurs_in_training_text(docs):
    training = [" ".join(words_of(f"{entry.summary} {entry.body}")) for entry in docs.train]
    training += [" ".join(words_of(text)) for pair in docs.neighbours for text in pair]
    everything = "\n".join(f" {text} " for text in training)
    leaked = [
        entry.name
        for entry in docs.test
        if len(words := words_of(entry.summary)) >= 4 and f" {' '.join(words)} " in everything
    ]
    assert leaked == []


def test_a_pair_says_something_twice_and_each_text_occurs_once(docs):
    for part in (docs.train, docs.test):
        assert all(len(words_of(entry.summary)) >= 3 and len(words_of(entry.body)) >= 6 for entry in part)
        assert len({words_of(entry.summary) for entry in part}) == len(part)
        assert len({entry.body for entry in part}) == len(part)
        assert max(len(entry.body) for entry in part) <= 600


def test_another_choice_of_parts_holds_out_other_modules(docs):
    others = gather_python_docs(packages=(), held_out=(3, 4, 5))
    assert {entry.module for entry in docs.test}.isdisjoint({entry.module for entry in others.test})
    assert [entry.name for entry in others.entries] == [entry.name for entry in docs.entries]


def test_packages_are_read_without_being_imported(make_package):
    source = '''raise RuntimeError("imported")

class Kettle:
    """Boils water for tea.

    Call :meth:`start` and wait until the light goes out.
    """

    if True:
        async def start(self):
            """Switch the heating on. It goes off by itself when the water boils."""
'''
    docs = gather_python_docs([make_package("kitchen_for_tests", stove=source), "no_such_package_here"])
    found = [entry for entry in docs.train if entry.module == "kitchen_for_tests"]
    assert [(entry.name, entry.summary, entry.body) for entry in found] == [
        (
            "kitchen_for_tests.stove.Kettle",
            "Boils water for tea.",
            "Call start and wait until the light goes out.",
        ),
        (
            "kitchen_for_tests.stove.Kettle.start",
            "Switch the heating on.",
            "It goes off by itself when the water boils.",
        ),
    ]
    assert (found[1].summary, found[1].body) in docs.neighbours
    assert docs.counts["kitchen_for_tests"] == 2
    assert "no_such_package_here" not in docs.counts
    assert "kitchen_for_tests" not in sys.modules


def test_a_package_that_repeats_held_out_text_is_not_trained_on(make_package, docs):
    held_out = max(docs.test, key=lambda entry: len(words_of(entry.summary)))
    copied = (
        f'def copy():\n    """{held_out.summary.upper()}\n\n    Copied from somewhere else without a word of it."""\n'
    )
    quoted = f'def quote():\n    """Says something of its own.\n\n    As they say: {held_out.summary}"""\n'
    own = 'def own():\n    """Says nothing but its own.\n\n    What it says was said by nobody before it."""\n'
    found = gather_python_docs([make_package("copies_for_tests", a=copied, b=quoted, c=own)])
    assert [entry.name for entry in found.train if entry.module == "copies_for_tests"] == ["copies_for_tests.c.own"]


def test_a_file_that_is_no_python_is_passed_over(make_package):
    package = make_package("broken_for_tests", bad="def (:", good='"""A module that can be read."""')
    assert gather_python_docs([package]).counts["broken_for_tests"] == 1

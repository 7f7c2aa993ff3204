from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import datasets
import numpy as np
import pytest

from distilface_st.datasets.sts import AVERAGE6, STSSubset, STSTask, load_scored_pairs, load_sts
from distilface_st.errors import InputError

SUBSETS = {
    "STS12": ("MSRpar", "MSRvid", "SMTeuroparl", "surprise.OnWN", "surprise.SMTnews"),
    "STS16": ("answer-answer", "headlines", "plagiarism", "postediting", "question-question"),
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A SentEval-layout folder of two pairs a subset, the second of STS16's headlines without a score."""
    for name, subsets in SUBSETS.items():
        folder = tmp_path / f"{name}-en-test"
        folder.mkdir()
        for subset in subsets:
            pairs = f'{subset} "one\tand two\nthree\t\x85four\u2028\n'
            (folder / f"STS.input.{subset}.txt").write_text(pairs, encoding="utf-8", newline="")
            gold = "5.0\n\n" if (name, subset) == ("STS16", "headlines") else "5.0\n0\n"
            (folder / f"STS.gs.{subset}.txt").write_text(gold, newline="")
    (tmp_path / "STSBenchmark").mkdir()
    for split, score in {"train": "1", "dev": "2.5", "test": "3"}.items():
        lines = f'news\theadlines\t2015\t0001\t{score}\tA "b\tc d\tlicence\nnews\tx\ty\t2\t0\te\tf\n'
        (tmp_path / "STSBenchmark" / f"sts-{split}.csv").write_text(lines)
    (tmp_path / "SICK").mkdir()
    for file, score in {"SICK_train.txt": 1, "SICK_trial.txt": 2, "SICK_test_annotated.txt": 3}.items():
        header = "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\n"
        (tmp_path / "SICK" / file).write_text(f"{header}1\ta b\tc d\t{score}\tNEUTRAL\n2\te\tf\t5\tENTAILMENT\n")
    return tmp_path


def test_a_year_is_its_subsets_in_order(source: Path) -> None:
    task = load_sts("STS12", source)
    assert [subset.name for subset in task.subsets] == list(SUBSETS["STS12"])
    assert (task.name, task.split, task.label, len(task), task.merged) == ("STS12", "test", "STS12", 10, False)
    assert task.sentences1[:2] == ['MSRpar "one', "three"]
    assert task.scores.tolist() == [5.0, 0.0] * 5


def test_only_newlines_end_a_line(source: Path) -> None:
    assert load_sts("STS12", source).sentences2[1] == "\x85four\u2028"


def test_carriage_returns_before_newlines_and_a_byte_order_mark_are_no_text(source: Path) -> None:
    expected = load_sts("STS12", source).fingerprint
    for file in (source / "STS12-en-test").iterdir():
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert load_sts("STS12", source).fingerprint == expected


def test_a_missing_last_newline_loses_no_line(source: Path) -> None:
    for file in (source / "STS12-en-test").iterdir():
        file.write_bytes(file.read_bytes().removesuffix(b"\n"))
    assert len(load_sts("STS12", source)) == 10


def test_pairs_without_a_gold_score_are_dropped(source: Path) -> None:
    task = load_sts("STS16", source)
    assert [len(subset) for subset in task.subsets] == [2, 1, 2, 2, 2]


@pytest.mark.parametrize(("split", "label", "score"), [("test", "STS-B", 3), ("dev", "STS-B-dev", 2.5)])
def test_stsb_has_splits(source: Path, split: str, label: str, score: float) -> None:
    task = load_sts("STS-B", source, split)
    assert (task.name, task.split, task.label) == ("STS-B", split, label)
    assert (task.sentences1, task.sentences2) == (['A "b', "e"], ["c d", "f"])
    assert task.scores.tolist() == [score, 0]


@pytest.mark.parametrize(("split", "score"), [("train", 1), ("dev", 2), ("test", 3)])
def test_sick_has_splits_and_may_lie_beside_the_folder(source: Path, split: str, score: float) -> None:
    task = load_sts("SICK-R", source, split)
    assert (task.sentences1, task.sentences2, task.scores.tolist()) == (["a b", "e"], ["c d", "f"], [score, 5])
    assert load_sts("SICK-R", source / "STSBenchmark", split).fingerprint == task.fingerprint


def test_a_fingerprint_tells_sentences_and_scores_apart() -> None:
    def fingerprint(first: str, score: float) -> str:
        return STSTask("x", (STSSubset("x", [first], ["b"], np.array([score])),)).fingerprint

    assert fingerprint("a", 1) == fingerprint("a", 1)
    assert len({fingerprint("a", 1), fingerprint("a", 2), fingerprint("c", 1)}) == 3


def put(source: Path, name: str, line: int, content: bytes) -> Path:
    file = source / name
    lines = file.read_bytes().split(b"\n")
    lines[line - 1] = content
    file.write_bytes(b"\n".join(lines))
    return file


@pytest.mark.parametrize(
    ("task", "file", "line", "content", "problem"),
    [
        ("STS12", "STS12-en-test/STS.input.MSRvid.txt", 2, b"one column", "1 tab-separated column"),
        ("STS12", "STS12-en-test/STS.input.MSRvid.txt", 2, b" \tb", "a sentence is empty"),
        (
            "STS12",
            "STS12-en-test/STS.input.MSRvid.txt",
            2,
            b"caf\xe9\tb",
            "not UTF-8 (byte 0xe9 at byte 4 of the line)",
        ),
        ("STS12", "STS12-en-test/STS.gs.MSRvid.txt", 1, b"5.01", "'5.01', not a number from 0 to 5"),
        ("STS12", "STS12-en-test/STS.gs.MSRvid.txt", 1, b"-1", "not a number from 0 to 5"),
        ("STS12", "STS12-en-test/STS.gs.MSRvid.txt", 1, b"nan", "not a number from 0 to 5"),
        ("STS12", "STS12-en-test/STS.gs.MSRvid.txt", 1, b"high", "'high', not a number"),
        ("STS-B", "STSBenchmark/sts-test.csv", 2, b"news\tx\ty\t2\t0\te", "6 tab-separated column"),
        ("STS-B", "STSBenchmark/sts-test.csv", 2, b"news\tx\ty\t2\t6\te\tf", "'6', not a number from 0 to 5"),
        ("SICK-R", "SICK/SICK_test_annotated.txt", 2, b"1\ta b\tc d", "3 tab-separated column"),
        ("SICK-R", "SICK/SICK_test_annotated.txt", 1, b"1\ta b\tc d\t3", "the header"),
    ],
)
def test_malformed_data_is_named_with_file_and_line(
    source: Path, task: str, file: str, line: int, content: bytes, problem: str
) -> None:
    path = put(source, file, line, content)
    with pytest.raises(InputError, match=rf"{re.escape(str(path))}:{line}: .*{re.escape(problem)}"):
        load_sts(task, source)


@pytest.mark.parametrize(("file", "gold_lines", "short"), [("gs", "1\n", "gs"), ("gs", "1\n2\n3\n", "input")])
def test_line_counts_that_differ_are_named(source: Path, file: str, gold_lines: str, short: str) -> None:
    folder = source / "STS12-en-test"
    (folder / f"STS.{file}.MSRpar.txt").write_text(gold_lines)
    line = {"gs": 2, "input": 3}[short]
    with pytest.raises(InputError, match=rf"STS\.{short}\.MSRpar\.txt:{line}: missing"):
        load_sts("STS12", source)


def test_a_missing_subset_or_folder_is_named(source: Path) -> None:
    (source / "STS12-en-test" / "STS.gs.MSRpar.txt").unlink()
    with pytest.raises(InputError, match=r"STS\.gs\.MSRpar\.txt is missing"):
        load_sts("STS12", source)
    with pytest.raises(InputError, match=r"STS13-en-test/STS\.input\.FNWN\.txt is missing"):
        load_sts("STS13", source)
    with pytest.raises(InputError, match="is not a folder"):
        load_sts("STS12", source / "nowhere")


def test_unknown_names_and_splits_are_refused(source: Path) -> None:
    with pytest.raises(InputError, match="'STS17' is no STS set: choose from STS12"):
        load_sts("STS17", source)
    with pytest.raises(InputError, match="'valid' is no split"):
        load_sts("STS-B", source, "valid")
    with pytest.raises(InputError, match="STS12 has a test split only"):
        load_sts("STS12", source, "dev")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    """The Hub, answering every request with the same two pairs; gives the requests."""
    asked = []

    def load_dataset(name: str, revision: str, split: str) -> datasets.Dataset:
        asked.append((name, revision, split))
        return datasets.Dataset.from_dict({"sentence1": ["a", "b"], "sentence2": ["c", "d"], "score": [1.5, 4]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def test_the_hub_is_asked_for_pinned_revisions(hub: list[tuple[str, str, str]]) -> None:
    for name in (*AVERAGE6, "SICK-R"):
        task = load_sts(name)
        assert (task.sentences1, task.sentences2, task.scores.tolist()) == (["a", "b"], ["c", "d"], [1.5, 4])
        assert task.merged == name.startswith("STS1")
    ids = [name for name, _, _ in hub]
    assert ids == [*(f"mteb/sts{year}-sts" for year in range(12, 17)), "mteb/stsbenchmark-sts", "mteb/sickr-sts"]
    assert all(re.fullmatch("[0-9a-f]{40}", revision) for _, revision, _ in hub)
    assert {split for _, _, split in hub} == {"test"}


def test_the_hub_calls_the_dev_split_validation(hub: list[tuple[str, str, str]]) -> None:
    assert load_sts("STS-B", split="dev").label == "STS-B-dev"
    assert hub[0][2] == "validation"
    with pytest.raises(InputError, match="SICK-R on the Hub has a test split only"):
        load_sts("SICK-R", split="dev")


def test_malformed_hub_data_is_named_with_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "score": [1.5, 7]}
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.Dataset.from_dict(rows))
    with pytest.raises(InputError, match=r"mteb/sts12-sts \(test\), row 2: the score is 7"):
        load_sts("STS12")
    del rows["score"]
    with pytest.raises(InputError, match="no column score"):
        load_sts("STS12")


def test_a_hub_out_of_reach_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*_: object, **__: object) -> None:
        raise ConnectionError("offline")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(InputError, match=r"STS12 cannot be had from the Hub.*SentEval.*offline"):
        load_sts("STS12")


PAIRS = [("A man eats.", 'He said "no", twice.', 0.25), ("x", "y", -3.0)]


def write_pairs(folder: Path, suffix: str, header: bool = False) -> Path:
    path = folder / f"mine{suffix}"
    if suffix == ".parquet":
        datasets.Dataset.from_list([{"sentence1": a, "sentence2": b, "score": s} for a, b, s in PAIRS]).to_parquet(path)
        return path
    if suffix == ".jsonl":
        lines = [json.dumps({"sentence1": a, "sentence2": b, "score": s, "id": 1}) for a, b, s in PAIRS]
    elif suffix == ".csv":
        lines = [f'"{a}","{b.replace(chr(34), chr(34) * 2)}",{s}' for a, b, s in PAIRS]
        lines = ["sentence1,sentence2,score", *lines] if header else lines
    else:
        lines = [f"{s}\t{a}\t{b}" if header else f"{a}\t{b}\t{s}" for a, b, s in PAIRS]
        lines = ["Score\tsentence1\tsentence2", *lines] if header else lines
    path.write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("suffix", "header"), [(".jsonl", False), (".parquet", False), *((s, h) for s in (".tsv", ".csv") for h in (0, 1))]
)
def test_scored_pairs_are_read_from_every_format(tmp_path: Path, suffix: str, header: bool) -> None:
    task = load_scored_pairs(write_pairs(tmp_path, suffix, header))
    assert list(zip(task.sentences1, task.sentences2, task.scores.tolist(), strict=True)) == PAIRS
    assert task.label == "mine"


def test_scored_pairs_with_decimal_commas_and_other_separators(tmp_path: Path) -> None:
    files = {
        "a.csv": "\ufeffsentence1;sentence2;score\r\na, b;c;3,5\r\nd;e;-0,125\r\n",
        "b.csv": 'a, b;c;3,5\nd;e;"-0,125"\n',
        "c.tsv": "a, b\tc\t3,5\nd\te\t-0,125\n",
        "d.csv": '"a, b",c,"3,5"\nd,e,-0.125\n',
        "e.tsv.gz": "a, b\tc\t3.5\nd\te\t-0,125\n",
    }
    for name, content in files.items():
        data = content.encode()
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        task = load_scored_pairs(tmp_path / name)
        assert (task.name, task.sentences1, task.sentences2) == (name[0], ["a, b", "d"], ["c", "e"])
        assert task.scores.tolist() == [3.5, -0.125]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("p.tsv", b"a\tb\t1\na\tb\n", "p.tsv:2: 2 column(s), where 3 are needed"),
        ("p.tsv", b"a\tb\tlabel\n", "p.tsv:1: the score is 'label', not a finite number. A header must name"),
        ("p.tsv", b"a\tb\t1\na\tb\tinf\n", "p.tsv:2: the score is 'inf'"),
        ("p.tsv", b"a\tb\t1\n\xff\tb\t1\n", "p.tsv:2: not UTF-8"),
        ("p.csv", b'a,b,1\n"a,b,1\n', "p.csv:2: cannot be read as CSV"),
        ("p.csv", b"a,b,1\n,b,1\n", "p.csv:2: a sentence is empty"),
        ("p.jsonl", b'{"sentence1": "a", "sentence2": "b"}\n', "p.jsonl:1: not an object with the keys"),
        ("p.jsonl", b"[1, 2]\n", "p.jsonl:1: a JSON object a line is needed, found a list"),
        ("p.jsonl", b'{"sentence1": 1, "sentence2": "b", "score": 2}\n', "p.jsonl:1: a sentence is empty or not text"),
        ("p.jsonl", b'{"sentence1": "a", "sentence2": "b", "score": null}\n', "p.jsonl:1: the score is None"),
        ("p.jsonl", b'{"sentence1": "a", "sentence2": "b", "score": true}\n', "p.jsonl:1: the score is True"),
        ("p.jsonl", b"{\n", "p.jsonl:1: not valid JSON"),
        ("p.tsv", b"", "there is no pair"),
        ("p.txt", b"a\tb\t1\n", "scored pairs are read from .tsv, .csv, .jsonl or .parquet"),
        ("p.csv", b"a,b,3,5\na,b,1,0\n", "p.csv:1: 4 column(s), where 3 are needed"),
        ("p.csv", b"sentence1,sentence2,score\na,b,3,5\n", "p.csv:2: 4 column(s), where 3 are needed"),
        ("p.csv", b"a;b;1,500\n", "p.csv:1: the score is '1,500'"),
        ("p.jsonl", b'{"sentence1": "\\ud800", "sentence2": "b", "score": 2}\n', "half a surrogate pair"),
    ],
)
def test_malformed_scored_pairs_are_named_with_file_and_line(
    tmp_path: Path, name: str, content: bytes, problem: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=re.escape(problem)):
        load_scored_pairs(tmp_path / name)


def test_a_missing_file_of_scored_pairs_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.tsv is missing"):
        load_scored_pairs(tmp_path / "none.tsv")


def test_a_subset_needs_as_many_scores_as_pairs() -> None:
    with pytest.raises(InputError, match="as many of each"):
        STSSubset("x", ["a"], ["b"], np.array([1.0, 2.0]))


@pytest.mark.slow
def test_real_sets_have_the_literature_s_numbers_of_pairs(data_dir: Path) -> None:
    sizes = {name: len(load_sts(name, data_dir / "sts")) for name in AVERAGE6}
    assert sizes == {"STS12": 3108, "STS13": 1500, "STS14": 3750, "STS15": 3000, "STS16": 1186, "STS-B": 1379}
    assert len(load_sts("STS-B", data_dir / "sts", "dev")) == 1500

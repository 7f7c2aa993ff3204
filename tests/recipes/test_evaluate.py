from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sentence_transformers import SentenceTransformer

from distilface_st.datasets.sts import load_scored_pairs, load_sts
from distilface_st.evaluation.sts import STSEvaluator

if TYPE_CHECKING:
    from collections.abc import Callable

    from typer.testing import Result

SUBSETS = {
    "STS12": ("MSRpar", "MSRvid", "SMTeuroparl", "surprise.OnWN", "surprise.SMTnews"),
    "STS13": ("FNWN", "headlines", "OnWN"),
    "STS14": ("deft-forum", "deft-news", "headlines", "images", "OnWN", "tweet-news"),
    "STS15": ("answers-forums", "answers-students", "belief", "headlines", "images"),
    "STS16": ("answer-answer", "headlines", "plagiarism", "postediting", "question-question"),
}
PAIRS = [
    ("a man ran", "the man ran", 4.5),
    ("a red car", "the old house", 0.5),
    ("she ate fish", "he ate a cat", 2.0),
    ("one day in town", "a day in the city", 3.5),
]


@pytest.fixture(scope="session")
def sts_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SentEval-layout folder of four pairs a subset."""
    folder = tmp_path_factory.mktemp("sts")
    for name, subsets in SUBSETS.items():
        home = folder / f"{name}-en-test"
        home.mkdir()
        for subset in subsets:
            (home / f"STS.input.{subset}.txt").write_text("".join(f"{a} {subset}\t{b}\n" for a, b, _ in PAIRS))
            (home / f"STS.gs.{subset}.txt").write_text("".join(f"{score}\n" for *_, score in PAIRS))
    (folder / "STSBenchmark").mkdir()
    for split in ("dev", "test"):
        lines = (f"news\tx\ty\t{i}\t{score}\t{a} {split}\t{b}\n" for i, (a, b, score) in enumerate(PAIRS))
        (folder / "STSBenchmark" / f"sts-{split}.csv").write_text("".join(lines))
    return folder


@pytest.fixture(scope="session")
def model(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    SentenceTransformer(str(tiny_encoder), device="cpu").save(str(folder))
    return folder


@pytest.fixture
def pairs_file(tmp_path: Path) -> Path:
    file = tmp_path / "mine.tsv"
    file.write_text("".join(f"{a}\t{b}\t{score}\n" for a, b, score in PAIRS))
    return file


def test_all_sets_are_scored_into_documented_json(invoke: Callable[..., Result], model: Path, sts_dir: Path) -> None:
    result = invoke("evaluate", model, "--sts-dir", sts_dir, "--device", "cpu", "--json", "-")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    expected = ["model", "aggregation", "scores", "subsets", "average5", "average6", "pairs", "seconds", "versions"]
    assert list(report)[: len(expected)] == expected
    assert list(report["scores"]) == ["STS12", "STS13", "STS14", "STS15", "STS16", "STS-B"]
    assert report["pairs"] == {"STS12": 20, "STS13": 12, "STS14": 24, "STS15": 20, "STS16": 20, "STS-B": 4}
    assert report["model"] == str(model)
    task = load_sts("STS12", sts_dir)
    (score,) = STSEvaluator(task).score(SentenceTransformer(str(model), device="cpu"))
    assert report["scores"]["STS12"] == pytest.approx(100 * score.total.spearman, abs=0.5)
    assert "average of 5" in result.stderr


def test_the_table_is_for_the_eye_and_stdout_stays_empty(
    invoke: Callable[..., Result], model: Path, sts_dir: Path
) -> None:
    result = invoke("evaluate", model, "--sts-dir", sts_dir, "--tasks", "STS12, STS-B", "--device", "cpu")
    assert result.stdout == ""
    assert "STS12" in result.stderr
    assert "STS13" not in result.stderr
    assert "average" not in result.stderr


def test_the_dev_split_is_stsb_alone_and_named_so(invoke: Callable[..., Result], model: Path, sts_dir: Path) -> None:
    result = invoke("evaluate", model, "--sts-dir", sts_dir, "--split", "dev", "--device", "cpu", "--json", "-")
    report = json.loads(result.stdout)
    assert list(report["scores"]) == ["STS-B-dev"]
    assert report["average5"] is None


def test_own_pairs_are_scored_alone_or_beside_the_sets(
    invoke: Callable[..., Result], model: Path, sts_dir: Path, pairs_file: Path
) -> None:
    alone = invoke("evaluate", model, "--eval-file", pairs_file, "--device", "cpu", "--json", "-")
    assert list(json.loads(alone.stdout)["scores"]) == ["mine"]
    (score,) = STSEvaluator(load_scored_pairs(pairs_file)).score(SentenceTransformer(str(model), device="cpu"))
    assert json.loads(alone.stdout)["scores"]["mine"] == pytest.approx(100 * score.total.spearman)
    options = ["--eval-file", pairs_file, "--sts-dir", sts_dir, "--tasks", "STS-B"]
    beside = invoke("evaluate", model, *options, "--device", "cpu", "--json", "-")
    assert list(json.loads(beside.stdout)["scores"]) == ["STS-B", "mine"]


def test_json_and_csv_files_hold_sets_and_subsets(
    invoke: Callable[..., Result], model: Path, sts_dir: Path, tmp_path: Path
) -> None:
    options = ["--tasks", "STS13", "--aggregation", "wmean", "--device", "cpu"]
    files = ["--json", tmp_path / "new" / "r.json", "--csv", tmp_path / "new" / "r.csv"]
    assert invoke("evaluate", model, "--sts-dir", sts_dir, *options, *files).exit_code == 0
    report = json.loads((tmp_path / "new" / "r.json").read_text())
    assert report["aggregation"] == "wmean"
    with (tmp_path / "new" / "r.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["subset"] for row in rows] == ["", *SUBSETS["STS13"]]
    assert float(rows[0]["spearman"]) == report["scores"]["STS13"]
    assert float(rows[1]["spearman"]) == report["subsets"]["STS13"]["FNWN"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--tasks", "STS17"], "'STS17' is no STS set"),
        (["--aggregation", "median"], "'median' is no aggregation"),
        (["--split", "valid"], "'valid' is no split"),
        (["--sts-dir", "nowhere"], "nowhere is not a folder"),
        (["--eval-file", "none.tsv"], "none.tsv is missing"),
    ],
)
def test_mistakes_are_one_line(
    invoke: Callable[..., Result], model: Path, sts_dir: Path, options: list[str], problem: str
) -> None:
    result = invoke("evaluate", model, "--sts-dir", sts_dir, *options, "--device", "cpu")
    assert result.exit_code == 1
    assert problem in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""


@pytest.mark.slow
def test_minilm_scores_what_is_published_from_the_command_line(
    invoke: Callable[..., Result], minilm: Path, data_dir: Path, tmp_path: Path
) -> None:
    file = tmp_path / "r.json"
    tasks = ["--tasks", "STS16,STS-B"]
    assert invoke("evaluate", minilm, "--sts-dir", data_dir / "sts", *tasks, "--json", file).exit_code == 0
    scores = json.loads(file.read_text())["scores"]
    assert scores == pytest.approx({"STS16": 78.99, "STS-B": 82.03}, abs=0.01)

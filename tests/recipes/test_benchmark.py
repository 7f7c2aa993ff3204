from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from distilface_st.models.build import build_model
from distilface_st.models.save import save_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from typer.testing import Result


@pytest.fixture(scope="module")
def model_folder(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(build_model(tiny_encoder, layers="last", device="cpu"), folder)
    return folder


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    text = tmp_path / "lines.txt"
    text.write_text("The man ran to town.\nA big red house.\nShe ate fish by day.\n")
    return ["--text", str(text), "--variants", "torch", "--repeats", "1", "--starts", "1", "--passages", "1"]


@pytest.mark.slow
def test_a_benchmark_lands_in_tables_json_csv_and_plot(
    invoke: Callable[..., Result], model_folder: Path, options: list[str], tmp_path: Path
) -> None:
    (tmp_path / "sts" / "STSBenchmark").mkdir(parents=True)
    rows = [("a man ran", "the man ran", 4), ("a red car", "an old house", 1), ("she ate", "he ate fish", 2)]
    lines = (f"news\tx\ty\t{i}\t{score}\t{a}\t{b}\n" for i, (a, b, score) in enumerate(rows))
    (tmp_path / "sts" / "STSBenchmark" / "sts-test.csv").write_text("".join(lines))
    files = ["--json", tmp_path / "b.json", "--csv", tmp_path / "b.csv", "--plot", tmp_path / "b.png"]
    result = invoke("benchmark", model_folder, *options, "--sts-dir", tmp_path / "sts", "--tasks", "STS-B", *files)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    report = json.loads((tmp_path / "b.json").read_text())
    assert [(one["model"], one["variant"]) for one in report["variants"]] == [("tiny", "torch")]
    assert report["variants"][0]["figures"]["one_by_one"]["sentences"] == 6
    with (tmp_path / "b.csv").open() as file:
        assert [int(row["order"]) for row in csv.DictReader(file)] == list(range(1, len(report["timings"]) + 1))
    assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")
    for heading in ("disk MB", "ms/sentence", "Sentences/s at batch 32", "mean cosine", "computes in"):
        assert heading in result.stderr
    assert max(map(len, result.stderr.splitlines())) <= 140


@pytest.mark.parametrize(
    ("added", "problem"),
    [
        (["--exports", "onnx-int4"], "There is no export 'onnx-int4': choose from onnx-fp32"),
        (["--variants", "torch,jax"], "There is no variant 'jax': choose from torch"),
        (["--repeats", "0"], "repeats is 0: it must be at least 1."),
        (["--threads", "0"], "threads is 0"),
        (["--plot", "chart.xyz"], "chart.xyz: a plot's name must end in one of"),
        (["--sts-dir", "nowhere"], "nowhere is not a folder"),
        (["--text", "nowhere.txt"], "nowhere.txt"),
        (["--variants", "edge"], "Nothing to run"),
    ],
)
def test_mistakes_are_one_line(
    invoke: Callable[..., Result], model_folder: Path, options: list[str], added: list[str], problem: str
) -> None:
    result = invoke("benchmark", model_folder, *options, *added)
    assert result.exit_code == 1
    assert problem in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_the_former_name_of_variants_works_and_is_hidden(invoke: Callable[..., Result], model_folder: Path) -> None:
    result = invoke("benchmark", model_folder, "--arms", "torch,jax")
    assert result.exit_code == 1
    assert "There is no variant 'jax'" in result.stderr
    assert "--arms" not in invoke("benchmark", "--help").stdout


def test_a_folder_that_is_not_there_is_one_line(invoke: Callable[..., Result], options: list[str]) -> None:
    result = invoke("benchmark", "./nowhere", *options)
    assert result.exit_code == 1
    assert result.stderr.strip() == "error: ./nowhere: no such folder."


def test_a_plot_without_matplotlib_names_the_extra(
    invoke: Callable[..., Result], model_folder: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.backend_bases", None)
    result = invoke("benchmark", model_folder, *options, "--plot", "b.png")
    assert result.exit_code == 1
    assert result.stderr.strip().endswith('run `pip install "distilface-st[plots]"`.')

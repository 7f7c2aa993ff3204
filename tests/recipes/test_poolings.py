from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import make_encoder

if TYPE_CHECKING:
    from collections.abc import Callable

    from typer.testing import Result


@pytest.fixture(scope="session")
def stsb_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stsb")
    (folder / "STSBenchmark").mkdir()
    rows = [("a man ran", "the man ran", 4), ("a red car", "an old house", 1), ("she ate", "he ate fish", 2)]
    for split in ("dev", "test"):
        lines = (f"news\tx\ty\t{i}\t{score}\t{a}\t{b}\n" for i, (a, b, score) in enumerate(rows))
        (folder / "STSBenchmark" / f"sts-{split}.csv").write_text("".join(lines))
    return folder


def test_every_pooling_lands_in_json_csv_and_plot(
    invoke: Callable[..., Result], tiny_encoder: Path, stsb_dir: Path, tmp_path: Path
) -> None:
    options = ["--sts-dir", stsb_dir, "--tasks", "STS-B", "--device", "cpu"]
    files = ["--json", tmp_path / "p.json", "--csv", tmp_path / "p.csv", "--plot", tmp_path / "p.png"]
    result = invoke("poolings", tiny_encoder, *options, *files)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    study = json.loads((tmp_path / "p.json").read_text())
    assert len(study["results"]) == 6 * 3 * 3
    scores = [row["average"] for row in study["results"]]
    assert scores == sorted(scores, reverse=True)
    with (tmp_path / "p.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["STS-B"]) for row in rows] == scores
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert "second_to_last" in result.stderr


def test_token_poolings_and_split_are_chosen_and_what_does_not_fit_is_named(
    invoke: Callable[..., Result], stsb_dir: Path, tmp_path: Path
) -> None:
    shallow = make_encoder(tmp_path / "shallow", "bert", 2)
    options = ["--sts-dir", stsb_dir, "--split", "dev", "--pooling-mode", "mean, weightedmean", "--device", "cpu"]
    result = invoke("poolings", shallow, *options, "--json", "-")
    study = json.loads(result.stdout)
    assert {row["pooling_mode"] for row in study["results"]} == {"mean", "weightedmean"}
    assert list(study["pairs"]) == ["STS-B-dev"]
    assert "Left out: last_four" in result.stderr


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--pooling-mode", "median"], "median"),
        (["--aggregation", "median"], "'median' is no aggregation"),
        (["--tasks", "STS12"], "is missing"),
        (["--plot", "chart.xyz"], "chart.xyz: a plot's name must end in one of"),
    ],
)
def test_mistakes_are_one_line(
    invoke: Callable[..., Result], tiny_encoder: Path, stsb_dir: Path, options: list[str], problem: str
) -> None:
    result = invoke("poolings", tiny_encoder, "--sts-dir", stsb_dir, "--tasks", "STS-B", "--device", "cpu", *options)
    assert result.exit_code == 1
    assert problem in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_plot_without_matplotlib_names_the_extra(
    invoke: Callable[..., Result], tiny_encoder: Path, stsb_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.backend_bases", None)
    options = ["--sts-dir", stsb_dir, "--tasks", "STS-B", "--device", "cpu", "--plot", tmp_path / "p.png"]
    result = invoke("poolings", tiny_encoder, *options)
    assert result.exit_code == 1
    assert result.stderr.strip().endswith('run `pip install "distilface-st[plots]"`.')
    assert "poolings of" not in result.stderr  # said before anything is scored

"""The model that commands use where none is named; here a tiny one in its place."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest

from distilface_st import EdgeEncoder, InputError, pretrained, shipped_model
from distilface_st.pretrained import resolve_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from typer.testing import Result


@pytest.fixture(autouse=True)
def assets(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(pretrained, "ASSETS", tmp_path / "assets")
    shutil.copytree(packed, tmp_path / "assets" / "mini")
    return tmp_path / "assets"


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    file = tmp_path / "pairs.tsv"
    file.write_text("a cat\ta dog\t3\nthe king\tthe queen\t4\na red car\tmusic\t0\n")
    return file


def test_names_of_shipped_models_stand_for_their_folders(assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert resolve_name("distilface-mini") == resolve_name("mini") == str(assets / "mini") == str(shipped_model())
    assert resolve_name("some/model") == "some/model"
    with pytest.raises(InputError, match="This installation has no distilface-micro"):
        resolve_name("distilface-micro")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mini").mkdir()
    assert resolve_name("mini") == "mini"


def test_similarity_needs_no_model(invoke: Callable[..., Result]):
    assert invoke("similarity", "a cat", "a cat").stdout.strip() == "1.0000"
    assert invoke("similarity", "a cat", "a cat", "--runtime", "onnxruntime").stdout.strip() == "1.0000"


def test_encode_needs_no_model(invoke: Callable[..., Result], tmp_path: Path):
    (tmp_path / "lines.txt").write_text("a cat\nthe war\n")
    result = invoke("encode", tmp_path / "lines.txt", tmp_path / "out.npy", "--normalize")
    assert result.exit_code == 0, result.stderr
    found, expected = np.load(tmp_path / "out.npy"), EdgeEncoder().encode(["a cat", "the war"])
    assert (found * expected).sum(axis=1).min() > 0.98


def test_evaluate_needs_no_model(invoke: Callable[..., Result], scored: Path):
    result = invoke("evaluate", "--eval-file", scored, "--json", "-")
    assert json.loads(result.stdout)["model"] == "distilface-mini"


def test_export_needs_no_model(invoke: Callable[..., Result], tmp_path: Path):
    result = invoke("export", "--output", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert EdgeEncoder(tmp_path / "out").manifest.model["name"] == "distilface-mini"


def test_benchmark_needs_no_model(invoke: Callable[..., Result], monkeypatch: pytest.MonkeyPatch):
    asked: list[list[str]] = []

    def refuse(models: list[str], **_: object) -> None:
        asked.append(models)
        raise InputError("enough")

    monkeypatch.setattr("distilface_st.benchmark.run.benchmark_models", refuse)
    assert invoke("benchmark").exit_code == 1
    assert asked == [["distilface-mini"]]


@pytest.mark.parametrize("name", ["distilface-mini", "mini"])
def test_a_shipped_model_can_be_trained_further(
    invoke: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    monkeypatch.chdir(tmp_path)
    lines = "\n".join(f"a cat and {number} dogs in the city" for number in range(60))
    (tmp_path / "lines.txt").write_text(lines)
    arguments = (
        "--base",
        name,
        "--steps",
        "2",
        "--batch-size",
        "4",
        "--layers",
        "last",
        "--device",
        "cpu",
        "--views",
        "dropout",
    )
    result = invoke("train", tmp_path / "lines.txt", "--output", tmp_path / "run", *arguments)
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()

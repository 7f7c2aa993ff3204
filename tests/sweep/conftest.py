"""A small sweep of a tiny encoder, and what helps to look at one."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest

from distilface_st.datasets.sentences import load_sentences
from distilface_st.datasets.sts import load_scored_pairs
from distilface_st.evaluation.sts import STSEvaluator
from distilface_st.sweep import Choice, Space, SweepPlan
from distilface_st.training.config import TrainingConfig

from ..helpers import SCORED_PAIRS, random_sentences


@pytest.fixture(autouse=True)
def quick(quick_runs):
    """Trials draw no curves of their own, which take as long as their training."""


@pytest.fixture(scope="session")
def session_plan(tiny_encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "text.txt").write_text("\n".join(random_sentences(40)))
    (folder / "mine.tsv").write_text(SCORED_PAIRS)
    return SweepPlan(
        Space((Choice("temperature", (0.05, 0.5)),)),
        TrainingConfig(
            encoder=str(tiny_encoder), layers="first_last", max_steps=2, batch_size=4, eval_steps=2, precision="fp32"
        ),
        load_sentences(folder / "text.txt", cache_dir=folder / "cache"),
        STSEvaluator(load_scored_pairs(folder / "mine.tsv"), write_csv=False),
        folder / "sweep",
        device="cpu",
        train_arguments=(str(folder / "text.txt"), "--eval-file", str(folder / "mine.tsv")),
    )


@pytest.fixture
def plan(session_plan, tmp_path):
    return replace(session_plan, output=tmp_path / "sweep")


def rows(folder):
    with (folder / "trials.csv").open() as file:
        return list(csv.DictReader(file))

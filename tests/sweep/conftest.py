"""A small sweep of a tiny encoder, and what helps to look at one."""

from __future__ import annotations

import csv
import random

import pytest

from distilface_st.datasets.sentences import load_sentences
from distilface_st.datasets.sts import load_scored_pairs
from distilface_st.evaluation.sts import STSEvaluator
from distilface_st.sweep import Choice, Space, SweepPlan
from distilface_st.training.config import TrainingConfig

from ..conftest import COMMON_WORDS

PAIRS = "a cat\ta dog\t4\na cat\tthe war\t1\na king\ta queen\t5\na king\ta car\t0\n"


@pytest.fixture
def text(tmp_path):
    random.seed(0)
    lines = dict.fromkeys(" ".join(random.choices(COMMON_WORDS, k=7)) for _ in range(40))
    (tmp_path / "text.txt").write_text("\n".join(lines))
    return tmp_path / "text.txt"


@pytest.fixture
def scored_pairs(tmp_path):
    (tmp_path / "mine.tsv").write_text(PAIRS)
    return tmp_path / "mine.tsv"


@pytest.fixture
def plan(tiny_encoder, text, scored_pairs, tmp_path):
    return SweepPlan(
        Space((Choice("temperature", (0.05, 0.5)),)),
        TrainingConfig(encoder=str(tiny_encoder), max_steps=2, batch_size=4, eval_steps=2, precision="fp32"),
        load_sentences(text, cache_dir=tmp_path / "cache"),
        STSEvaluator(load_scored_pairs(scored_pairs), write_csv=False),
        tmp_path / "sweep",
        device="cpu",
        train_arguments=(str(text), "--eval-file", str(scored_pairs)),
    )


def rows(folder):
    with (folder / "trials.csv").open() as file:
        return list(csv.DictReader(file))

from __future__ import annotations

import csv

import pytest

from distilface_st.errors import InputError
from distilface_st.training.history import as_scores, plot_history, read_history


def test_metrics_become_scores():
    metrics = {"STS12_spearman_cosine": 0.5, "STS12_pearson_cosine": 0.4, "alignment": 0.1}
    assert as_scores(metrics) == {"STS12": 50.0, "alignment": 0.1}


def test_a_damaged_history_is_said_so(tmp_path):
    path = tmp_path / "history.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["step", "loss"], ["1", "much"]])
    with pytest.raises(InputError, match="is damaged"):
        read_history(path)


def test_the_plot_is_drawn_with_and_without_scores(tmp_path):
    rows = [{"step": 0, "A": 1.0}, {"step": 10, "loss": 0.5, "A": 2.0}, {"step": 20, "loss": 0.4}]
    for name, given in (("scores.png", rows), ("losses.svg", [{"step": 1, "loss": 0.1}])):
        plot_history(given, tmp_path / name, best_step=10)
        assert (tmp_path / name).stat().st_size > 1000

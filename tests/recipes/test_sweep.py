from __future__ import annotations

import csv
from itertools import pairwise

import pytest
from sentence_transformers import SentenceTransformer

from distilface_st.errors import InputError
from distilface_st.sweep import Choice, Space, SweepPlan
from distilface_st.sweep.records import Outcome, TrialRecord

from ..helpers import SCORED_PAIRS, random_sentences

pytestmark = pytest.mark.usefixtures("quick_runs")


@pytest.fixture
def text(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "text.txt").write_text("\n".join(random_sentences(40)))
    return tmp_path / "text.txt"


@pytest.fixture
def options(tiny_encoder, text, tmp_path):
    """Build the arguments of a small sweep."""
    (tmp_path / "mine.tsv").write_text(SCORED_PAIRS)

    def build(space=None, **changes):
        given = {"base": tiny_encoder, "output": tmp_path / "sweep", "steps": 2, "eval-steps": 2, "device": "cpu"}
        given |= {"eval-file": tmp_path / "mine.tsv"}
        if space is not None:
            (tmp_path / "space.toml").write_text(space)
            given["space"] = tmp_path / "space.toml"
        chosen = {name: value for name, value in (given | changes).items() if value is not None}
        return [text, *(part for name, value in chosen.items() for part in (f"--{name}", value))]

    return build


SPACE = 'temperature = [0.05, 0.5]\n[base]\nbatch_size = 8\nprecision = "fp32"\n'


def test_a_space_in_a_report_and_the_best_model_out(invoke, options, tmp_path):
    arguments = options(SPACE, seeds=2)
    result = invoke("sweep", *arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert "Best configurations by mine" in result.stderr
    with (tmp_path / "sweep" / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["temperature"], row["seed"]) for row in rows] == [
        (temperature, seed) for temperature in ("0.05", "0.5") for seed in ("42", "43")
    ]
    assert (tmp_path / "sweep" / "report.html").exists()
    model = SentenceTransformer(str(tmp_path / "sweep" / "best"), device="cpu")
    assert model.encode("a cat").shape == (32,)
    assert "temperature" in (tmp_path / "sweep" / "best" / "README.md").read_text()
    (tmp_path / "sweep" / "report.html").unlink()
    again = invoke("sweep-report", tmp_path / "sweep")
    assert again.exit_code == 0, again.output
    assert (tmp_path / "sweep" / "report.html").exists()
    other = invoke("sweep", *options(SPACE, seeds=3))
    assert other.exit_code == 1
    assert "other settings (seeds)" in other.stderr


def test_a_sweep_without_any_score_is_an_error(invoke, options, tmp_path, monkeypatch):
    def train(*arguments, **options):
        raise InputError("no luck")

    monkeypatch.setattr("distilface_st.sweep.trials.train", train)
    result = invoke("sweep", *options(SPACE))
    assert result.exit_code == 1
    assert "No trial gave a score" in result.stderr
    assert "no luck" in (tmp_path / "sweep" / "trials.csv").read_text()


@pytest.mark.slow
def test_pairs_are_swept_as_pairs(invoke, options, tmp_path):
    (tmp_path / "text.txt").rename(tmp_path / "pairs.tsv")
    lines = (tmp_path / "pairs.tsv").read_text().splitlines()
    (tmp_path / "pairs.tsv").write_text("\n".join(f"{a}\t{b}" for a, b in pairwise(lines)))
    _, *rest = options(SPACE, views="pairs")
    result = invoke("sweep", tmp_path / "pairs.tsv", *rest)
    assert result.exit_code == 0, result.output
    page = (tmp_path / "sweep" / "report.html").read_text()
    assert "--views pairs" in page


def test_all_that_is_wrong_is_said_at_once_before_anything_is_written(invoke, options, tmp_path):
    space = (
        'warmth = [1]\ntemperature = []\nlayers = ["last", [0, 9]]\nbatch_size = [8, 512]\n'
        "learning_rate = { low = 1, high = 0 }\n"
    )
    result = invoke("sweep", *options(space, sampler="best", pruner="rabbit"))
    assert result.exit_code == 1
    for part in (
        "7 problems",
        "Unknown: warmth",
        "temperature is an empty list",
        "layer 9 is out of range",
        "the batch size, 512",
        "low must be below high",
        "no sampler 'best'",
        "no pruner 'rabbit'",
    ):
        assert part in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "sweep").exists()


def test_unreadable_files_are_said_together_with_the_rest(invoke, options, tmp_path):
    _, *rest = options('layers = ["last_seven"]\n', **{"eval-file": tmp_path / "none.tsv"})
    result = invoke("sweep", tmp_path / "none.txt", *rest)
    assert result.exit_code == 1
    for part in ("none.txt", "none.tsv", "last_seven"):
        assert part in result.stderr
    result = invoke("sweep", *options("temperature = ["), "--base", tmp_path / "none")
    assert result.exit_code == 1
    for part in ("space.toml cannot be read as a space", "2 problems"):
        assert part in result.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "Give --space FILE or --preset paper"),
        ({"preset": "best"}, "There is no preset 'best'"),
        ({"preset": "paper", "runner": "slurm"}, "There is no runner 'slurm'"),
        ({"space": "temperature = { low = 0.1, high = 1 }\n[base]\nbatch_size = 8\n"}, "is a range: give it points"),
        ({"preset": "paper", "sampler": "tpe"}, "the batch size, 256"),
        ({"preset": "paper", "steps": 0}, "`distilface poolings` compares poolings without training"),
        ({"space": '[base]\nviews = "pairs"\n'}, "names no field to search"),
    ],
)
def test_a_mistake_is_one_line(invoke, options, tmp_path, changes, message):
    result = invoke("sweep", *options(**changes))
    assert result.exit_code == 1, result.output
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "sweep").exists()


def test_a_folder_without_a_sweep_has_no_report(invoke, tmp_path):
    result = invoke("sweep-report", tmp_path)
    assert result.exit_code == 1
    assert "holds no sweep" in result.stderr


def test_the_live_table_shows_how_far_it_is_and_what_is_best(plan_of_nothing):
    from rich.console import Console

    from distilface_st.recipes._sweep_view import SweepView

    view = SweepView(plan_of_nothing)
    done = [
        TrialRecord(0, "a", {"temperature": 0.05}, 42, Outcome("complete", 71.2)),
        TrialRecord(1, "b", {"temperature": 0.5}, 42, Outcome("failed", reason="Out of memory.")),
        TrialRecord(2, "c", {"temperature": 1.0}, 42, None),
    ]
    view.trials_changed(done)
    view.trial_at(1, 7)
    view.trial_at(2, 10, 65.4321)
    view.trial_at(2, 11)
    view.trials_changed(done)
    console = Console(record=True, width=100, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(view.render())
    shown = console.export_text()
    for part in ("2 of 3 trials: 1 complete, 1 failed", "trial 2: step 11, 65.43", "temperature 1 seed 42", "71.20"):
        assert part in shown
    assert "trial 1:" not in shown


@pytest.fixture
def plan_of_nothing(tiny_encoder, text, tmp_path):
    from distilface_st.datasets.sentences import load_sentences
    from distilface_st.datasets.sts import load_scored_pairs
    from distilface_st.evaluation.sts import STSEvaluator
    from distilface_st.training.train import TrainingConfig

    (tmp_path / "mine.tsv").write_text("a cat\ta dog\t4\na cat\tthe war\t1\n")
    return SweepPlan(
        Space((Choice("temperature", (0.05, 0.5, 1.0)),)),
        TrainingConfig(encoder=str(tiny_encoder)),
        load_sentences(text, cache_dir=tmp_path / "cache"),
        STSEvaluator(load_scored_pairs(tmp_path / "mine.tsv"), write_csv=False),
        tmp_path / "sweep",
    )

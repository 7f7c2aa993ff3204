from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from distilface_st.recipes.app import app

SCORES = {"mrr@10": 0.4, "recall@1": 0.3, "recall@10": 0.7, "alignment": 1.0, "uniformity": -3.0}
FOUND = {"mrr@10": 0.6, "recall@1": 0.5, "recall@10": 0.8, "mrr@10_interval": [0.55, 0.65]}
RESULT = {
    "adaptation": {
        "queries": 400,
        "seconds": 600.0,
        "scores": {"before": {**FOUND, "mrr@10": 0.456}, "after": FOUND},
        "better": [{"query": "Copy [a] file", "rank_before": 9, "rank_after": 1}],
        "worse": [],
        "kept_share": 1.0,
        "chosen_by": "the test",
        "guard": {"name": "agreement", "least": 95.0},
    },
    "before": SCORES,
    "after": {**SCORES, "mrr@10": 0.525},
    "seconds": 123.0,
    "text": {"training_pairs": 2000, "test_queries": 500},
    "answers": [{"question": "Why?", "hits": [{"name": "a.b", "summary": "Read [bold] lists.", "similarity": 0.5}]}],
}


@pytest.fixture
def calls(monkeypatch):
    """The library's quickstart, replaced by one that notes how it was called."""
    from distilface_st.adaptation import quickstart as library

    calls = []

    def fake(output, config, **options):
        calls.append((output, config, options))
        options["announce"]("Training")
        return RESULT

    monkeypatch.setattr(library, "quickstart", fake)
    monkeypatch.delenv("DISTILFACE_DATA", raising=False)
    return calls


def test_it_shows_scores_before_and_after_and_the_answers(calls, tmp_path):
    outcome = CliRunner().invoke(app, ["quickstart", "--output", str(tmp_path / "q")])
    assert outcome.exit_code == 0, outcome.output
    assert "+0.125" in outcome.stderr
    assert "0.456" in outcome.stderr
    assert "Copy [a] file" in outcome.stderr
    assert "Why?" in outcome.stderr
    assert "Read [bold] lists." in outcome.stderr
    assert "STS-B" not in outcome.stderr
    assert outcome.stdout == ""


def test_options_reach_the_training(calls, tmp_path):
    arguments = ["--steps", "5", "--batch-size", "8", "--seed", "3", "--device", "cpu", "--output", str(tmp_path / "q")]
    assert CliRunner().invoke(app, ["quickstart", *arguments]).exit_code == 0
    ((output, config, options),) = calls
    assert (config.max_steps, config.batch_size, config.seed) == (5, 8, 3)
    assert output == tmp_path / "q"
    assert options["device"] == "cpu"
    assert options["sts_dir"] is None


def test_json_goes_to_stdout_alone(calls):
    outcome = CliRunner().invoke(app, ["quickstart", "--json", "-"])
    assert json.loads(outcome.stdout) == RESULT


def test_sts_is_scored_where_the_data_is(calls, monkeypatch, tmp_path):
    monkeypatch.setenv("DISTILFACE_DATA", str(tmp_path))
    CliRunner().invoke(app, ["quickstart"])
    (tmp_path / "sts" / "STSBenchmark").mkdir(parents=True)
    CliRunner().invoke(app, ["quickstart"])
    assert [options["sts_dir"] for _, _, options in calls] == [None, tmp_path / "sts"]


def test_a_folder_with_other_things_in_it_is_refused_in_one_line(tmp_path):
    (tmp_path / "thesis.txt").write_text("dear")
    outcome = CliRunner().invoke(app, ["quickstart", "--output", str(tmp_path)])
    assert outcome.exit_code == 1
    assert outcome.stderr.startswith("error: ")
    assert "choose another folder" in outcome.stderr
    assert outcome.stderr.count("\n") == 1


def test_help_names_the_default_that_holds():
    from distilface_st.adaptation.quickstart import CONFIG

    outcome = CliRunner().invoke(app, ["quickstart", "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert f"Default: {CONFIG.minutes}." in outcome.stdout

from __future__ import annotations

import json
import random
import sys

import pytest
from sentence_transformers import SentenceTransformer

from distilface_st.training.train import TrainingInterrupted

from ..conftest import COMMON_WORDS

pytestmark = pytest.mark.usefixtures("quick_runs")


@pytest.fixture
def text(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    random.seed(0)
    lines = dict.fromkeys(" ".join(random.choices(COMMON_WORDS, k=7)) for _ in range(100))
    (tmp_path / "text.txt").write_text("\n".join(lines))
    return tmp_path / "text.txt"


def options(tiny_encoder, output, **changes):
    given = {"base": tiny_encoder, "output": output, "max-steps": 4, "batch-size": 8, "eval-steps": 2, "device": "cpu"}
    given |= {"preset": "paper-default"}
    return [text for name, value in (given | changes).items() for text in (f"--{name}", value)]


def test_text_in_model_out(invoke, text, tiny_encoder, tmp_path):
    result = invoke(
        "train", text, *options(tiny_encoder, tmp_path / "run", layers="0,-1"), "--json", tmp_path / "r.json"
    )
    assert result.exit_code == 0, result.output
    assert "90 rows for training" in result.stderr
    assert "alignment_uniformity" in result.stderr
    run = json.loads((tmp_path / "r.json").read_text())
    assert run["config"]["layers"] == [0, -1]
    assert SentenceTransformer(str(tmp_path / "run" / "model"), device="cpu").encode("a cat").shape == (32,)


def test_the_users_own_scored_pairs_choose_the_checkpoint(invoke, text, tiny_encoder, tmp_path):
    name = "caf\udce9" if sys.platform == "linux" else "café"  # Latin-1, which only Linux takes for a file's name
    text = text.rename(tmp_path / f"{name}.txt")
    (tmp_path / f"{name}.tsv").write_text("a cat\ta dog\t4\na cat\tthe war\t1\na king\ta queen\t5\na king\ta car\t0\n")
    arguments = options(tiny_encoder, tmp_path / "run", **{"eval-file": tmp_path / f"{name}.tsv"})
    result = invoke("train", text, *arguments, "--json", "-")
    assert result.exit_code == 0, result.output
    run = json.loads(result.stdout)
    assert set(run["scores_before"]) == set(run["scores_after"])
    assert len(run["scores_after"]) == 1


def test_documents_train_as_neighbours(invoke, text, tiny_encoder, tmp_path):
    random.seed(1)
    paragraphs = [
        " ".join(" ".join(random.choices(COMMON_WORDS, k=6)).capitalize() + "." for _ in range(4)) for _ in range(30)
    ]
    (tmp_path / "docs.txt").write_text("\n".join(paragraphs))
    result = invoke("train", tmp_path / "docs.txt", *options(tiny_encoder, tmp_path / "run", views="neighbours"))
    assert result.exit_code == 0, result.output
    assert "81 rows for training" in result.stderr


def test_a_finished_run_is_left_alone(invoke, text, tiny_encoder, tmp_path):
    invoke("train", text, *options(tiny_encoder, tmp_path / "run"))
    before = (tmp_path / "run" / "run.json").read_text()
    again = invoke("train", text, *options(tiny_encoder, tmp_path / "run"))
    assert again.exit_code == 1
    assert "holds a run already" in again.stderr
    assert (tmp_path / "run" / "run.json").read_text() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "best"], "There is no preset 'best'"),
        (["--layers", "last_seven"], "allowed are the names last"),
        (["--layers", "1,x"], "give a name, or whole numbers"),
        (["--views", "pairs", "--column", "a"], "--views pairs takes --column twice"),
        (["--column", "a", "--column", "b"], "--views dropout takes --column once"),
        (["--all-sets"], "--all-sets needs --sts-dir"),
        (["--precision", "fp16"], "fp16 needs gradient scaling"),
        (["--layer-reduction", "sum"], "allowed are mean, max, concat"),
        (["--lr-scheduler-type", "sawtooth"], "lr_scheduler_type is 'sawtooth'"),
        (["--pooling-mode", "median"], "Invalid pooling mode"),
        (["--output", "caf\udce9"], "is not valid UTF-8"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(invoke, text, tiny_encoder, tmp_path, arguments, message):
    result = invoke("train", text, *options(tiny_encoder, tmp_path / "run"), *arguments)
    assert result.exit_code == 1, result.output
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "run").exists()


def test_a_stopped_run_says_how_to_go_on_and_ends_with_130(invoke, text, tiny_encoder, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise TrainingInterrupted(3, tmp_path / "run")

    monkeypatch.setattr("distilface_st.training.train.train", stop)
    result = invoke("train", text, *options(tiny_encoder, tmp_path / "run"))
    assert result.exit_code == 130
    assert "--resume goes on from there" in " ".join(result.stderr.split())


@pytest.fixture
def notes(tmp_path):
    """A folder of notes with headings."""
    random.seed(2)
    (tmp_path / "notes").mkdir()
    for number in range(220):
        words = [random.choice(COMMON_WORDS) for _ in range(14)]
        text = f"# {words[0]} {words[3]} {number}\n\nThe {' '.join(words[:8])}. The {' '.join(words[8:])}.\n"
        (tmp_path / "notes" / f"{number}.md").write_text(text)
    return tmp_path / "notes"


def own_text(notes, tiny_encoder, output, *more):
    given = ("--base", tiny_encoder, "--output", output, "--steps", 4, "--batch-size", 16, "--teacher", "none")
    return ("train", notes, *given, "--device", "cpu", *more)


def test_your_own_text_needs_nothing_but_a_folder(invoke, notes, tiny_encoder, tmp_path):
    result = invoke(*own_text(notes, tiny_encoder, tmp_path / "run", "--json", tmp_path / "r.json"))
    assert result.exit_code == 0, result.output
    assert "notes: 220 documents, 100% with a title" in result.stderr
    assert "find 22 documents held out by their titles" in " ".join(result.stderr.split())
    assert "BM25" in result.stderr
    found = json.loads((tmp_path / "r.json").read_text())["adaptation"]
    assert found["pairs"] == {"title": 198, "cloze": 198}
    assert (tmp_path / "run" / "report.html").exists()
    assert SentenceTransformer(str(tmp_path / "run" / "model"), device="cpu").encode("a cat").shape == (32,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--symmetric"], "--symmetric: for a contrastive run alone"),
        (["--all-sets"], "--all-sets: for a contrastive run alone"),
        (["--eval-file", "mine.tsv"], "mine.tsv"),
        (["--minutes", "5", "--views", "neighbours"], "leave out --views and --preset"),
        (["--limit", "20"], "20 documents"),
        (["--base", "no/such-model"], "no/such-model"),
        (["--teacher", "no/such-model"], "no/such-model"),
        (["--minutes", "0.01"], "0.1"),
        (["--column", "nothing"], "no field 'nothing'"),
    ],
)
def test_mistakes_with_your_own_text_are_one_line(invoke, notes, tiny_encoder, tmp_path, arguments, message):
    (notes / "records.jsonl").write_text('{"text": "a cat"}\n')
    result = invoke(*own_text(notes, tiny_encoder, tmp_path / "run"), *arguments)
    assert result.exit_code in (1, 2), result.output
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "run" / "run.json").exists()

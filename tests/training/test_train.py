from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.evaluation import BaseEvaluator
from transformers import AutoModel, AutoTokenizer, TrainerCallback

from distilface_st.datasets.pairs import load_pairs
from distilface_st.datasets.sentences import load_sentences
from distilface_st.errors import InputError
from distilface_st.models.load import load_model
from distilface_st.training.config import OLD_NAMES
from distilface_st.training.history import read_history
from distilface_st.training.train import (
    DistinctBatches,
    TrainingConfig,
    TrainingInterrupted,
    hold_out,
    model_from_config,
    train,
)

from ..conftest import COMMON_WORDS

pytestmark = pytest.mark.usefixtures("quick_runs")


class Scripted(BaseEvaluator):
    """An evaluator that returns given scores in turn and remembers the weights it saw."""

    def __init__(self, *scores: float) -> None:
        super().__init__()
        self.primary_metric = "scripted"
        self._scores = list(scores)
        self.seen: list[torch.Tensor] = []

    def __call__(self, model, output_path=None, epoch=-1, steps=-1):
        self.seen.append(next(model.parameters()).detach().clone())
        return {"scripted": self._scores[len(self.seen) - 1]}


class StopAt(TrainerCallback):
    """A SIGTERM in the middle of a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random.seed(0)
    lines = dict.fromkeys(" ".join(random.choices(COMMON_WORDS, k=7)) for _ in range(120))
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def config(tiny_encoder: Path) -> TrainingConfig:
    return TrainingConfig(
        encoder=str(tiny_encoder), layers="last_two", max_steps=6, batch_size=8, eval_steps=2, precision="fp32"
    )


@pytest.fixture(scope="module")
def finished(config, text, tmp_path_factory):
    """A finished run with everything that a run has, its plot, too."""
    return run(config, text, tmp_path_factory.mktemp("finished") / "run", evaluator=Scripted(1, 2, 3, 4))


def run(config, text, output, **arguments):
    data = load_sentences(text, cache_dir=text.parent / "cache")
    model = model_from_config(config, device="cpu")
    return train(model, data, config, output, device="cpu", **arguments)


def test_a_run_leaves_model_history_record_and_plot(config, finished):
    names = {path.name for path in finished.output.iterdir()}
    assert names == {"model", "history.csv", "history.png", "run.json"}
    record = json.loads((finished.output / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["config"] == json.loads(json.dumps(config.to_dict()))
    assert {"versions", "command", "seed", "data", "fingerprint_before", "fingerprint_after"} <= record.keys()
    assert record["fingerprint_before"] != record["fingerprint_after"]
    assert (record["kept_step"], record["improved"]) == (6, True)
    assert record["scores_before"] == {"scripted": 1}
    assert record["scores_after"] == {"scripted": 4}
    stock = SentenceTransformer(str(finished.output / "model"), device="cpu")
    np.testing.assert_allclose(stock.encode("a cat"), finished.model.encode("a cat"), atol=1e-6)


def test_the_history_has_a_row_for_each_step_with_all_columns(finished):
    rows = read_history(finished.output / "history.csv")
    assert [row["step"] for row in rows] == list(range(7))
    assert [row["scripted"] for row in rows if "scripted" in row] == [1, 2, 3, 4]
    assert rows[0] == {"step": 0, "scripted": 1}
    for row in rows[1:]:
        assert -1 <= row["negative_similarity"] < row["positive_similarity"] <= 1
        assert row["sentences_per_second"] > 0
        assert row["loss"] > 0
    assert [row["learning_rate"] for row in rows[1:]] == sorted(
        (row["learning_rate"] for row in rows[1:]), reverse=True
    )


def test_the_best_checkpoint_is_kept(config, text, tmp_path):
    evaluator = Scripted(1, 9, 3, 4)
    result = run(config, text, tmp_path / "run", evaluator=evaluator)
    assert result.run["kept_step"] == 2
    torch.testing.assert_close(next(result.model.parameters()).detach(), evaluator.seen[1])
    saved = load_model(tmp_path / "run" / "model", device="cpu")
    torch.testing.assert_close(next(saved.parameters()).detach(), evaluator.seen[1])


def test_a_run_that_does_not_improve_says_so(config, text, tmp_path):
    assert run(config, text, tmp_path / "run", evaluator=Scripted(9, 2, 3, 4)).run["improved"] is False


def test_early_stopping(config, text, tmp_path):
    config = replace(config, max_steps=20, patience=2)
    result = run(config, text, tmp_path / "run", evaluator=Scripted(1, 5, 4, 3, 2, 1))
    assert (result.run["steps"], result.run["kept_step"]) == (6, 2)


def test_without_an_evaluator_the_last_step_is_kept(config, text, tmp_path):
    assert run(config, text, tmp_path / "run").run["kept_step"] == 6


def test_no_training_sentence_reaches_a_model_card(finished, text, tmp_path):
    finished.model.save_pretrained(str(tmp_path / "stock"))
    cards = [finished.output / "model" / "README.md", tmp_path / "stock" / "README.md"]
    for sentence in text.read_text().splitlines():
        assert not any(sentence in card.read_text() for card in cards)


def test_equal_seeds_give_equal_weights_and_others_do_not(config, text, tmp_path):
    config = replace(config, eval_steps=6)
    runs = [run(replace(config, seed=seed), text, tmp_path / f"run{i}") for i, seed in enumerate((1, 1, 2))]
    fingerprints = [result.run["fingerprint_after"] for result in runs]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_training_pulls_views_together_and_batches_apart(config, text, tmp_path):
    config = replace(config, max_steps=60, batch_size=16, learning_rate=1e-3, eval_steps=20)
    rows = run(config, text, tmp_path / "run").history
    gap = [row["positive_similarity"] - row["negative_similarity"] for row in rows]
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert gap[-1] > gap[0] + 0.1


def test_training_length_does_not_reach_inference(config, text, tmp_path):
    result = run(replace(config, max_length=4, max_steps=1), text, tmp_path / "run")
    assert result.model.max_seq_length == 64
    assert load_model(tmp_path / "run" / "model", device="cpu").max_seq_length == 64


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_are_trained_in_fp32_whatever_the_checkpoint_holds(config, text, tmp_path, dtype):
    encoder = AutoModel.from_pretrained(config.encoder, dtype=dtype)
    runs = []
    for kind in (dtype, torch.float32):  # the same weights
        folder = tmp_path / str(kind)
        encoder.to(kind).save_pretrained(folder)
        AutoTokenizer.from_pretrained(config.encoder).save_pretrained(folder)
        runs.append(run(replace(config, encoder=str(folder), max_steps=3), text, folder / "run"))
    half, single = runs
    assert half.history[-1]["loss"] == single.history[-1]["loss"]
    assert half.run["fingerprint_after"] == single.run["fingerprint_after"]
    saved = load_model(half.output / "model", device="cpu")
    assert {parameter.dtype for parameter in saved.parameters()} == {torch.float32}


def test_pairs_train_too(config, tmp_path):
    random.seed(1)
    lines = ["\t".join(" ".join(random.choices(COMMON_WORDS, k=5)) for _ in range(2)) for _ in range(40)]
    (tmp_path / "pairs.tsv").write_text("\n".join(lines))
    data = load_pairs(tmp_path / "pairs.tsv", cache_dir=tmp_path / "cache")
    config = replace(config, views="pairs", dropout=0.0)
    result = train(model_from_config(config, "cpu"), data, config, tmp_path / "run", device="cpu")
    assert result.run["steps"] == 6
    assert all(module.p == 0 for module in result.model.modules() if isinstance(module, torch.nn.Dropout))


def train_on_pairs(config, folder, pairs, **changes):
    (folder / "pairs.tsv").write_text("\n".join("\t".join(pair) for pair in pairs))
    data = load_pairs(folder / "pairs.tsv", cache_dir=folder / "cache")
    config = replace(config, views="pairs", **changes)
    return train(model_from_config(config, "cpu"), data, config, folder / "run", device="cpu")


def test_too_few_different_texts_for_a_batch_are_refused_with_the_largest_that_would_do(config, tmp_path):
    pairs = [(f"question {i}", f"answer {i % 10}") for i in range(200)]
    with pytest.raises(InputError, match=r"no more than 10 of its 200 pairs .*--batch-size 10 or less"):
        train_on_pairs(config, tmp_path, pairs, batch_size=16)
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="give other text"):
        train_on_pairs(config, tmp_path, [(f"question {i}", "yes") for i in range(200)])
    assert train_on_pairs(config, tmp_path, pairs, batch_size=10, max_steps=1).run["steps"] == 1


def test_epochs_with_few_batches_are_gone_through_again_until_all_steps_are_done(config, tmp_path):
    # Eight different answers among 160 fill one batch in a pass, of the 20 that the rows seem to promise.
    pairs = [(f"question {i}", f"answer {max(0, i - 152)}") for i in range(160)]
    result = train_on_pairs(config, tmp_path, pairs, max_steps=30, eval_steps=30)
    assert (result.run["steps"], len(result.history)) == (30, 30)


def test_batches_hold_no_text_twice_and_differ_from_pass_to_pass_and_epoch_to_epoch():
    rows = Dataset.from_dict({"a": [f"a{i}" for i in range(60)], "b": [f"b{max(0, i - 50)}" for i in range(60)]})
    sampler = DistinctBatches(rows, 6, drop_last=True, generator=torch.Generator(), seed=1)
    batches = list(sampler)
    assert len(batches) == len(sampler) == 10
    assert all(len({rows[index]["b"] for index in batch}) == 6 for batch in batches)
    assert len({tuple(batch) for batch in batches}) == 10
    assert list(sampler) == batches
    sampler.set_epoch(1)
    assert list(sampler) != batches


class ShortEpochs(TrainerCallback):
    """Ends every epoch after a step, as one ends whose batches are fewer than they were said to be."""

    def on_step_end(self, args, state, control, **kwargs):
        control.should_epoch_stop = True


def test_a_run_with_fewer_steps_than_asked_is_an_error(config, text, tmp_path):
    with pytest.raises(InputError, match="Training ended after 1 of 6 steps"):
        run(config, text, tmp_path / "run", callbacks=[ShortEpochs()])
    assert not (tmp_path / "run" / "model").exists()


def test_gradient_caching_and_bf16_run_through_the_trainer(config, text, tmp_path):
    result = run(replace(config, mini_batch_size=3, precision="bf16"), text, tmp_path / "run")
    assert np.isfinite(result.history[-1]["loss"])
    assert next(result.model.parameters()).dtype == torch.float32


INTERRUPTED = """
import os, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from distilface_st.datasets.sentences import load_sentences
from distilface_st.training.train import TrainingConfig, TrainingInterrupted, model_from_config, train
from transformers import AutoModel, AutoTokenizer, TrainerCallback

class Slow(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        Path(sys.argv[3]).write_text(str(state.global_step))
        time.sleep(0.2)

config = TrainingConfig(encoder=sys.argv[4], layers="last_two", max_steps=12, batch_size=8, eval_steps=3,
                        precision="fp32")
data = load_sentences(sys.argv[1], cache_dir=Path(sys.argv[1]).parent / "cache")
try:
    train(model_from_config(config, "cpu"), data, config, sys.argv[2], device="cpu", callbacks=[Slow()])
except TrainingInterrupted as stopped:
    print(stopped, flush=True)
    sys.exit(130)
"""


def stop_at(step, number, text, output, encoder):
    """Start a run in a process of its own and send it a signal once it has finished a step."""
    progress = output.parent / f"{output.name}.step"
    command = [sys.executable, "-c", INTERRUPTED, str(text), str(output), str(progress), str(encoder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while int((progress.exists() and progress.read_text()) or -1) < step:  # read once: it may be half written
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    out, error = process.communicate(timeout=120)
    return process.returncode, out, error


def losses(rows):
    return [{key: row[key] for key in ("step", "loss", "positive_similarity", "learning_rate")} for row in rows]


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_stopped_run_goes_on_as_if_nothing_had_happened(config, text, tmp_path, number):
    config = replace(config, max_steps=12, eval_steps=3)
    whole = run(config, text, tmp_path / "whole")
    code, out, _ = stop_at(7, number, text, tmp_path / "stopped", config.encoder)
    if number == signal.SIGINT:
        assert code == 130
        assert "--resume goes on from there" in out
    else:
        assert code == -signal.SIGKILL
    record = json.loads((tmp_path / "stopped" / "run.json").read_text())
    assert record["status"] == "running"
    resumed = run(config, text, tmp_path / "stopped", resume=True)
    # Other numbers of threads round differently; other dropout masks would show far above this.
    for row, expected in zip(losses(resumed.history), losses(whole.history), strict=True):
        assert row == pytest.approx(expected, rel=2e-5)
    np.testing.assert_allclose(resumed.model.encode("a cat"), whole.model.encode("a cat"), atol=1e-4)


@pytest.mark.slow
def test_a_half_written_checkpoint_is_passed_over(config, text, tmp_path):
    config = replace(config, max_steps=12, eval_steps=3)
    stop_at(7, signal.SIGKILL, text, tmp_path / "run", config.encoder)
    newest = max((tmp_path / "run" / "checkpoints").iterdir(), key=lambda path: int(path.name.split("-")[1]))
    (newest / "trainer_state.json").write_text('{"half":')
    result = run(config, text, tmp_path / "run", resume=True)
    assert [row["step"] for row in result.history] == list(range(1, 13))


@pytest.mark.slow
def test_resuming_other_settings_text_or_nothing_is_refused(config, text, tmp_path):
    with pytest.raises(InputError, match="holds no run to resume"):
        run(config, text, tmp_path / "run", resume=True)
    slow = replace(config, max_steps=12, eval_steps=3)
    stop_at(4, signal.SIGKILL, text, tmp_path / "run", config.encoder)
    with pytest.raises(InputError, match=r"other settings: temperature \(0\.05 -> 0\.1\)"):
        run(replace(slow, temperature=0.1), text, tmp_path / "run", resume=True)
    other = tmp_path / "other.txt"
    other.write_text(text.read_text() + "\none more")
    with pytest.raises(InputError, match="the training text"):
        run(slow, other, tmp_path / "run", resume=True)
    with pytest.raises(InputError, match="holds a run already"):
        run(slow, text, tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        run(slow, text, tmp_path / "run", resume=True)


def test_a_run_begun_by_version_0_1_goes_on(config, text, tmp_path):
    with pytest.raises(TrainingInterrupted):
        run(config, text, tmp_path / "run", callbacks=[StopAt(3)])
    file = tmp_path / "run" / "run.json"
    record = json.loads(file.read_text())
    old = {new: name for name, new in OLD_NAMES.items()}
    settings = {old.get(name, name): value for name, value in record["config"].items()}
    file.write_text(json.dumps({**record, "config": settings | {"encoder": "/site-packages/the/same/encoder"}}))
    with pytest.warns(DeprecationWarning, match="is now called"):
        resumed = run(config, text, tmp_path / "run", resume=True)
    assert resumed.run["status"] == "finished"
    assert resumed.run["config"]["max_steps"] == config.max_steps


def test_a_finished_run_is_not_resumed(config, finished, text):
    with pytest.raises(InputError, match="is finished"):
        run(config, text, finished.output, resume=True)


def test_divergence_is_an_error_after_which_the_run_can_be_begun_anew_with_other_settings(config, text, tmp_path):
    model = model_from_config(config, "cpu")
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    data = load_sentences(text, cache_dir=tmp_path / "cache")
    with pytest.raises(InputError, match="The loss is nan at step 1: training diverged"):
        train(model, data, config, tmp_path / "run", device="cpu")
    lower = replace(config, learning_rate=config.learning_rate / 2)  # what the message advises
    with pytest.raises(InputError, match="begun with other settings"):
        run(lower, text, tmp_path / "run", resume=True)
    again = run(lower, text, tmp_path / "run")
    assert (again.run["status"], again.run["steps"]) == ("finished", config.max_steps)
    assert len(again.history) == len({row["step"] for row in again.history})
    with pytest.raises(InputError, match="holds a run already: go on with --resume, or choose another --output"):
        run(config, text, tmp_path / "run")


def test_data_that_does_not_fit_is_refused(config, text, tmp_path):
    with pytest.raises(InputError, match="fewer than the batch size, 512"):
        run(replace(config, batch_size=512), text, tmp_path / "run")
    with pytest.raises(InputError, match="views are neighbours, but the data has the columns sentence"):
        run(replace(config, views="neighbours"), text, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_models_that_cannot_be_trained_are_refused(config, text, unfit_model, exported, tmp_path):
    data = load_sentences(text, cache_dir=tmp_path / "cache")
    model, message = unfit_model
    exported_model = load_model(exported, runtime="onnxruntime")
    for unfit, why in ((model, f"{message}|this model has none"), (exported_model, "this model has none")):
        with pytest.raises(InputError, match=why):
            train(unfit, data, config, tmp_path / "run", device="cpu")
    pairs = replace(data, dataset=data.dataset.add_column("positive", data.dataset["sentence"]))
    with pytest.raises(InputError, match="no weights to train"):
        train(exported_model, pairs, replace(config, views="pairs"), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_fp16_on_a_cpu_is_refused_with_the_reason(config, text, tmp_path):
    with pytest.raises(InputError, match="fp16 needs gradient scaling, which is there on CUDA only"):
        run(replace(config, precision="fp16"), text, tmp_path / "run")


def test_held_out_rows_are_the_last_ones(text, tmp_path):
    data = load_sentences(text, cache_dir=tmp_path / "cache")
    left, held_out = hold_out(data, rows=5)
    assert [*left.dataset["sentence"], *held_out["sentence"]] == list(data.dataset["sentence"])
    assert len(held_out) == 5
    assert len(hold_out(data)[1]) == len(data.dataset) // 10


TWO = """
import os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from distilface_st.datasets.sentences import load_sentences
from distilface_st.training.train import TrainingConfig, model_from_config, train

config = TrainingConfig(encoder=sys.argv[3], max_steps=4, batch_size=8, eval_steps=2, precision="fp32")
data = load_sentences(sys.argv[1], cache_dir=Path(sys.argv[1]).parent / "cache")
result = train(model_from_config(config, "cpu"), data, config, sys.argv[2], device="cpu")
weights = torch.cat([p.detach().flatten() for p in result.model.parameters()])
torch.save(weights, f"{sys.argv[2]}.{os.environ['RANK']}.pt")
"""


@pytest.mark.slow
def test_two_processes_train_one_model(config, text, tmp_path):
    load_sentences(text, cache_dir=text.parent / "cache")
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0", "--standalone"]
    script = tmp_path / "two.py"
    script.write_text(TWO)
    arguments = [str(script), str(text), str(tmp_path / "run"), config.encoder]
    done = subprocess.run(
        [sys.executable, *command, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"run.{rank}.pt", weights_only=True) for rank in (0, 1))
    torch.testing.assert_close(first, second)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["loss"]["settings"]["gather_across_devices"] is True


def test_interruption_says_how_to_go_on(tmp_path):
    stopped = TrainingInterrupted(7, tmp_path)
    assert "Stopped after step 7" in str(stopped)
    assert "--resume" in str(stopped)

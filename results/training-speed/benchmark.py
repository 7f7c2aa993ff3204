"""Seconds a training step takes: the stock loss with the sentence column twice against ours. See README.md here.

Start:  python results/training-speed/benchmark.py

Every arm is a process of its own (so peak memory is its own) that trains with the stock trainer. The arms of one model
and precision take turns step by step, so that a change of the machine's speed meets all of them.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent
TEMPERATURE = 0.05
VOCABULARY = 30522
MODELS = {
    "MiniLM-L6": {"hidden": 384, "layers": 6, "heads": 12, "inner": 1536},
    "DistilBERT-base": {"hidden": 768, "layers": 6, "heads": 12, "inner": 3072},
}
ARMS = {
    "stock": "MultipleNegativesRankingLoss, the column twice",
    "one pass": "SimCSELoss",
    "memory": "+ freed memory kept",
    "ours": "+ cheap dropout masks, attention on contiguous heads",
}
WARM_UP = 2


def main() -> None:
    arguments = parse()
    if arguments.worker:
        work(*arguments.worker, arguments)
        return
    os.environ.update(OMP_NUM_THREADS=str(arguments.threads), HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    runs, summary = [], []
    for model in arguments.models:
        for precision in arguments.precisions:
            arms = [arm for arm in ARMS if arm in ("stock", "ours") or model == arguments.ablation]
            peak = json.loads(run_worker("peak", model, precision, arguments).communicate()[0])
            results = measure(model, precision, arms, arguments)
            for arm, result in results.items():
                named = {"model": model, "precision": precision, "arm": arm}
                runs += [named | {"step": step} | turn for step, turn in enumerate(result["turns"], 1)]
                summary.append(row(model, precision, arm, result, peak, arguments))
                print(summary[-1], file=sys.stderr, flush=True)
    report(runs, summary, arguments)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6, help="timed steps an arm")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--length", type=int, default=32, help="tokens of every sentence")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "bf16"), default=("fp32", "bf16"))
    parser.add_argument("--ablation", choices=MODELS, default="MiniLM-L6", help="the model on which every arm is run")
    parser.add_argument("--output", type=Path, default=HERE)
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


# The parent: lets the arms take turns.


def run_worker(arm: str, model: str, precision: str, arguments: argparse.Namespace) -> subprocess.Popen[str]:
    options = [f"--{name}={getattr(arguments, name.replace('-', '_'))}" for name in ("steps", "batch-size", "length")]
    command = [sys.executable, __file__, *options, f"--threads={arguments.threads}", "--worker", arm, model, precision]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def measure(model: str, precision: str, arms: list[str], arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    workers: dict[str, subprocess.Popen[str]] = {}
    results: dict[str, dict[str, Any]] = {}
    for arm in arms:
        workers[arm] = run_worker(arm, model, precision, arguments)
        warm_up = [take_turn(workers[arm]) for _ in range(WARM_UP)]
        results[arm] = {"first": warm_up[0]["seconds"], "turns": []}
    for _ in range(arguments.steps):
        for arm in arms:
            results[arm]["turns"].append(take_turn(workers[arm]))
    for arm, worker in workers.items():
        rest, _ = worker.communicate()
        if worker.returncode:
            raise SystemExit(f"The arm {arm!r} failed.")
        results[arm] |= json.loads(rest.splitlines()[-1])
    return results


def take_turn(worker: subprocess.Popen[str]) -> dict[str, Any]:
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write("go\n")
    worker.stdin.flush()
    line = worker.stdout.readline()
    if not line:
        raise SystemExit("An arm ended early; its error is above.")
    return json.loads(line)


# A worker: one arm in the stock trainer, or the machine's peak.


def work(arm: str, name: str, precision: str, arguments: argparse.Namespace) -> None:
    import torch

    torch.set_num_threads(arguments.threads)
    if arm == "peak":
        print(json.dumps(matmul_peak(name, precision, 2 * arguments.batch_size * arguments.length)))
        return
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from transformers import TrainerCallback
    from transformers.utils import logging

    from distilface_st.losses import SimCSELoss
    from distilface_st.models.build import build_model
    from distilface_st.training.acceleration import _keep_memory, accelerated

    logging.disable_progress_bar()

    class TakeTurns(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            sys.stdin.readline()
            self.start = time.perf_counter(), time.process_time()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            now = time.perf_counter(), time.process_time()
            seconds, processor = (end - start for end, start in zip(now, self.start, strict=True))
            print(json.dumps({"seconds": seconds, "processor": processor}), flush=True)

    with tempfile.TemporaryDirectory() as folder:
        build_encoder(Path(folder), name)
        model = build_model(folder, layers="last_four", device="cpu")
        model.model_card_data.generate_widget_examples = False
        sentences = random_sentences(arguments.batch_size * (WARM_UP + arguments.steps), arguments.length)
        columns = {"sentence": sentences, "again": sentences} if arm == "stock" else {"sentence": sentences}
        trainer = SentenceTransformerTrainer(
            model=model,
            args=SentenceTransformerTrainingArguments(
                output_dir=folder,
                max_steps=WARM_UP + arguments.steps,
                per_device_train_batch_size=arguments.batch_size,
                bf16=precision == "bf16",
                use_cpu=True,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_dict(columns),
            loss=MultipleNegativesRankingLoss(model, scale=1 / TEMPERATURE)
            if arm == "stock"
            else SimCSELoss(model, temperature=TEMPERATURE),
            callbacks=[TakeTurns()],
        )
        with ExitStack() as stack:
            if arm == "memory":
                _keep_memory(stack)
            elif arm == "ours":
                stack.enter_context(accelerated(model))
            trainer.train()
    print(json.dumps({"mebibytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


def build_encoder(folder: Path, name: str) -> None:
    """Save a randomly initialised encoder, and a tokenizer that knows ``VOCABULARY`` made-up words."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast, DistilBertConfig, DistilBertModel

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary += [word(number) for number in range(VOCABULARY - len(vocabulary))]
    file = folder / "vocab.txt"
    file.write_text("\n".join(vocabulary), encoding="utf-8")
    shape = MODELS[name]
    torch.manual_seed(0)
    encoder: BertModel | DistilBertModel
    if name.startswith("DistilBERT"):
        config = DistilBertConfig(
            vocab_size=VOCABULARY,
            dim=shape["hidden"],
            n_layers=shape["layers"],
            n_heads=shape["heads"],
            hidden_dim=shape["inner"],
        )
        encoder = DistilBertModel(config)
    else:
        encoder = BertModel(
            BertConfig(
                vocab_size=VOCABULARY,
                hidden_size=shape["hidden"],
                num_hidden_layers=shape["layers"],
                num_attention_heads=shape["heads"],
                intermediate_size=shape["inner"],
            )
        )
    encoder.save_pretrained(folder)
    BertTokenizerFast(str(file), model_max_length=512).save_pretrained(folder)


def word(number: int) -> str:
    return "w" + "".join(chr(ord("a") + int(digit)) for digit in str(number))


def random_sentences(count: int, length: int) -> list[str]:
    """Sentences of exactly ``length`` tokens, the two special ones included."""
    draw = random.Random(0)
    return [" ".join(word(draw.randrange(VOCABULARY - 5)) for _ in range(length - 2)) for _ in range(count)]


def matmul_peak(name: str, precision: str, tokens: int) -> float:
    """The most GFLOP/s of a matrix product, over squares and the shapes of the model's linear layers."""
    import torch

    hidden, inner = MODELS[name]["hidden"], MODELS[name]["inner"]
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    best = 0.0
    shapes = [(1024,) * 3, (2048,) * 3, (tokens, hidden, hidden), (tokens, hidden, inner), (tokens, inner, hidden)]
    for rows, middle, columns in shapes:
        left, right = torch.randn(rows, middle, dtype=dtype), torch.randn(columns, middle, dtype=dtype)
        for _ in range(15):
            start = time.perf_counter()
            torch.nn.functional.linear(left, right)
            best = max(best, 2 * rows * middle * columns / (time.perf_counter() - start) / 1e9)
    return best


# What is written.


def step_flops(name: str, batch_size: int, length: int) -> float:
    """Of the matrix products of one step on two views: the backward pass counts twice the forward pass."""
    shape = MODELS[name]
    linear = 2 * (4 * shape["hidden"] ** 2 + 2 * shape["hidden"] * shape["inner"])
    attention = 4 * length * shape["hidden"]
    return 3 * 2 * batch_size * length * shape["layers"] * (linear + attention)


def row(
    name: str, precision: str, arm: str, result: dict[str, Any], peak: float, arguments: argparse.Namespace
) -> dict[str, Any]:
    seconds = median(turn["seconds"] for turn in result["turns"])
    rate = step_flops(name, arguments.batch_size, arguments.length) / seconds / 1e9
    return {
        "model": name,
        "precision": precision,
        "arm": arm,
        "step_ms": round(1000 * seconds),
        "fastest_ms": round(1000 * min(turn["seconds"] for turn in result["turns"])),
        "processor_ms": round(1000 * median(turn["processor"] for turn in result["turns"])),
        "sentences_per_s": round(arguments.batch_size / seconds, 1),
        "gflops": round(rate),
        "peak_gflops": round(peak),
        "share_of_peak": round(rate / peak, 2),
        "peak_mib": round(result["mebibytes"]),
        "first_step_s": round(result["first"], 1),
    }


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def report(runs: list[dict[str, Any]], summary: list[dict[str, Any]], arguments: argparse.Namespace) -> None:
    from distilface_st.utils.files import write_json
    from distilface_st.utils.provenance import provenance

    arguments.output.mkdir(parents=True, exist_ok=True)
    write_csv(arguments.output / "runs.csv", runs)
    write_csv(arguments.output / "summary.csv", summary)
    write_json(arguments.output / "run.json", provenance(machine=machine(arguments.threads), arms=ARMS))
    table = markdown(summary)
    (arguments.output / "table.md").write_text(table, encoding="utf-8")
    print(table)


def machine(threads: int) -> str:
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        processor = names[0] if names else processor
    return f"{processor}, {threads} threads"


def markdown(summary: list[dict[str, Any]]) -> str:
    """Medians, with each row's speed against the stock arm and against fp32."""
    steps = {(row["model"], row["precision"], row["arm"]): row["step_ms"] for row in summary}
    lines = [
        "| model | precision | arm | sentences/s | step, ms | against stock | against fp32 | GFLOP/s | of peak | MiB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in summary:
        stock = steps[r["model"], r["precision"], "stock"] / r["step_ms"]
        single = steps.get((r["model"], "fp32", r["arm"]), float("nan")) / r["step_ms"]
        cells = [r["model"], r["precision"], r["arm"], r["sentences_per_s"], r["step_ms"], f"{stock:.2f}x"]
        cells += [f"{single:.2f}x", f"{r['gflops']} of {r['peak_gflops']}", f"{r['share_of_peak']:.0%}", r["peak_mib"]]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

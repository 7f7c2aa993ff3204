"""Does training on unlabelled text raise STS? Runs behind results/training/README.md.

Start:  python results/training/study.py tune  --data DIR --runs DIR     (one seed, STS-B dev alone)
        python results/training/study.py prove --data DIR --runs DIR     (three seeds, every set)
        python results/training/study.py report --runs DIR               (CSV files, table and figures beside this file)

Finished runs in --runs are kept, and a stopped one goes on, when the same command is given again.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from datasets import Dataset, concatenate_datasets
from transformers import TrainerCallback

from distilface_st.datasets.pairs import load_pairs
from distilface_st.datasets.sentences import load_sentences
from distilface_st.datasets.sts import AVERAGE6, load_sts
from distilface_st.datasets.text_data import TextData
from distilface_st.evaluation.sts import STSEvaluator
from distilface_st.models.build import build_model
from distilface_st.pretrained import bundled_encoder
from distilface_st.training.history import read_history
from distilface_st.training.train import TrainingConfig, model_from_config, train
from distilface_st.utils.provenance import text_fingerprint

HERE = Path(__file__).parent
DEV = "STS-B-dev"
SETS = ["STS12", "STS13", "STS14", "STS15", "STS-B", "STS16"]
DEPTH = 3


@dataclass(frozen=True)
class Arm:
    """What is trained on what: a name, the kind of positives, and the settings that differ from BASE."""

    name: str
    data: str
    changes: dict[str, Any] = field(default_factory=dict)


BASE = TrainingConfig(layers="last", max_steps=120, batch_size=64, learning_rate=5e-5, eval_steps=120, max_length=32)

TUNE = [
    Arm("neighbours last t0.05 lr5e-5", "neighbours"),
    Arm("neighbours last t0.05 lr1e-4", "neighbours", {"learning_rate": 1e-4}),
    Arm("neighbours last t0.05 lr2e-4", "neighbours", {"learning_rate": 2e-4}),
    Arm("neighbours last t0.1 lr2e-4", "neighbours", {"learning_rate": 2e-4, "temperature": 0.1}),
    Arm("neighbours last t0.02 lr2e-4", "neighbours", {"learning_rate": 2e-4, "temperature": 0.02}),
    Arm("neighbours last t0.01 lr2e-4", "neighbours", {"learning_rate": 2e-4, "temperature": 0.01}),
    Arm("neighbours last_two t0.05 lr2e-4", "neighbours", {"learning_rate": 2e-4, "layers": "last_two"}),
    Arm("neighbours last t0.02 lr4e-4", "neighbours", {"learning_rate": 4e-4, "temperature": 0.02}),
    Arm("dropout last t0.05 lr1e-5", "dropout", {"learning_rate": 1e-5}),
    Arm("dropout last t0.05 lr5e-5", "dropout"),
    Arm("both last t0.05 lr2e-4", "both", {"learning_rate": 2e-4}),
    Arm("both last t0.02 lr2e-4", "both", {"learning_rate": 2e-4, "temperature": 0.02}),
    Arm(
        "neighbours first_last t0.02 lr2e-4",
        "neighbours",
        {"learning_rate": 2e-4, "temperature": 0.02, "layers": "first_last"},
    ),
]


def text(kind: str, data: Path) -> TextData:
    """The training text: sentences, neighbouring pairs, or as many sentences paired with themselves as pairs."""
    if kind == "dropout":
        return load_sentences(data / "wiki" / "sentences.txt.gz")
    pairs = load_pairs(data / "wiki" / "neighbours.tsv.gz")
    if kind == "neighbours":
        return pairs
    sentences = load_sentences(data / "wiki" / "sentences.txt.gz").dataset.select(range(len(pairs.dataset)))["sentence"]
    doubled = Dataset.from_dict({"anchor": list(sentences), "positive": list(sentences)})
    both = concatenate_datasets([pairs.dataset, doubled])
    fingerprint = text_fingerprint([pairs.fingerprint, *doubled["anchor"]])
    return TextData(both, len(both), 0, 0, fingerprint, "neighbours.tsv.gz + sentences.txt.gz with themselves")


def encoder(runs: Path) -> Path:
    """The lower three layers of the bundled MiniLM, as a plain encoder folder."""
    folder = runs / f"minilm-lower-{DEPTH}"
    if not (folder / "model.safetensors").exists():
        model = build_model(bundled_encoder(), layers=[DEPTH], trim=True, device="cpu")
        model[0].save(str(folder))
    return folder


class Log(TrainerCallback):
    """Every evaluation as a line, for a run in the background."""

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        scores = {k: round(100 * v, 2) for k, v in (metrics or {}).items() if "spearman" in k}
        logging.info("  step %d %s", state.global_step, scores)


def run(arm: Arm, seed: int, config: TrainingConfig, evaluator: STSEvaluator, data: Path, runs: Path) -> None:
    """Train one arm with one seed, unless that was done already."""
    output = runs / f"{arm.name} s{seed}".replace(" ", "_")
    record = output / "run.json"
    if record.exists() and json.loads(record.read_text())["status"] == "finished":
        return
    views = "dropout" if arm.data == "dropout" else "pairs"
    config = replace(config, encoder=str(encoder(runs)), views=views, seed=seed, **arm.changes)
    logging.info("%s, seed %d", arm.name, seed)
    train(
        model_from_config(config, "cpu"),
        text(arm.data, data),
        config,
        output,
        evaluator=evaluator,
        resume=record.exists(),
        device="cpu",
        callbacks=[Log()],
    )


def prove_arms() -> list[Arm]:
    """The arms that tuning chose, with one change at a time around them: read from prove.json beside this file."""
    return [Arm(**arm) for arm in json.loads((HERE / "prove.json").read_text())]


def report(runs: Path, arms: list[Arm], name: str) -> list[dict[str, Any]]:
    """Write NAME.csv, a row a run and evaluated step, and return its rows."""
    rows = []
    for folder in sorted(runs.iterdir()):
        arm = next((arm for arm in arms if folder.name.startswith(arm.name.replace(" ", "_") + "_s")), None)
        if arm is None or not (folder / "run.json").exists():
            continue
        record = json.loads((folder / "run.json").read_text())
        if record["status"] != "finished":
            continue
        for row in read_history(folder / "history.csv"):
            if DEV in row:
                scores = {key: round(row[key], 2) for key in (DEV, *SETS) if key in row}
                facts = {"arm": arm.name, "data": arm.data, "seed": record["seed"], "step": row["step"]}
                facts |= {
                    key: record["config"][key] for key in ("layers", "temperature", "learning_rate", "batch_size")
                }
                rows.append(facts | {"kept": row["step"] == record["kept_step"]} | scores)
    if rows:
        with (HERE / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(max(rows, key=len)), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: mean and spread over seeds, before training and at the kept step."""
    columns = [DEV, *SETS, "average5"]
    lines = ["| arm | seeds | " + " | ".join(columns) + " |", "|---|---|" + "---|" * len(columns)]
    for row in rows:
        if "STS12" in row:
            row["average5"] = mean(row[name] for name in SETS[:5])
    for arm in dict.fromkeys(row["arm"] for row in rows):
        own = [row for row in rows if row["arm"] == arm]
        for label, chosen in (("before", [r for r in own if r["step"] == 0]), ("after", [r for r in own if r["kept"]])):
            cells = []
            for column in columns:
                values = [row[column] for row in chosen if column in row]
                spread = f" ± {stdev(values):.2f}" if len(values) > 1 and label == "after" else ""
                cells.append(f"{mean(values):.2f}{spread}" if values else "")
            lines.append(f"| {arm}, {label} | {len(chosen)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def figure(rows: list[dict[str, Any]], path: Path) -> None:
    """Figure 4 of the paper from these runs: score by step for each set, a panel an arm, mean and range over seeds."""
    from matplotlib.figure import Figure

    arms = list(dict.fromkeys(row["arm"] for row in rows))
    canvas = Figure(figsize=(4.2 * len(arms), 4.2), layout="constrained")
    for axes, arm in zip(canvas.subplots(1, len(arms), sharey=True, squeeze=False)[0], arms, strict=True):
        own = [row for row in rows if row["arm"] == arm]
        steps = sorted({row["step"] for row in own})
        for name in (DEV, *SETS):
            values = [[row[name] for row in own if row["step"] == step] for step in steps]
            (line,) = axes.plot(steps, [mean(v) for v in values], marker="o", markersize=3, label=name)
            low, high = [min(v) for v in values], [max(v) for v in values]
            axes.fill_between(steps, low, high, alpha=0.15, color=line.get_color(), linewidth=0)
        axes.set_title(arm, fontsize=9)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    canvas.axes[0].set_ylabel("Spearman x 100")
    canvas.axes[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    canvas.savefig(path, dpi=130)


def main() -> None:
    """Run a phase."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("phase", choices=["tune", "prove", "report"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--runs", type=Path, default=Path("runs/training-study"))
    parser.add_argument("--arm", type=int, help="only the arm of this number, from 0")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=160)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    options.runs.mkdir(parents=True, exist_ok=True)
    if options.phase == "report":
        report(options.runs, TUNE, "tune")
        rows = report(options.runs, prove_arms(), "prove")
        (HERE / "table.md").write_text(table(rows))
        figure(rows, HERE / "figure4.png")
        return
    sts = options.data / "sts"
    dev = load_sts("STS-B", sts, split="dev")
    if options.phase == "tune":
        evaluator = STSEvaluator(dev, write_csv=False)
        for arm in TUNE if options.arm is None else [TUNE[options.arm]]:
            run(arm, 0, BASE, evaluator, options.data, options.runs)
        report(options.runs, TUNE, "tune")
        return
    evaluator = STSEvaluator([dev, *(load_sts(name, sts) for name in AVERAGE6)], write_csv=False)
    config = replace(BASE, max_steps=options.steps, eval_steps=options.steps // 2)
    arms = prove_arms()
    for seed in range(1, options.seeds + 1):
        for arm in arms if options.arm is None else [arms[options.arm]]:
            run(arm, seed, config, evaluator, options.data, options.runs)


if __name__ == "__main__":
    main()

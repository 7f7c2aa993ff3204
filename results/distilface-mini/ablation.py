"""What each choice behind distilface-mini is worth: short runs that differ from ``base`` in little.

    python results/distilface-mini/ablation.py TEACHERS EXPORTS TEXT ../shared/data/sts WORK [NAME ...]

TEACHERS is what ``teachers.py`` made, EXPORTS holds ``mpnet``, ``paraphrase-l3`` and ``minilm-l6`` as ``distilface
export`` wrote them, TEXT is what ``text.py`` wrote (its first 100,000 lines were used), WORK a folder for runs and
teachers' embeddings. Every run begins at the same place, sees the same text in the same order, and is scored on STS-B
dev; rows are added to ``ablation.csv``. Finished runs are not run again.
"""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from distilface_st import DistillationConfig, distill, load_sentences, load_sts, make_student, open_teacher
from distilface_st.evaluation.sts import STSEvaluator

HERE = Path(__file__).parent
BASE = DistillationConfig(max_steps=200, batch_size=128, learning_rate=3e-4, warmup_steps=30, eval_steps=100)
FROM, BOTH = "paraphrase-l3", ("mpnet", "paraphrase-l3")

RUNS: dict[str, dict[str, Any]] = {
    "base": {},
    "batches at random": {"config": {"topical": False}},
    "no contrast": {"config": {"contrastive": 0.0}},
    "no relations": {"config": {"relational": 0.0}},
    "no regression": {"config": {"regression": 0.0}},
    "relations alone": {"config": {"regression": 0.0, "contrastive": 0.0}},
    "regression alone": {"config": {"relational": 0.0, "contrastive": 0.0}},
    "ranking for relations": {"config": {"relational": 0.0, "ranking": 1.0}},
    "more relations": {"config": {"relational": 4.0}},
    "rate 1e-4": {"config": {"learning_rate": 1e-4}},
    "rate 6e-4": {"config": {"learning_rate": 6e-4}},
    "batch 64": {"config": {"batch_size": 64, "max_steps": 400}},
    "mpnet alone": {"teachers": ("mpnet",)},
    "paraphrase alone": {"teachers": ("paraphrase-l3",)},
    "cut from MiniLM-L6": {"source": "minilm-l6", "student": {"layers": 3, "embedding_size": 128}},
    "embeddings whole": {"student": {}},
    "embeddings 64": {"student": {"embedding_size": 64}},
    "embeddings 192": {"student": {"embedding_size": 192}},
    "vocabulary 20000": {"student": {"embedding_size": 128, "vocabulary": 20_000}},
    "layers 0, 2": {"student": {"embedding_size": 128, "layers": [0, 2]}},
    "layers 0, 1, 2, 2": {"student": {"embedding_size": 128, "layers": [0, 1, 2, 2]}},
    "10,000 sentences": {"sentences": 10_000},
    "one layer, 0": {"student": {"embedding_size": 64, "layers": [0]}},
    "one layer, 1": {"student": {"embedding_size": 64, "layers": [1]}},
    "one layer, 2": {"student": {"embedding_size": 64, "layers": [2]}},
    "seed 1": {"config": {"seed": 1}},
    "seed 2": {"config": {"seed": 2}},
}


def main() -> None:
    teachers, exports, text, sts, work = map(Path, sys.argv[1:6])
    names = sys.argv[6:] or list(RUNS)
    dev = load_sts("STS-B", sts, split="dev")
    for name in names:
        folder = work / name.replace(" ", "-").replace(",", "")
        if not (folder / "run.json").exists() or _read(folder)["status"] != "finished":
            run(RUNS[name], folder, teachers, exports, text, dev, work / "embeddings")
        record(name, _read(folder))


def run(given: dict[str, Any], folder: Path, teachers: Path, exports: Path, text: Path, dev: Any, cache: Path) -> None:
    data = load_sentences(text, limit=given.get("sentences"))
    student = make_student(
        teachers / given.get("source", FROM), **given.get("student", {"embedding_size": 128}), data=data, device="cpu"
    )
    config = replace(BASE, **given.get("config", {}))
    known = [open_teacher(exports / teacher) for teacher in given.get("teachers", BOTH)]
    evaluator = STSEvaluator([dev], write_csv=False)
    resume = (folder / "run.json").exists()
    distill(student, known, data, config, folder, evaluator=evaluator, cache_dir=cache, resume=resume)


def record(name: str, run: dict[str, Any]) -> None:
    path = HERE / "ablation.csv"
    rows = list(csv.DictReader(path.open(encoding="utf-8"))) if path.exists() else []
    row = {
        "run": name,
        "stsb_dev_before": f"{run['scores_before']['STS-B-dev']:.2f}",
        "stsb_dev": f"{run['scores_after']['STS-B-dev']:.2f}",
        "steps": run["config"]["max_steps"],
        "batch_size": run["config"]["batch_size"],
        "seed": run["config"]["seed"],
        "sentences": run["data"]["rows"],
        "seconds": run["seconds"],
    }
    rows = [*(old for old in rows if old["run"] != name), row]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, row, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(row, flush=True)


def _read(folder: Path) -> dict[str, Any]:
    run: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return run


if __name__ == "__main__":
    main()

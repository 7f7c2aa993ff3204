"""Trains the quickstart's model under a setting and appends its scores to a CSV file.

    python results/quickstart/study.py validation --changes '{"learning_rate": 3e-5}'
    python results/quickstart/study.py test --seed 1

``validation`` holds out a further sixth of the standard library's modules and scores on it: by this, and by nothing
else, the setting was chosen. ``test`` trains as ``distilface quickstart`` does and scores on its held-out half.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from distilface_st.datasets.python_docs import PACKAGES, gather_python_docs
from distilface_st.models.build import build_model
from distilface_st.pretrained import bundled_encoder
from distilface_st.training import quickstart
from distilface_st.training.train import train

HERE = Path(__file__).parent
TEST, VALIDATION = (0, 1, 2), (3,)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("split", choices=("validation", "test"))
    parser.add_argument("--changes", default="{}", type=json.loads, help="JSON of TrainingConfig's fields")
    parser.add_argument("--packages", default=",".join(PACKAGES), help="comma-separated; empty: standard library alone")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    packages = [name for name in args.packages.split(",") if name]
    docs = gather_python_docs(packages, held_out=TEST)
    if args.split == "validation":
        wider = gather_python_docs(packages, held_out=TEST + VALIDATION)
        tested = {entry.module for entry in docs.test}
        docs = replace(wider, test=[entry for entry in wider.test if entry.module not in tested])
    config = replace(quickstart.CONFIG, seed=args.seed, **args.changes)
    model = build_model(bundled_encoder(), layers=config.layers, device="cpu")
    before = quickstart.heldout_scores(model, docs, config.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        train(model, quickstart.training_data(docs), config, folder, device="cpu")
        seconds = time.perf_counter() - start
    after = quickstart.heldout_scores(model, docs, config.batch_size)
    row = {
        "split": args.split,
        "changes": json.dumps(args.changes),
        "packages": " ".join(packages),
        "seed": args.seed,
        "training_pairs": len(docs.train),
        "queries": len(docs.test),
        "training_seconds": round(seconds, 1),
        **{f"before_{name}": value for name, value in before.items()},
        **{f"after_{name}": value for name, value in after.items()},
    }
    file = HERE / "runs.csv"
    is_new = not file.exists()
    with file.open("a", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, list(row), lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)
    print(json.dumps(row, indent=2))


if __name__ == "__main__":
    main()

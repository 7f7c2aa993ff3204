"""Each domain's test half before and after training on its other half with the defaults of ``distilface train``.

    python results/own-text/study.py DOMAINS results/own-text/runs.csv --only man python-code --seeds 0 1 2 \
        --sts-dir STS

``DOMAINS`` is what domains.py wrote. A row a model and domain is appended to the CSV: BM25, models as they come, and
the base after training. Rows that are there already are not measured again.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from distilface_st import AdaptationConfig, RetrievalEvaluator, adapt, load_model, sts_suite
from distilface_st.evaluation.retrieval import bm25_ranks, interval_of_mean, reciprocal_ranks, scores_of_ranks

if TYPE_CHECKING:
    import numpy as np

FIELDS = (
    *("domain", "model", "seed", "minutes", "steps", "mrr@10", "low", "high", "recall@1", "recall@10", "average5"),
    "seconds",
)
KEY = ("domain", "model", "seed", "minutes")
AS_THEY_COME = ("distilface-mini", "distilface-micro", "bundled")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("domains", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--only", nargs="*", help="Domains; all by default.")
    parser.add_argument("--as-they-come", nargs="*", default=AS_THEY_COME, help="Models to score untrained.")
    parser.add_argument("--base", default="distilface-mini")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--minutes", type=float, default=float(AdaptationConfig.minutes))
    parser.add_argument("--settings", type=json.loads, default={}, help="JSON of AdaptationConfig's fields.")
    parser.add_argument("--sts-dir", type=Path)
    given = parser.parse_args()
    known = set()
    if given.output.exists():
        with given.output.open(newline="", encoding="utf-8") as file:
            known = {
                tuple(row[name] for name in ("domain", "model", "seed", "minutes")) for row in csv.DictReader(file)
            }

    def add(domain: str, model: str, seed: object, ranks: np.ndarray, **more: object) -> None:
        scores = {name: round(value, 4) for name, value in scores_of_ranks(ranks).items()}
        low, high = interval_of_mean(reciprocal_ranks(ranks))
        row = {"domain": domain, "model": model, "seed": seed, **scores, "low": round(low, 4), "high": round(high, 4)}
        is_new = not given.output.exists()
        with given.output.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
            if is_new:
                writer.writeheader()
            writer.writerow(row | more)
        print(row | more, flush=True)

    for name in given.only or sorted(path.name for path in given.domains.iterdir()):
        folder = given.domains / name
        records = [json.loads(line) for line in (folder / "test.jsonl").read_text(encoding="utf-8").splitlines()]
        test = RetrievalEvaluator([r["title"] for r in records], [r["text"] for r in records], write_csv=False)
        if (name, "BM25", "", "") not in known:
            add(name, "BM25", "", bm25_ranks(test.queries, test.documents))
        for model in given.as_they_come:
            shown = Path(model).name
            if (name, shown, "", "") not in known:
                add(name, shown, "", test.answers(load_model(model)).ranks)
        for seed in given.seeds:
            trained = f"{given.base}, trained{' ' + json.dumps(given.settings) if given.settings else ''}"
            if (name, trained, str(seed), str(given.minutes)) in known:
                continue
            begun = time.monotonic()
            with tempfile.TemporaryDirectory() as scratch:
                config = replace(AdaptationConfig(minutes=given.minutes, seed=seed), **given.settings)
                result = adapt(given.base, folder / "train.jsonl", Path(scratch, "run"), config, announce=print)
                seconds = round(time.monotonic() - begun)
                facts = {"minutes": given.minutes, "steps": result.run["steps"], "seconds": seconds}
                if given.sts_dir:
                    facts["average5"] = round(sts_suite(result.model, given.sts_dir)["average5"] or 0.0, 2)
                print(result.run["adaptation"]["mixtures"], flush=True)
                add(name, trained, seed, test.answers(result.model).ranks, **facts)


if __name__ == "__main__":
    main()

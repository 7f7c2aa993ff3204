"""Two small measurements behind the choices: how to weight the teachers, and how search depends on the longest input.

    python results/distilface-mini/checks.py EXPORTS ../shared/data

writes ``teacher-weights.csv`` (Spearman x 100 on STS-B dev of the teachers' weighted mean similarity) and
``longest-input.csv`` (title to article, MRR@10 of ours and their teacher by the tokens that are read; rows of the first
stage's weights are kept as they were).
"""

from __future__ import annotations

import csv
import gzip
import json
import sys
from pathlib import Path
from typing import Any

from scipy.stats import spearmanr

from distilface_st import EdgeEncoder, load_sts, shipped_model
from distilface_st.evaluation.retrieval import ranks_of_own, scores_of_ranks

HERE = Path(__file__).parent


def write(name: str, rows: list[dict[str, Any]]) -> None:
    with (HERE / name).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(name, rows, flush=True)


def main() -> None:
    exports, data = Path(sys.argv[1]), Path(sys.argv[2])
    (dev,) = load_sts("STS-B", data / "sts", split="dev").subsets
    cosines = []
    for name in ("mpnet", "paraphrase-l3"):
        encoder = EdgeEncoder(exports / name)
        one, other = (encoder.encode(s, normalize_embeddings=True) for s in (dev.sentences1, dev.sentences2))
        cosines.append((one * other).sum(axis=1))
    weights = [0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 1.0]
    scores = [spearmanr(w * cosines[0] + (1 - w) * cosines[1], dev.scores).statistic for w in weights]
    write(
        "teacher-weights.csv",
        [{"mpnet": w, "stsb_dev": round(float(100 * s), 2)} for w, s in zip(weights, scores, strict=True)],
    )
    with gzip.open(data / "wiki" / "articles.jsonl.gz", "rt", encoding="utf-8") as file:
        articles = [json.loads(line) for line in file]
    rows = []
    encoders = {"distilface-mini": EdgeEncoder(), "distilface-micro": EdgeEncoder(shipped_model("micro"))}
    for name, encoder in {**encoders, "paraphrase-MiniLM-L3-v2": EdgeEncoder(exports / "paraphrase-l3")}.items():
        for tokens in [n for n in (32, 64, 128, 256) if n <= encoder.max_seq_length]:
            encoder.max_seq_length = tokens
            titles, texts = (
                encoder.encode([a[key] for a in articles], normalize_embeddings=True) for key in ("title", "text")
            )
            found = scores_of_ranks(ranks_of_own(titles, texts))["mrr@10"]
            rows.append({"model": name, "tokens": tokens, "mrr10": round(found, 4)})
    with (HERE / "longest-input.csv").open(encoding="utf-8") as file:
        rows += [row for row in csv.DictReader(file) if row["model"].endswith("first stage")]
    write("longest-input.csv", rows)


if __name__ == "__main__":
    main()

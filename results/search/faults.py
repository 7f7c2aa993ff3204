"""Killed with SIGKILL at fifty random moments while it indexes, run again each time: is the index as if nothing was?

    python results/search/faults.py ../shared/data WORK [--kills 50] [--store faiss]

12,000 Wikipedia sentences, distilface-micro, a commit every 512 documents. The command is started and killed after a
random time between its start and somewhat more than a whole run takes, again and again, until it ends by itself; then
the index is compared with an uninterrupted one: the same passages under the same numbers, and vectors that differ by no
more than int8 varies with batch mates (none, where chunks are the same). faults.csv has a row for every index.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import random
import shutil
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np

from distilface_st.search import SearchIndex

HERE = Path(__file__).parent
SENTENCES = 12_000
PROGRAM = """
import sys
from distilface_st.search import IndexSettings, index_corpus, indexing
indexing.CHUNK = 512
settings = IndexSettings(sys.argv[3], {"index": sys.argv[4]})
index_corpus(sys.argv[1], sys.argv[2], "distilface-micro", settings)
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--store", default="faiss")
    parser.add_argument("--kind", default="hnsw")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    corpus = options.work / "corpus.txt"
    with gzip.open(options.data / "wiki" / "sentences.txt.gz", "rt", encoding="utf-8") as file:
        corpus.write_text("".join(islice(file, SENTENCES)), encoding="utf-8")
    whole, tried = options.work / "whole", options.work / "tried"
    shutil.rmtree(whole, ignore_errors=True)
    start = time.perf_counter()
    run(corpus, whole, options).wait()
    longest = 1.1 * (time.perf_counter() - start)
    rng, killed, rows = random.Random(0), 0, []
    while killed < options.kills:
        shutil.rmtree(tried, ignore_errors=True)
        own = 0
        while True:
            process = run(corpus, tried, options)
            try:
                status = process.wait(rng.uniform(0.0, longest) if killed < options.kills else None)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                own, killed = own + 1, killed + 1
                continue
            break
        rows.append(
            {"store": options.store, "kind": options.kind, "kills": own, "status": status, **compared(whole, tried)}
        )
        print(rows[-1], flush=True)
        write(options, rows)


def run(corpus: Path, folder: Path, options: argparse.Namespace) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(corpus), str(folder), options.store, options.kind])


def compared(whole: Path, tried: Path) -> dict[str, object]:
    with SearchIndex.open(whole) as one, SearchIndex.open(tried) as other:
        other.verify()
        passages, expected = (dict(index.store.texts()) for index in (other, one))
        (mine, mine_rows), (theirs, their_rows) = (index.store.sample(10**6, 0) for index in (other, one))
        order, their_order = (np.lexsort(([p.number for p in f], [int(p.document) for p in f])) for f in (mine, theirs))
        same = [mine[i] == theirs[j] for i, j in zip(order, their_order, strict=True)]
        return {
            "passages": len(passages),
            "same_keys_and_texts": passages == expected and all(same),
            "largest_vector_difference": float(np.abs(mine_rows[order] - their_rows[their_order]).max()),
        }


def write(options: argparse.Namespace, rows: list[dict[str, object]]) -> None:
    path = HERE / "faults.csv"
    known = list(csv.DictReader(path.open(encoding="utf-8"))) if path.exists() else []
    others = [row for row in known if (row["store"], row["kind"]) != (options.store, options.kind)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows([*others, *rows])


if __name__ == "__main__":
    main()

"""What a million vectors cost, and what indexing adds to encoding.

    python results/search/scale.py indexing ../shared/data WORK
    python results/search/scale.py million TEXT WORK

``indexing``: 20,000 Wikipedia sentences through ``EdgeEncoder.encode`` alone and through ``index_corpus`` end to end,
in turns, five rounds: indexing.csv. ``million``: TEXT (a sentence a line, half a million) embedded by distilface-micro,
and each embedding a second time with noise (cosine about 0.9 to the first), to make about a million rows of 384;
200 queries are further noisy copies, taken at random: million.csv, recall@10 against exact search.
"""

from __future__ import annotations

import csv
import gzip
import json
import shutil
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from distilface_st import EdgeEncoder
from distilface_st.search import IndexSettings, SearchIndex, index_corpus
from distilface_st.search.hits import Passage
from distilface_st.search.index import named_encoder, write_manifest
from distilface_st.search.stores.faiss import FaissStore

HERE = Path(__file__).parent
ROUNDS, SENTENCES = 5, 20_000
NOISE = 0.48
QUERIES = 200


def indexing(data: Path, work: Path) -> None:
    with gzip.open(data / "wiki" / "sentences.txt.gz", "rt", encoding="utf-8") as file:
        sentences = [line.strip() for line in islice(file, SENTENCES)]
    work.mkdir(parents=True, exist_ok=True)
    corpus = work / "sentences.txt"
    corpus.write_text("\n".join(sentences) + "\n", encoding="utf-8")
    rows = []
    for model in ("mini", "micro"):
        encoder = EdgeEncoder(f"distilface-{model}")
        for turn in range(ROUNDS):
            start = time.perf_counter()
            encoder.encode(sentences, normalize_embeddings=True)
            bare = time.perf_counter() - start
            shutil.rmtree(work / "index", ignore_errors=True)
            start = time.perf_counter()
            index_corpus(corpus, work / "index", encoder, model_name=f"distilface-{model}")
            whole = time.perf_counter() - start
            rows.append(
                {
                    "model": f"distilface-{model}",
                    "round": turn,
                    "encode_per_s": round(SENTENCES / bare, 1),
                    "index_per_s": round(SENTENCES / whole, 1),
                    "ratio": round(bare / whole, 3),
                }
            )
            print(rows[-1], flush=True)
    write("indexing.csv", rows)


def million(text: Path, work: Path) -> None:
    vectors, queries = million_vectors(text, work)
    encoder = EdgeEncoder("distilface-micro")
    rows: list[dict[str, Any]] = []
    exact: list[set[str]] = []
    for kind in ("exact", "int8", "hnsw", "ivf-pq"):
        folder = work / kind
        seconds = built(folder, kind, encoder, vectors)
        start = time.perf_counter()
        with SearchIndex.open(folder, encoder) as index:
            opened = time.perf_counter() - start
            start = time.perf_counter()
            index.search_vectors(queries[:1], 10)
            first = time.perf_counter() - start
            times, found = [], []
            for query in queries:
                start = time.perf_counter()
                hits = index.search_vectors(query[None], 10)[0]
                times.append(1000 * (time.perf_counter() - start))
                found.append({hit.id for hit in hits})
        exact = exact or found
        p50, p99 = np.percentile(times, [50, 99]).round(2).tolist()
        size = sum(path.stat().st_size for path in folder.glob("structure-*"))
        recall = np.mean([len(one & own) / len(one) for one, own in zip(exact, found, strict=True)])
        rows.append(
            {
                "kind": kind,
                "rows": len(vectors),
                "recall@10": round(float(recall), 4),
                "p50_ms": p50,
                "p99_ms": p99,
                "open_ms": round(1000 * opened, 1),
                "first_query_ms": round(1000 * first, 1),
                "build_s": seconds,
                "structure_mb": round(size / 1e6, 1),
            }
        )
        print(rows[-1], flush=True)
        write("million.csv", rows)


def million_vectors(text: Path, work: Path) -> tuple[np.ndarray, np.ndarray]:
    path = work / "million.npy"
    rng = np.random.default_rng(0)
    if not path.exists():
        work.mkdir(parents=True, exist_ok=True)
        lines = text.read_text(encoding="utf-8").splitlines()[:500_000]
        plain = EdgeEncoder("distilface-micro").encode(lines, normalize_embeddings=True)
        np.save(path, np.concatenate([plain, noisy(plain, rng)])[:1_000_000])
    vectors = np.load(path, mmap_mode="r")
    chosen = np.random.default_rng(1).choice(len(vectors), QUERIES, replace=False)
    return vectors, noisy(np.array(vectors[np.sort(chosen)]), np.random.default_rng(2))


def noisy(vectors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    noise = rng.standard_normal(vectors.shape, dtype=np.float32) * (NOISE / vectors.shape[1] ** 0.5)
    moved = vectors + noise
    return moved / np.linalg.norm(moved, axis=1, keepdims=True)


def built(folder: Path, kind: str, encoder: EdgeEncoder, vectors: np.ndarray) -> float:
    """Seconds that the structure took to build; the store is filled first, which is not counted."""
    record = folder.with_suffix(".json")
    if record.exists():
        return float(json.loads(record.read_text(encoding="utf-8")))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    settings = IndexSettings(options={"index": kind})
    store = FaissStore(folder, vectors.shape[1], FaissStore.check(settings.options), create=True)
    for start in range(0, len(vectors), 50_000):
        part = np.asarray(vectors[start : start + 50_000])
        passages = [Passage(str(start + i), 0, f"row {start + i}", {}) for i in range(len(part))]
        store.add(passages, part, [passage.document for passage in passages], "")
    begun = time.perf_counter()
    store.finish()
    seconds = round(time.perf_counter() - begun, 1)
    store.close()
    write_manifest(
        folder,
        named_encoder(encoder, "distilface-micro"),
        "faiss",
        {"index": kind},
        passages={"tokens": 128, "overlap": 32},
    )
    record.write_text(json.dumps(seconds), encoding="utf-8")
    return seconds


def write(name: str, rows: list[dict[str, Any]]) -> None:
    with (HERE / name).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    {"indexing": indexing, "million": million}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))

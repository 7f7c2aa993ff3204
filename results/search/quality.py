"""Known-item search: does the right article come up for its title, and for a sentence that was taken out of it?

    python results/search/quality.py ../shared/data WORK [--models distilface-mini,distilface-micro,...] [--articles N]

WORK is a folder for indexes. A model is whatever ``distilface index --model`` takes. Two tasks over the same articles:
``title`` (all titles, whole articles) and ``sentence`` (a sentence from the middle of each article that has five or
more, which is left out of the text that is indexed). Articles are split into passages of at most 128 tokens, 32 of them
shared; an article's rank is that of its best passage. BM25 (bm25s) over the same passages and the fusion of both
rankings come with every model. Rows are added to ``quality.csv``; ``latency.csv`` has milliseconds a single query,
asked one after another, embedding included, the best sentence not looked for.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from distilface_st.datasets.segmentation import split_sentences
from distilface_st.models.encoders import lasting_name, open_encoder
from distilface_st.search import SearchIndex, index_corpus
from distilface_st.search.lexical import LexicalIndex

HERE = Path(__file__).parent
TASKS = ("title", "sentence")
TIMED = 500


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--models", default="distilface-mini,distilface-micro")
    parser.add_argument("--articles", type=int)
    options = parser.parse_args()
    with gzip.open(options.data / "wiki" / "articles.jsonl.gz", "rt", encoding="utf-8") as file:
        articles = [json.loads(line) for line in file][: options.articles]
    for model in options.models.split(","):
        encoder = open_encoder(model)
        name = Path(model).name
        for task in TASKS:
            corpus, queries = corpus_of(task, articles, options.work)
            folder = options.work / f"{name}-{task}"
            if not folder.exists():
                index_corpus(corpus, folder, encoder, model_name=lasting_name(model))
            with SearchIndex.open(folder, encoder) as index:
                measure(index, name, task, queries)


def corpus_of(task: str, articles: list[dict[str, Any]], work: Path) -> tuple[Path, list[tuple[str, str]]]:
    """The file to index, and queries with the id of the article each is of."""
    records, queries = [], []
    for article in articles:
        text = article["text"]
        sentences = split_sentences(text)
        if task == "title":
            queries.append((article["title"], str(article["id"])))
        elif len(sentences) >= 5:
            middle = sentences[len(sentences) // 2]
            text = text.replace(middle, "", 1)
            queries.append((middle, str(article["id"])))
        records.append({"id": article["id"], "text": text})
    path = work / f"{task}.jsonl"
    content = "".join(json.dumps(record) + "\n" for record in records)
    if not path.exists() or path.read_text(encoding="utf-8") != content:
        work.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return path, queries


def measure(index: SearchIndex, model: str, task: str, queries: list[tuple[str, str]]) -> None:
    texts, own = [query for query, _ in queries], [name for _, name in queries]
    counts = index.store.counts()
    lexical = LexicalIndex(index.folder / "lexical", index.store)
    found = {"vectors": ranks(index.search(texts, highlight=False), own)}
    found["BM25 + vectors"] = ranks(index.search(texts, hybrid=True, highlight=False), own)
    found["BM25"] = lexical_ranks(index, lexical, texts, own)
    for way, rank in found.items():
        row = {"model": model, "task": task, "ranking": way, "queries": len(queries), "documents": counts.documents}
        row |= {
            "passages": counts.passages,
            "mrr@10": round(float(np.where(rank > 0, 1 / np.maximum(rank, 1), 0).mean()), 4),
        }
        add("quality.csv", {**row, "recall@10": round(float((rank > 0).mean()), 4)}, ("model", "task", "ranking"))
    for way, hybrid in (("vectors", False), ("BM25 + vectors", True)):
        times = []
        for text in texts[:TIMED]:
            start = time.perf_counter()
            index.search([text], hybrid=hybrid, highlight=False)
            times.append(1000 * (time.perf_counter() - start))
        p50, p90, p99 = np.percentile(times, [50, 90, 99]).round(2).tolist()
        row = {"model": model, "task": task, "ranking": way, "queries": len(times), "passages": counts.passages}
        add("latency.csv", {**row, "p50_ms": p50, "p90_ms": p90, "p99_ms": p99}, ("model", "task", "ranking"))


def ranks(hits: list[list[Any]], own: list[str]) -> np.ndarray:
    """Rank of the right article among the first ten, 0 where it is not there."""
    return np.array(
        [
            next((r for r, hit in enumerate(found, 1) if hit.id == name), 0)
            for found, name in zip(hits, own, strict=True)
        ]
    )


def lexical_ranks(index: SearchIndex, lexical: LexicalIndex, texts: list[str], own: list[str]) -> np.ndarray:
    rank = []
    for scored, name in zip(lexical.search(texts, 100), own, strict=True):
        passages = index.store.fetch([key for key, _ in scored])
        documents = list(dict.fromkeys(passages[key].document for key, _ in scored))[:10]
        rank.append(documents.index(name) + 1 if name in documents else 0)
    return np.array(rank)


def add(name: str, row: dict[str, Any], key: tuple[str, ...]) -> None:
    path = HERE / name
    rows: list[dict[str, Any]] = list(csv.DictReader(path.open(encoding="utf-8"))) if path.exists() else []
    rows = [old for old in rows if any(old[k] != str(row[k]) for k in key)] + [row]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(row, flush=True)


if __name__ == "__main__":
    main()

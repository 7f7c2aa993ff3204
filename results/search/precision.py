"""What embeddings of fewer bytes cost: bytes in a file, and neighbours that are not found.

    python results/search/precision.py ../shared/data WORK

20,500 Wikipedia sentences, taken at random, embedded by distilface-mini to length 1: 20,000 that are searched and 500
queries. precision.csv: what ``encode_file`` writes of the 20,000, bytes of the file over texts, and the share of the
ten nearest in float32 that are among the ten nearest of the quantized embeddings alone: int8 and uint8 turned back into
floats, binary and ubinary by Hamming distance. candidates.csv: the share of the ten nearest that are among the nearest
by Hamming distance, for some numbers of candidates for each of the ten, and of rows.
"""

from __future__ import annotations

import csv
import gzip
import sys
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from distilface_st import EdgeEncoder, encode_file
from distilface_st.inference.precision import PRECISIONS, SCALED, quantize_embeddings, ranges_of

HERE = Path(__file__).parent
ROWS, QUERIES, K = 20_000, 500, 10


def embedded(data: Path, work: Path) -> tuple[list[str], np.ndarray]:
    with gzip.open(data / "wiki" / "sentences.txt.gz", "rt", encoding="utf-8") as file:
        lines = [line.strip() for line in file]
    chosen = np.random.default_rng(0).choice(len(lines), ROWS + QUERIES, replace=False)
    texts = [lines[number] for number in chosen]
    path = work / "wiki.npy"
    if not path.exists():
        work.mkdir(parents=True, exist_ok=True)
        np.save(path, EdgeEncoder("distilface-mini").encode(texts, normalize_embeddings=True))
    return texts, np.load(path)


class Known:
    """Gives embeddings that were computed before."""

    def __init__(self, texts: list[str], embeddings: np.ndarray) -> None:
        self.rows = dict(zip(texts, embeddings, strict=True))

    def get_embedding_dimension(self) -> int:
        return len(next(iter(self.rows.values())))

    def encode(self, texts: list[str], **_: Any) -> np.ndarray:
        return np.stack([self.rows[text] for text in texts])


def bytes_of(texts: list[str], embeddings: np.ndarray, precision: str, work: Path) -> dict[str, float]:
    """Bytes a text, by the file's ending."""
    (work / "texts.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    found = {}
    for ending in (".npy", ".parquet", ".jsonl"):
        output = work / f"out{ending}"
        encode_file(Known(texts, embeddings), work / "texts.txt", output, precision=precision)
        found[ending] = round(output.stat().st_size / len(texts), 1)
    return found


def neighbours(stored: np.ndarray, queries: np.ndarray, precision: str) -> np.ndarray:
    """The ten nearest by quantized embeddings alone, shape (queries, 10)."""
    ranges = ranges_of(stored)
    rows, asked = (quantize_embeddings(part, precision, ranges) for part in (stored, queries))
    if precision not in (*SCALED, "float32"):
        return np.asarray(faiss.knn_hamming(asked.view(np.uint8), rows.view(np.uint8), K)[1])
    if precision in SCALED:
        steps = (ranges[1] - ranges[0]) / 255
        rows, asked = (part * steps + ranges[0] + (128 * steps if precision == "int8" else 0) for part in (rows, asked))
    return np.asarray(faiss.knn(asked, rows, K, metric=faiss.METRIC_INNER_PRODUCT)[1])


def recall(exact: np.ndarray, found: np.ndarray) -> float:
    shares = [len(np.intersect1d(one, own)) / len(one) for one, own in zip(exact, found, strict=True)]
    return round(float(np.mean(shares)), 4)


def write(name: str, rows: list[dict[str, Any]]) -> None:
    with (HERE / name).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main(data: Path, work: Path) -> None:
    texts, embeddings = embedded(data, work)
    stored, queries = embeddings[:ROWS], embeddings[ROWS:]
    exact = neighbours(stored, queries, "float32")
    quantized = [
        {
            "precision": precision,
            **bytes_of(texts[:ROWS], stored, precision, work),
            "recall@10": recall(exact, neighbours(stored, queries, precision)),
        }
        for precision in PRECISIONS
    ]
    write("precision.csv", quantized)
    candidates = []
    for rows in (ROWS // 8, ROWS // 4, ROWS // 2, ROWS):
        exact = neighbours(stored[:rows], queries, "float32")
        bits = [quantize_embeddings(part, "ubinary") for part in (queries, stored[:rows])]
        for each in (4, 8, 16, 32, 64):
            found = np.asarray(faiss.knn_hamming(*bits, each * K)[1])
            candidates.append({"rows": rows, "candidates": each, "recall@10": recall(exact, found)})
    write("candidates.csv", candidates)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

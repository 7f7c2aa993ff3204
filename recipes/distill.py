"""``distilface distill``: a small encoder cut from a large one, and trained to embed as it does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from ..pretrained import resolve_name
from ._common import Device, JsonFile, StsDir, console, parse_layers, write_result
from ._training import (
    EvalFile,
    EvaluateEvery,
    LearningRate,
    MaxLength,
    Patience,
    Precision,
    Resume,
    RowsAStep,
    RunSeed,
    Schedule,
    Steps,
    WarmupSteps,
    show_training,
    training_evaluator,
)

if TYPE_CHECKING:
    from rich.progress import TaskID
    from sentence_transformers.base.evaluation import BaseEvaluator

    from ..datasets.text_data import TextData
    from ..distillation.teachers import Teacher

_STUDENT, _OBJECTIVES, _RUN = "Student", "Objectives", "Run"


def distill(
    teacher: Annotated[
        str, typer.Argument(metavar="TEACHER", help="The model to cut the student from: a folder or a Hub name.")
    ],
    sentences: Annotated[
        str,
        typer.Argument(
            metavar="SENTENCES",
            help="Text: .txt, .jsonl, .csv, .tsv (each also .gz), .parquet, a folder of those, or a Hub dataset.",
        ),
    ],
    output: Annotated[Path, typer.Option(help="Folder of the run: model, history, run.json.")],
    learn_from: Annotated[
        list[str] | None,
        typer.Option(
            help="A model to learn from, also an exported one, which is faster; several times for several. "
            "Default: TEACHER."
        ),
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(
            help="Layers to keep: a number (evenly spaced), first:N, or indices with commas (a single one: 1,).",
            rich_help_panel=_STUDENT,
        ),
    ] = None,
    embedding_size: Annotated[
        int | None, typer.Option(help="Width of factorised word embeddings.", rich_help_panel=_STUDENT)
    ] = None,
    vocabulary: Annotated[
        str, typer.Option(help="keep, or trim:N for the N most frequent tokens.", rich_help_panel=_STUDENT)
    ] = "keep",
    dimension: Annotated[
        int | None, typer.Option(min=1, help="Width of the sentence embeddings.", rich_help_panel=_STUDENT)
    ] = None,
    regression: Annotated[
        float | None, typer.Option(min=0, help="Weight of the teacher's embedding.", rich_help_panel=_OBJECTIVES)
    ] = None,
    contrastive: Annotated[
        float | None, typer.Option(min=0, help="Weight of in-batch negatives.", rich_help_panel=_OBJECTIVES)
    ] = None,
    relational: Annotated[
        float | None, typer.Option(min=0, help="Weight of the similarities' squares.", rich_help_panel=_OBJECTIVES)
    ] = None,
    ranking: Annotated[
        float | None, typer.Option(min=0, help="Weight of the similarities' ranking.", rich_help_panel=_OBJECTIVES)
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Of in-batch negatives.", rich_help_panel=_OBJECTIVES)
    ] = None,
    weight: Annotated[
        list[float] | None,
        typer.Option(help="Weight of a teacher, once for each --learn-from.", rich_help_panel=_OBJECTIVES),
    ] = None,
    width: Annotated[
        list[int] | None,
        typer.Option(
            help="A smaller embedding size that must do alone (Matryoshka); several times for several.",
            rich_help_panel=_OBJECTIVES,
        ),
    ] = None,
    topical: Annotated[
        bool | None, typer.Option(help="Whether batches hold sentences about one topic.", rich_help_panel=_OBJECTIVES)
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Read this many records at most.")] = None,
    column: Annotated[str | None, typer.Option(help="Column or field with the text.")] = None,
    steps: Steps = None,
    batch_size: RowsAStep = None,
    learning_rate: LearningRate = None,
    schedule: Schedule = None,
    warmup_steps: WarmupSteps = None,
    dropout: Annotated[float | None, typer.Option(help="Dropout probability of the student.")] = None,
    max_length: MaxLength = None,
    precision: Precision = None,
    evaluate_every: EvaluateEvery = None,
    patience: Patience = None,
    sts_dir: StsDir = None,
    eval_file: EvalFile = None,
    cache_dir: Annotated[
        Path | None,
        typer.Option(help="Folder of the teachers' embeddings, shared by runs.", rich_help_panel=_RUN),
    ] = None,
    resume: Resume = False,
    seed: RunSeed = None,
    device: Device = None,
    json_file: JsonFile = None,
) -> None:
    """Distil a sentence encoder into a small one, on text without labels.

    The student begins with the teacher's own weights. Each teacher embeds the text once, and runs on the same text
    share that. The checkpoint is chosen on STS-B dev (--sts-dir), on your own scored pairs (--eval-file), or, with
    neither, by how well it ranks pairs of held-out sentences as its teachers do.
    """
    from ..datasets.sentences import load_sentences
    from ..distillation.config import DistillationConfig
    from ..distillation.student import make_student
    from ..distillation.teachers import open_teacher
    from ..distillation.training import distill as run_distillation
    from ..training.trainer import TrainingInterrupted
    from ._progress import TrainingProgress, quiet_libraries

    quiet_libraries()
    given: dict[str, Any] = {
        "regression": regression,
        "contrastive": contrastive,
        "relational": relational,
        "ranking": ranking,
        "temperature": temperature,
        "teacher_weights": tuple(weight) if weight else None,
        "widths": tuple(width) if width else None,
        "topical": topical,
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "schedule": schedule,
        "warmup_steps": warmup_steps,
        "dropout": dropout,
        "max_length": max_length,
        "precision": precision,
        "evaluate_every": evaluate_every,
        "patience": patience,
        "seed": seed,
    }
    config = DistillationConfig(**{name: value for name, value in given.items() if value is not None})
    kept_layers, tokens = _layers(layers), _tokens(vocabulary)
    names = learn_from or [teacher]
    if weight and len(weight) != len(names):
        raise InputError(f"--weight is given {len(weight)} times, for {len(names)} models to learn from.")
    data = load_sentences(sentences, column=column, limit=limit)
    teachers = [open_teacher(resolve_name(name), device) for name in names]
    if sts_dir or eval_file:
        data, evaluator = training_evaluator(data, sts_dir, False, eval_file)
    else:
        data, evaluator = _by_teachers(data, teachers, weight)
    student = make_student(resolve_name(teacher), kept_layers, embedding_size, tokens, dimension, data, device)
    out = console()
    parameters = sum(parameter.numel() for parameter in student.parameters())
    out.print(f"{data.source}: {len(data.dataset):,} sentences; the student has {parameters:,} parameters")
    progress = TrainingProgress(evaluator.primary_metric)
    try:
        with _TeacherProgress(len(data.dataset)) as embedding:
            result = run_distillation(
                student,
                teachers,
                data,
                config,
                output,
                evaluator=evaluator,
                cache_dir=cache_dir,
                resume=resume,
                device=device,
                callbacks=[progress],
                progress=embedding,
            )
    except TrainingInterrupted as stopped:
        out.print(str(stopped))
        raise typer.Exit(130) from None
    show_training(result)
    write_result(result.run, json_file)


def _by_teachers(
    data: TextData, teachers: list[Teacher], weights: list[float] | None
) -> tuple[TextData, BaseEvaluator]:
    """Some of the text held out and scored by the teachers, and the text that is left."""
    from ..distillation.agreement import teacher_pairs
    from ..evaluation.sts import STSEvaluator
    from ..training.train import hold_out

    left, held_out = hold_out(data)
    return left, STSEvaluator([teacher_pairs(teachers, held_out["sentence"], weights)], write_csv=False)


class _TeacherProgress:
    """A bar for each teacher while it embeds."""

    def __init__(self, rows: int) -> None:
        from ._progress import progress_bar

        self._rows = rows
        self._bar = progress_bar()
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> _TeacherProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, teacher: str, done: int) -> None:
        if teacher not in self._tasks:
            self._bar.start()
            self._tasks[teacher] = self._bar.add_task(f"{teacher} embeds", total=self._rows)
        self._bar.update(self._tasks[teacher], completed=done)
        if done >= self._rows:
            self._bar.stop()


def _layers(text: str | None) -> int | str | list[int] | None:
    if text is None or text.startswith("first:"):
        return text
    if text.isdigit():
        return int(text)
    found = parse_layers(text.removesuffix(","))  # "1," is the layer with index 1
    if isinstance(found, str):
        raise InputError(f"--layers {text}: give a number, first:N, or indices with commas.")
    return found


def _tokens(text: str) -> int | None:
    if text == "keep":
        return None
    kind, _, number = text.partition(":")
    if kind != "trim" or not number.isdigit():
        raise InputError(f"--vocabulary {text}: give keep, or trim:N with a number of tokens.")
    return int(number)

"""``distilface distill``: a small encoder cut from a large one, and trained to embed as it does."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from ..distillation.config import OBJECTIVES, DistillationConfig
from ..errors import InputError
from ._common import MODEL_HELP, Device, JsonFile, StsDir, console, parse_layers
from ._options import Shown, config_options
from ._training import (
    SOURCE_HELP,
    EvalFile,
    Limit,
    Resume,
    RunFolder,
    data_option,
    run_option,
    train_and_show,
    training_evaluator,
)

_OBJECTIVES = "Objectives"
_student_option = partial(typer.Option, rich_help_panel="Student")


@config_options(
    DistillationConfig,
    {
        "max_steps": Shown(("--max-steps", "--steps")),
        **dict.fromkeys((*OBJECTIVES, "topical"), Shown(panel=_OBJECTIVES)),
        "teacher_weights": Shown(
            ("--teacher-weight",), "Weight of a teacher, once for each --learn-from.", _OBJECTIVES, ("--weight",)
        ),
        "matryoshka_dims": Shown(
            ("--matryoshka-dim",),
            "A smaller embedding size that must do alone (Matryoshka); several times for several.",
            _OBJECTIVES,
            ("--width",),
        ),
    },
)
def distill(
    teacher: Annotated[str, typer.Argument(metavar="TEACHER", help=f"The model to cut the student from. {MODEL_HELP}")],
    sentences: Annotated[str, typer.Argument(metavar="SENTENCES", help=SOURCE_HELP)],
    output: RunFolder,
    given: dict[str, Any],
    *,
    learn_from: Annotated[
        list[str] | None,
        typer.Option(
            help="A model to learn from, also an exported one, which is faster; several times for several. "
            "Default: TEACHER."
        ),
    ] = None,
    layers: Annotated[
        str | None,
        _student_option(
            help="Layers to keep: a number (evenly spaced), first:N, or indices with commas (a single one: 1,)."
        ),
    ] = None,
    embedding_size: Annotated[int | None, _student_option(help="Width of factorised word embeddings.")] = None,
    vocabulary: Annotated[str, _student_option(help="keep, or trim:N for the N most frequent tokens.")] = "keep",
    dimension: Annotated[int | None, _student_option(min=1, help="Width of the sentence embeddings.")] = None,
    limit: Limit = None,
    column: Annotated[str | None, data_option(help="Column or field with the text.")] = None,
    sts_dir: StsDir = None,
    eval_file: EvalFile = None,
    cache_dir: Annotated[Path | None, run_option(help="Folder of the teachers' embeddings, shared by runs.")] = None,
    resume: Resume = False,
    device: Device = None,
    json_file: JsonFile = None,
) -> None:
    """Distil a sentence encoder into a small one, on text without labels.

    The student begins with the teacher's own weights. Each teacher embeds the text once, and runs on the same text
    share that. The checkpoint is chosen on STS-B dev (--sts-dir), on your own scored pairs (--eval-file), or, with
    neither, by how well it ranks pairs of held-out sentences as its teachers do.
    """
    from ..datasets.sentences import load_sentences
    from ..distillation.student import make_student
    from ..distillation.teachers import open_teacher, teacher_pairs
    from ..distillation.training import distill as run_distillation
    from ..evaluation.sts import STSEvaluator
    from ..training.run_record import check_run_folder
    from ..training.train import hold_out
    from ._progress import embedding_progress, quiet_libraries

    quiet_libraries()
    check_run_folder(output, resume)
    config = DistillationConfig(**given)
    weights = config.teacher_weights
    kept_layers, tokens = _layers(layers), _tokens(vocabulary)
    names = learn_from or [teacher]
    if weights and len(weights) != len(names):
        raise InputError(f"--teacher-weight is given {len(weights)} times, for {len(names)} models to learn from.")
    data = load_sentences(sentences, column=column, limit=limit)
    teachers = [open_teacher(name, device) for name in names]
    if sts_dir or eval_file:
        data, evaluator = training_evaluator(data, sts_dir, False, eval_file)
    else:
        data, held_out = hold_out(data)
        evaluator = STSEvaluator([teacher_pairs(teachers, held_out["sentence"], weights)], write_csv=False)
    student = make_student(teacher, kept_layers, embedding_size, tokens, dimension, data, device)
    parameters = sum(parameter.numel() for parameter in student.parameters())
    console().print(f"{data.source}: {len(data.dataset):,} sentences; the student has {parameters:,} parameters")
    with embedding_progress() as embedded:
        options: dict[str, Any] = {"cache_dir": cache_dir, "resume": resume, "device": device}
        options["progress"] = lambda name, done: embedded(name, done, len(data.dataset))
        run = partial(run_distillation, student, teachers, data, config, output, evaluator=evaluator, **options)
        train_and_show(run, evaluator, json_file)


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

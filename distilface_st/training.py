"""Contrastive training with the stock trainer: a model, text and settings in; a trained model and its history out."""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.base.sampler import BatchSamplers
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
from torch.nn.modules.dropout import _DropoutNd
from transformers import EarlyStoppingCallback, PrinterCallback, ProgressCallback, SchedulerType, set_seed

from .acceleration import accelerated
from .callbacks import HistoryCallback, StopOnSignal
from .errors import InputError, MissingExtraError
from .files import write_json
from .history import History, as_scores, plot_history
from .losses import SimCSELoss
from .model import build_model, save_model
from .provenance import model_fingerprint
from .run_record import begin_run, last_checkpoint
from .training_config import TrainingConfig, resolve_precision

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.evaluation import BaseEvaluator
    from transformers import TrainerCallback

    from .datasets.text_data import TextData

__all__ = ["TrainingConfig", "TrainingInterrupted", "TrainingResult", "hold_out", "model_from_config", "train"]


class TrainingInterrupted(Exception):  # noqa: N818 (what happened is no error)
    """A signal stopped the run after a checkpoint was saved.

    Attributes:
        step: The last finished step.
        output: The run's folder, from which ``resume=True`` goes on.
    """

    def __init__(self, step: int, output: Path) -> None:
        super().__init__(f"Stopped after step {step}; everything is in {output}, and --resume goes on from there.")
        self.step = step
        self.output = output


@dataclass(frozen=True)
class TrainingResult:
    """What came of a run.

    Attributes:
        model: The trained model, as kept: of the best evaluated step, or of the last where nothing was evaluated.
        output: The run's folder: ``model/``, ``run.json``, ``history.csv`` and, with the extra ``plots``,
            ``history.png``.
        history: The rows of ``history.csv``.
        run: The content of ``run.json``.
    """

    model: SentenceTransformer
    output: Path
    history: list[dict[str, float]]
    run: dict[str, Any]


def model_from_config(config: TrainingConfig, device: str | None = None) -> SentenceTransformer:
    """Build the model that a config describes.

    Raises:
        ValueError: As :func:`distilface_st.model.build_model` does.
    """
    return build_model(
        config.encoder,
        layers=config.layers,
        layer_reduction=config.layer_reduction,
        pooling_mode=config.pooling_mode,
        normalize=config.normalize,
        trim=config.trim,
        device=device,
    )


def train(
    model: SentenceTransformer,
    data: TextData,
    config: TrainingConfig,
    output: str | os.PathLike[str],
    *,
    evaluator: BaseEvaluator | None = None,
    resume: bool = False,
    device: str | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> TrainingResult:
    """Train a model with in-batch negatives.

    Several devices: start the program with ``torchrun`` or ``accelerate launch``; candidates are gathered from all.

    Args:
        model: The model, trained in place; of ``config`` its own build settings are only noted.
        data: One text column for dropout views; two or more (anchor, positive, negatives) for given positives.
        config: The settings.
        output: A new folder for the run, or with ``resume`` the folder of one that was stopped.
        evaluator: Chooses the checkpoint by its ``primary_metric``. Called before the first step as well.
        resume: Go on from the last whole checkpoint, as if the run had never stopped.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``; the best there is by default.
        callbacks: More trainer callbacks, for progress say.

    Returns:
        The trained model, and what happened.

    Raises:
        InputError: Data that does not fit the settings, a folder that holds another run, a run that diverged.
        TrainingInterrupted: SIGINT or SIGTERM came; a checkpoint was saved.
    """
    output = Path(output)
    _check_data(data, config)
    checkpoint = last_checkpoint(output / "checkpoints") if resume else None
    arguments = _arguments(config, output, model, device, evaluator, resumed=checkpoint is not None)
    loss = SimCSELoss(
        model,
        temperature=config.temperature,
        symmetric=config.symmetric,
        gather_across_devices=arguments.world_size > 1,
        mini_batch_size=config.mini_batch_size,
    )
    run = begin_run(model, data, config, output, resume)
    run["loss"] = {"name": "SimCSELoss", "settings": loss.get_config_dict(), "citation": loss.citation}
    set_seed(config.seed)
    _set_dropout(model, config.dropout)
    history = History(output / "history.csv", up_to=int(checkpoint.name.split("-")[1]) if checkpoint else None)
    stop = StopOnSignal()
    patience = [EarlyStoppingCallback(config.patience)] if config.patience and evaluator else []
    card = model.model_card_data
    card.widget = [{}]  # or the trainer would fill it with training sentences, which may be private
    trainer = SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=data.dataset,
        loss=loss,
        evaluator=evaluator,
        data_collator=SentenceTransformerDataCollator(preprocess_fn=model.preprocess, max_length=config.max_length),
        callbacks=[
            HistoryCallback(history, loss, config.batch_size * arguments.world_size),
            *patience,
            *callbacks,
            stop,
        ],
    )
    card.widget, card.train_datasets = [], []
    for printing in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(printing)
    start = time.perf_counter()
    with stop, accelerated(model):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if stop.stopped and trainer.state.global_step < config.steps:
        raise TrainingInterrupted(trainer.state.global_step, output)
    model.eval()
    if trainer.is_world_process_zero():
        run |= _outcome(trainer, history, evaluator)
        run |= {"seconds": round(time.perf_counter() - start, 1), "fingerprint_after": model_fingerprint(model)}
        _keep(model, history, run, output)
    return TrainingResult(model, output, history.rows, run)


def _outcome(trainer: SentenceTransformerTrainer, history: History, evaluator: BaseEvaluator | None) -> dict[str, Any]:
    state = trainer.state
    kept = state.best_global_step or state.global_step
    return {
        "status": "finished",
        "steps": state.global_step,
        "kept_step": kept,
        "kept": f"step {kept}, the " + (f"best {evaluator.primary_metric}" if evaluator else "last"),
        "improved": evaluator is None or _improved(state.best_metric, history, evaluator),
        "scores_before": history.scores(0),
        "scores_after": history.scores(kept),
    }


def _keep(model: SentenceTransformer, history: History, run: dict[str, Any], output: Path) -> None:
    """Write model, plot and record; the checkpoints go once all of it is there."""
    save_model(model, output / "model", run=run)
    with contextlib.suppress(MissingExtraError):
        plot_history(history.rows, output / "history.png", best_step=run["kept_step"] if run["scores_after"] else None)
    write_json(output / "run.json", run)
    shutil.rmtree(output / "checkpoints", ignore_errors=True)


def _improved(best: float | None, history: History, evaluator: BaseEvaluator) -> bool:
    """Whether the kept step scores better than the model before training."""
    if best is None:
        return True
    ((name, kept),) = as_scores({str(evaluator.primary_metric): best}).items()
    before = history.scores(0).get(name, -math.inf if evaluator.greater_is_better else math.inf)
    return kept > before if evaluator.greater_is_better else kept < before


def hold_out(data: TextData, rows: int = 1000) -> tuple[TextData, Dataset]:
    """Set the last rows of the data aside, at most a tenth of them.

    Args:
        data: The data.
        rows: How many to set aside at most.

    Returns:
        The data left, and the rows set aside.
    """
    left = len(data.dataset) - max(1, min(rows, len(data.dataset) // 10))
    return replace(data, dataset=data.dataset.select(range(left))), data.dataset.select(range(left, len(data.dataset)))


def _check_data(data: TextData, config: TrainingConfig) -> None:
    columns = data.dataset.column_names
    if (len(columns) == 1) != (config.views == "dropout"):
        raise InputError(f"views are {config.views}, but the data has the columns {', '.join(columns)}.")
    if len(data.dataset) < config.batch_size:
        raise InputError(
            f"{data.source} gives {len(data.dataset)} rows, fewer than the batch size, {config.batch_size}: "
            "give more text or a smaller --batch-size."
        )


def _set_dropout(model: SentenceTransformer, probability: float | None) -> None:
    if probability is None:
        return
    for module in model.modules():
        if isinstance(module, _DropoutNd):
            module.p = probability


def _arguments(
    config: TrainingConfig,
    output: Path,
    model: SentenceTransformer,
    device: str | None,
    evaluator: BaseEvaluator | None,
    resumed: bool,
) -> SentenceTransformerTrainingArguments:
    schedules = [schedule.value for schedule in SchedulerType]
    if config.schedule not in schedules:
        raise InputError(f"schedule is {config.schedule!r}: allowed are {', '.join(schedules)}.")
    target = torch.device(device or model.device)
    precision = resolve_precision(config.precision, target.type)
    evaluation: Literal["steps", "no"] = "steps" if evaluator else "no"
    if target.type == "cuda" and target.index is not None:
        torch.cuda.set_device(target)
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(output / "checkpoints"),
        max_steps=config.steps,
        per_device_train_batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.schedule,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        optim="adamw_torch_fused",
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=target.type == "cpu",
        seed=config.seed,
        batch_sampler=BatchSamplers.BATCH_SAMPLER if config.views == "dropout" else BatchSamplers.NO_DUPLICATES,
        dataloader_drop_last=True,
        eval_strategy=evaluation,
        eval_steps=config.evaluate_every,
        eval_on_start=evaluator is not None and not resumed,
        save_strategy="steps",
        save_steps=config.evaluate_every,
        save_total_limit=2,
        load_best_model_at_end=evaluator is not None,
        metric_for_best_model=f"eval_{evaluator.primary_metric}" if evaluator else None,
        greater_is_better=evaluator.greater_is_better if evaluator else None,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
    )
    if target.type == "cuda" and arguments.n_gpu > 1:
        # DataParallel would split the batch, and with it the in-batch negatives; torchrun gathers them.
        arguments._n_gpu = 1
    return arguments

"""A run of the stock trainer, whatever the loss: checkpoints, resume, history, evaluation, the record of it all."""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
from torch.nn.modules.dropout import _DropoutNd
from transformers import EarlyStoppingCallback, PrinterCallback, ProgressCallback, SchedulerType, set_seed

from ..errors import InputError, MissingExtraError
from ..models.encoders import check_model
from ..models.fingerprint import model_fingerprint
from ..models.save import save_model
from ..utils.files import write_json
from .acceleration import accelerated
from .callbacks import HistoryCallback, LossCheckpoint, StopOnSignal
from .config import resolve_precision
from .history import History, as_scores, plot_history
from .run_record import last_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.evaluation import BaseEvaluator
    from transformers import TrainerState

    from ..losses import DistillationLoss, SimCSELoss
    from .run_record import TrainingRun

_SAME_SETTINGS = (
    *("max_steps", "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "max_grad_norm"),
    *("eval_steps", "seed"),
)
"""Settings that the stock trainer knows by the same names."""


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
        model: The trained model: of the best evaluated step, or of the last where nothing was evaluated.
        output: The run's folder: ``model/``, ``run.json``, ``history.csv`` and, with the extra ``plots``,
            ``history.png``.
        history: The rows of ``history.csv``.
        run: The content of ``run.json``.
    """

    model: SentenceTransformer
    output: Path
    history: list[dict[str, float]]
    run: dict[str, Any]


def fit(
    run: TrainingRun,
    make_loss: Callable[[int], SimCSELoss | DistillationLoss],
    batch_sampler: Any,
    rows: Dataset | None = None,
    facts: dict[str, Any] | None = None,
) -> TrainingResult:
    """Train a model, its weights in fp32; what :func:`distilface_st.train` and :func:`distilface_st.distill` share.

    ``make_loss`` gives the loss for a number of processes, ``rows`` are what the trainer reads, by default the text
    itself, and ``facts`` go into ``run.json``.
    """
    model, config, output = run.model, run.config, run.output
    check_model(model)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError("This model has no weights to train; an exported one only runs.")
    model.float()  # whatever its file holds: a step of 1e-5 is lost on a weight of 16 bits
    checkpoint = last_checkpoint(output / "checkpoints") if run.resume else None
    arguments = _arguments(run, batch_sampler, is_resumed=checkpoint is not None)
    loss = make_loss(arguments.world_size)
    record = run.begin_record() | (facts or {})
    record["loss"] = {"name": type(loss).__name__, "settings": loss.get_config_dict(), "citation": loss.citation}
    set_seed(config.seed)
    set_dropout(model, config.dropout)
    begun_at = int(checkpoint.name.split("-")[1]) if checkpoint else 0
    history = History(output / "history.csv", up_to=begun_at if checkpoint else None)
    stop = StopOnSignal()
    card = model.model_card_data
    card.widget = [{}]  # or the trainer would fill it with training sentences, which may be private
    trainer = SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=run.data.dataset if rows is None else rows,
        loss=loss,
        evaluator=run.evaluator,
        # Cut here and not by the model's max_seq_length, which would be saved and cut at inference, too.
        data_collator=SentenceTransformerDataCollator(preprocess_fn=model.preprocess, max_length=config.max_length),
        callbacks=[
            HistoryCallback(history, loss, config.batch_size * arguments.world_size),
            LossCheckpoint(loss, checkpoint),
            *([EarlyStoppingCallback(config.patience)] if config.patience and run.evaluator else []),
            *run.callbacks,
            stop,
        ],
    )
    card.widget, card.train_datasets = [], []
    for printing in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(printing)
    start = time.perf_counter()
    try:
        with stop, accelerated(model):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except InputError:
        if trainer.is_world_process_zero():  # so that the run may be begun anew, with what the error advises
            write_json(output / "run.json", record | {"status": "failed"})
        raise
    if stop.stopped and trainer.state.global_step < config.max_steps:
        raise TrainingInterrupted(trainer.state.global_step, output)
    _check_steps(trainer, begun_at)
    model.eval()
    if trainer.is_world_process_zero():
        record |= _outcome(trainer.state, history, run.evaluator)
        record |= {"seconds": round(time.perf_counter() - start, 1), "fingerprint_after": model_fingerprint(model)}
        save_model(model, output / "model", run=record)
        with contextlib.suppress(MissingExtraError):
            best_step = record["kept_step"] if record["scores_after"] else None
            plot_history(history.rows, output / "history.png", best_step=best_step)
        write_json(output / "run.json", record)
        shutil.rmtree(output / "checkpoints", ignore_errors=True)  # only now, with all of the result on disk
    return TrainingResult(model, output, history.rows, record)


def _check_steps(trainer: SentenceTransformerTrainer, begun_at: int) -> None:
    """Refuse to call a run finished that did fewer steps than it was asked for, and that no callback has stopped."""
    done, asked = trainer.state.global_step, trainer.args.max_steps
    # The trainer says stop, too, where an epoch has no batch at all.
    if done < asked and (done == begun_at or not trainer.control.should_training_stop):
        raise InputError(f"Training ended after {done} of {asked} steps: the text gave no more batches.")


def _outcome(state: TrainerState, history: History, evaluator: BaseEvaluator | None) -> dict[str, Any]:
    kept = state.best_global_step or state.global_step
    improved = True
    if evaluator is not None and state.best_metric is not None:
        # Compared with the model before training, which the trainer does not count among the candidates.
        ((name, best),) = as_scores({str(evaluator.primary_metric): state.best_metric}).items()
        sign = 1 if evaluator.greater_is_better else -1
        improved = sign * best > sign * history.scores(0).get(name, -sign * math.inf)
    return {
        "status": "finished",
        "steps": state.global_step,
        "kept_step": kept,
        "kept": f"step {kept}, the " + (f"best {evaluator.primary_metric}" if evaluator else "last"),
        "improved": improved,
        "scores_before": history.scores(0),
        "scores_after": history.scores(kept),
    }


def set_dropout(model: torch.nn.Module, probability: float | None) -> None:
    """Set the probability of all dropout of a model; None leaves it as it is."""
    for module in model.modules():
        if isinstance(module, _DropoutNd) and probability is not None:
            module.p = probability


def _arguments(run: TrainingRun, batch_sampler: Any, is_resumed: bool) -> SentenceTransformerTrainingArguments:
    config, evaluator = run.config, run.evaluator
    schedules = [schedule.value for schedule in SchedulerType]
    if config.lr_scheduler_type not in schedules:
        raise InputError(f"lr_scheduler_type is {config.lr_scheduler_type!r}: allowed are {', '.join(schedules)}.")
    target = torch.device(run.device or run.model.device)
    precision = resolve_precision(config.precision, target.type)
    if target.type == "cuda" and target.index is not None:
        torch.cuda.set_device(target)
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(run.output / "checkpoints"),
        **{name: getattr(config, name) for name in _SAME_SETTINGS},
        per_device_train_batch_size=config.batch_size,
        optim="adamw_torch_fused",
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=target.type == "cpu",
        batch_sampler=batch_sampler,
        dataloader_drop_last=True,
        eval_strategy="steps" if evaluator else "no",
        eval_on_start=evaluator is not None and not is_resumed,
        save_strategy="steps",
        save_steps=config.eval_steps,
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

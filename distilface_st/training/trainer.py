"""A run of the stock trainer, whatever the loss: checkpoints, resume, history, evaluation, the record of it all."""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.base.sampler import BatchSamplers
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
from torch.nn.modules.dropout import _DropoutNd
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    ProgressCallback,
    SchedulerType,
    TrainerCallback,
    set_seed,
)

from ..errors import InputError, MissingExtraError
from ..models.fingerprint import model_fingerprint
from ..models.save import save_model
from ..utils.files import write_json
from .acceleration import accelerated
from .callbacks import HistoryCallback, StopOnSignal
from .config import resolve_precision
from .history import History, as_scores, plot_history
from .run_record import begin_run, last_checkpoint

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.evaluation import BaseEvaluator
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from ..datasets.text_data import TextData
    from ..losses import DistillationLoss, SimCSELoss
    from .config import RunSettings

_LOSS_STATE = "loss.safetensors"


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


def fit(
    model: SentenceTransformer,
    data: TextData,
    config: RunSettings,
    output: str | os.PathLike[str],
    make_loss: Callable[[int], SimCSELoss | DistillationLoss],
    *,
    rows: Dataset | None = None,
    batch_sampler: Any = BatchSamplers.BATCH_SAMPLER,
    record: dict[str, Any] | None = None,
    evaluator: BaseEvaluator | None = None,
    resume: bool = False,
    device: str | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> TrainingResult:
    """Train a model; what :func:`distilface_st.train` and :func:`distilface_st.distill` share.

    Args:
        model: The model, trained in place.
        data: The text, for the record.
        config: The settings.
        output: The run's folder.
        make_loss: Gives the loss for a number of processes.
        rows: What the trainer reads; by default the text itself.
        batch_sampler: How it is cut into batches, as sentence-transformers' training arguments take it.
        record: More to write into ``run.json``.
        evaluator: As for :func:`distilface_st.train`, like all that follow.
        resume: See there.
        device: See there.
        callbacks: See there.

    Returns:
        The trained model, and what happened.

    Raises:
        InputError: A folder that holds another run, settings that cannot be, a run that diverged.
        TrainingInterrupted: SIGINT or SIGTERM came; a checkpoint was saved.
    """
    output = Path(output)
    checkpoint = last_checkpoint(output / "checkpoints") if resume else None
    arguments = _arguments(config, output, model, device, evaluator, checkpoint is not None, batch_sampler)
    loss = make_loss(arguments.world_size)
    run = begin_run(model, data, config.to_dict(), config.seed, output, resume)
    run |= record or {}
    run["loss"] = {"name": type(loss).__name__, "settings": loss.get_config_dict(), "citation": loss.citation}
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
        train_dataset=data.dataset if rows is None else rows,
        loss=loss,
        evaluator=evaluator,
        data_collator=SentenceTransformerDataCollator(preprocess_fn=model.preprocess, max_length=config.max_length),
        callbacks=[
            HistoryCallback(history, loss, config.batch_size * arguments.world_size),
            _LossCheckpoint(loss, checkpoint),
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
    if stop.stopped and trainer.state.global_step < config.max_steps:
        raise TrainingInterrupted(trainer.state.global_step, output)
    model.eval()
    if trainer.is_world_process_zero():
        run |= _outcome(trainer, history, evaluator)
        run |= {"seconds": round(time.perf_counter() - start, 1), "fingerprint_after": model_fingerprint(model)}
        _keep(model, history, run, output)
    return TrainingResult(model, output, history.rows, run)


class _LossCheckpoint(TrainerCallback):
    """Keeps what a loss has learned, its projections say, beside the model's checkpoint, which leaves it out."""

    def __init__(self, loss: SimCSELoss | DistillationLoss, checkpoint: Path | None) -> None:
        self._loss = loss
        self._checkpoint = checkpoint

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take up what was kept."""
        own = self._own()
        if not own or self._checkpoint is None:
            return
        path = self._checkpoint / _LOSS_STATE
        if not path.is_file():
            raise InputError(f"{path} is missing: the checkpoint is not whole; begin the run again.")
        kept = load_file(str(path))
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(kept[name])

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Keep it."""
        own = self._own()
        if own and state.is_world_process_zero:
            folder = Path(str(args.output_dir), f"checkpoint-{state.global_step}")
            save_file({name: tensor.detach().contiguous() for name, tensor in own.items()}, str(folder / _LOSS_STATE))

    def _own(self) -> dict[str, torch.Tensor]:
        return {name: tensor for name, tensor in self._loss.state_dict().items() if not name.startswith("model.")}


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


def _set_dropout(model: SentenceTransformer, probability: float | None) -> None:
    if probability is None:
        return
    for module in model.modules():
        if isinstance(module, _DropoutNd):
            module.p = probability


def _arguments(
    config: RunSettings,
    output: Path,
    model: SentenceTransformer,
    device: str | None,
    evaluator: BaseEvaluator | None,
    resumed: bool,
    batch_sampler: Any,
) -> SentenceTransformerTrainingArguments:
    schedules = [schedule.value for schedule in SchedulerType]
    if config.lr_scheduler_type not in schedules:
        raise InputError(f"lr_scheduler_type is {config.lr_scheduler_type!r}: allowed are {', '.join(schedules)}.")
    target = torch.device(device or model.device)
    precision = resolve_precision(config.precision, target.type)
    evaluation: Literal["steps", "no"] = "steps" if evaluator else "no"
    if target.type == "cuda" and target.index is not None:
        torch.cuda.set_device(target)
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(output / "checkpoints"),
        max_steps=config.max_steps,
        per_device_train_batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.lr_scheduler_type,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        optim="adamw_torch_fused",
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=target.type == "cpu",
        seed=config.seed,
        batch_sampler=batch_sampler,
        dataloader_drop_last=True,
        eval_strategy=evaluation,
        eval_steps=config.eval_steps,
        eval_on_start=evaluator is not None and not resumed,
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

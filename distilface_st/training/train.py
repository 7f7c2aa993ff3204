"""Contrastive training with the stock trainer: a model, text and settings in; a trained model and its history out."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from sentence_transformers.base.sampler import BatchSamplers, NoDuplicatesBatchSampler
from torch.nn.modules.dropout import _DropoutNd
from typing_extensions import override

from ..errors import InputError
from ..losses import SimCSELoss
from ..models.build import build_model
from .config import TrainingConfig
from .run_record import TrainingRun, check_run_folder
from .trainer import TrainingInterrupted, TrainingResult, fit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.evaluation import BaseEvaluator
    from transformers import TrainerCallback

    from ..datasets.text_data import TextData

__all__ = ["TrainingConfig", "TrainingInterrupted", "TrainingResult", "hold_out", "model_from_config", "train"]

_BARREN_PASSES = 100


def model_from_config(config: TrainingConfig, device: str | None = None) -> SentenceTransformer:
    """Build the model that a config describes."""
    names = ("encoder", "layers", "layer_reduction", "pooling_mode", "normalize", "trim")
    return build_model(**{name: getattr(config, name) for name in names}, device=device)


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
        model: The model, trained in place, and put into fp32 for that; of ``config`` its own build settings are only
            noted.
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
    check_run_folder(output, resume)
    if config.views == "dropout" and not _has_dropout(model, config):
        raise InputError("views are dropout, but this model has none: both views of a sentence would be the same.")
    columns = data.dataset.column_names
    if (len(columns) == 1) != (config.views == "dropout"):
        raise InputError(f"views are {config.views}, but the data has the columns {', '.join(columns)}.")
    check_batch_size(data, config.batch_size)

    def make_loss(processes: int) -> SimCSELoss:
        return SimCSELoss(
            model,
            temperature=config.temperature,
            symmetric=config.symmetric,
            gather_across_devices=processes > 1,
            mini_batch_size=config.mini_batch_size,
        )

    # With given positives, an equal text in the batch would be a false negative.
    sampler = BatchSamplers.BATCH_SAMPLER if config.views == "dropout" else DistinctBatches
    run = TrainingRun(model, data, config, Path(output), evaluator, resume, device, callbacks)
    return fit(run, make_loss, sampler)


def _has_dropout(model: SentenceTransformer, config: TrainingConfig) -> bool:
    dropouts = [module for module in model.modules() if isinstance(module, _DropoutNd)]
    return bool(dropouts if config.dropout else any(module.p for module in dropouts))


def check_batch_size(data: TextData, batch_size: int) -> None:
    """Refuse a batch size that the text cannot fill, and name the largest that it can."""
    rows, processes = len(data.dataset), int(os.environ.get("WORLD_SIZE", "1"))
    if rows < batch_size * processes:
        devices = f" on each of {processes} devices" if processes > 1 else ""
        raise InputError(
            f"{data.source} gives {rows} rows, fewer than the batch size, {batch_size}{devices}: "
            "give more text or a smaller --batch-size."
        )
    if len(data.dataset.column_names) > 1 and (largest := _largest_batch(data.dataset, batch_size)) < batch_size:
        rather = "give other text" if largest < 2 else f"give more text, or --batch-size {largest} or less"
        raise InputError(
            f"{data.source} cannot fill a batch of {batch_size}: a batch holds no text twice, and no more than "
            f"{largest} of its {rows} pairs go together; {rather}."
        )


def _largest_batch(rows: Dataset, enough: int) -> int:
    """Rows in the least of the batches that a few orders of the rows begin with, up to ``enough``."""
    sampler = NoDuplicatesBatchSampler(rows, enough, drop_last=False, generator=torch.Generator())
    sizes = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        sizes.append(len(next(iter(sampler))))
    return min(sizes)


class DistinctBatches(NoDuplicatesBatchSampler):
    """Batches in which no text occurs twice, as many in an epoch as its length says.

    Where texts repeat, a pass over the rows fills fewer batches: then the epoch goes on with another pass. The stock
    sampler gives up after three, and the run would end before its last step.
    """

    @override
    def __iter__(self) -> Iterator[list[int]]:
        first, left, barren = self.epoch, len(self), 0
        while left and barren < _BARREN_PASSES:
            found = 0
            for batch in islice(super().__iter__(), left):
                yield batch
                found += 1
            left, barren = left - found, 0 if found else barren + 1
            self.epoch += len(self.dataset)  # another order, which no epoch has
        self.epoch = first
        if left:
            raise InputError(f"No batch of {self.batch_size} could be made without a text twice: give a smaller one.")


def hold_out(data: TextData, rows: int = 1000) -> tuple[TextData, Dataset]:
    """The data without its last rows, and those: at most ``rows``, and a tenth of them."""
    left = len(data.dataset) - max(1, min(rows, len(data.dataset) // 10))
    return replace(data, dataset=data.dataset.select(range(left))), data.dataset.select(range(left, len(data.dataset)))

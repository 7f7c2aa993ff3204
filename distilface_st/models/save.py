"""Save a model, in stock modules where it can be said with them, and upload it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from sentence_transformers.sentence_transformer.modules import Pooling, WeightedLayerPooling
from torch import nn

from ..modules import MultiLayerPooling, OnnxEncoder
from ..utils.files import atomic_folder
from .build import compose
from .card import write_card
from .module_list import OUR_MODULES

if TYPE_CHECKING:
    import os

    from sentence_transformers import SentenceTransformer


def save_model(
    model: SentenceTransformer,
    path: str | os.PathLike[str],
    portable: bool = True,
    run: dict[str, Any] | None = None,
) -> None:
    """Save a model as a folder, atomically, with a model card.

    Args:
        model: The model to save.
        path: The folder; an existing one is replaced as a whole.
        portable: Name stock modules only, where the layer reduction allows it (a mean, or a single layer), so that
            ``SentenceTransformer(path)`` opens the folder without this package. Otherwise, and for max and concat,
            the folder names this package's module and opens with :func:`load_model`.
        run: What the model card says of training: the content of a training run's ``run.json``.
    """
    to_save = portable_model(model) if portable else model
    with atomic_folder(path) as folder:
        to_save.save(str(folder), create_model_card=False)
        if not isinstance(model[0], OnnxEncoder):  # which has brought its own
            write_card(
                folder / "README.md",
                model,
                run,
                needs_package=OUR_MODULES in (folder / "modules.json").read_text("utf-8"),
            )


def push_to_hub(
    model: SentenceTransformer,
    repo_id: str,
    portable: bool = True,
    run: dict[str, Any] | None = None,
    **kwargs: Any,
) -> str:
    """Upload a model as :func:`save_model` would save it.

    Args:
        model: The model.
        repo_id: ``owner/name`` on the Hub.
        portable: As in :func:`save_model`.
        run: As in :func:`save_model`.
        **kwargs: Whatever ``SentenceTransformer.push_to_hub`` takes: ``token``, ``private``, ``revision``, ...

    Returns:
        The address of the commit.
    """
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / "model"
        save_model(model, local, portable=portable, run=run)
        return str(model.push_to_hub(repo_id, local_model_path=str(local), **kwargs))


def portable_model(model: SentenceTransformer) -> SentenceTransformer:
    """The same model in stock modules only, sharing its weights: a mean over layers as ``WeightedLayerPooling``.

    Args:
        model: A model of this package. Any other is returned as it is.

    Returns:
        A model with equal embeddings that saves into a folder which plain sentence-transformers 6.2+ opens; the same
        object where nothing had to change, also where nothing can (max and concat over layers have no stock twin).
    """
    position = next((i for i, module in enumerate(model) if isinstance(module, MultiLayerPooling)), None)
    if position is None:
        return model
    pooling = cast("MultiLayerPooling", model[position])
    if pooling.layer_reduction != "mean" and len(pooling.layer_indices) > 1:
        return model
    modules = [*list(model)[:position], *_stock_twin(pooling), *list(model)[position + 1 :]]
    return compose(model, modules, str(model.device))


def _stock_twin(pooling: MultiLayerPooling) -> list[nn.Module]:
    start = min(pooling.layer_indices)
    selected = [float(index in pooling.layer_indices) for index in range(start, pooling.num_hidden_layers + 1)]
    over_layers = WeightedLayerPooling(
        pooling.embedding_dimension,
        num_hidden_layers=pooling.num_hidden_layers,
        layer_start=start,
        layer_weights=nn.Parameter(torch.tensor(selected), requires_grad=False),
    )
    over_tokens = Pooling(
        pooling.embedding_dimension, pooling_mode=pooling.pooling_mode, include_prompt=pooling.include_prompt
    )
    return [over_layers, over_tokens]

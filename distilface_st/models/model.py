"""Build, load and save: a DistilFACE model is a plain ``SentenceTransformer``, composed of an encoder and a pooling."""

from __future__ import annotations

import copy
import json
import os
import tempfile
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer, WeightedLayerPooling
from sentence_transformers.util import load_file_path
from torch import nn

from ..errors import InputError
from ..modules import MultiLayerPooling, OnnxEncoder
from ..pretrained import shipped_model
from ..utils.files import atomic_folder
from .card import write_card
from .module_list import OUR_MODULES, STOCK_MODULES, downloaded, local_or_hub, read_module_list
from .packed import ENCODER, is_packed, unpacked
from .trimming import trim_encoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..modules.multi_layer_pooling import LayerReduction, LayerSelection

DEFAULT_ENCODER = "distilbert-base-uncased"
"""The paper's encoder, on the Hub."""

_EXPORTED = "distilface_st.modules.onnx_encoder.OnnxEncoder"


def build_model(
    encoder: str | os.PathLike[str] | SentenceTransformer = DEFAULT_ENCODER,
    layers: LayerSelection | Sequence[int] = "last_four",
    layer_reduction: LayerReduction = "mean",
    pooling_mode: str | tuple[str, ...] = "mean",
    normalize: bool = False,
    trim: bool = False,
    device: str | None = None,
) -> SentenceTransformer:
    """Compose an encoder with pooling over several hidden layers.

    Args:
        encoder: A Hub name or a local folder of a BERT-like encoder, or of a sentence-transformers model; or a
            ``SentenceTransformer``, which stays as it is. From the latter two the length limit, prompts and the
            prompt's part in pooling are kept; modules after the pooling are not.
        layers: Hidden states to pool, see :func:`distilface_st.modules.multi_layer_pooling.resolve_layers`.
        layer_reduction: ``mean``, ``max`` or ``concat`` over the layers.
        pooling_mode: Token pooling: ``mean``, ``max``, ``cls``, ... or a tuple of modes.
        normalize: Append a module that scales embeddings to length 1.
        trim: Drop the encoder's layers above the highest one used. No embedding changes.
        device: Where to put the model; the best there is by default.

    Returns:
        A ``SentenceTransformer`` of encoder, ``MultiLayerPooling`` and, if asked for, ``Normalize``.

    Raises:
        InputError: A selection that does not fit the encoder; an encoder that cannot be read or cannot be trimmed.

    Example:
        ::

            model = build_model("distilbert-base-uncased", layers="last_four")
            embeddings = model.encode(["It is sunny.", "He drove to work."])  # (2, 768)
    """
    source = _open(encoder)
    transformer = cast("Transformer", source[0])
    include_prompt = all(module.include_prompt for module in source if isinstance(module, Pooling))
    try:
        pooling = MultiLayerPooling(
            transformer.get_embedding_dimension(),
            transformer.config.num_hidden_layers,
            layers=layers,
            layer_reduction=layer_reduction,
            pooling_mode=pooling_mode,
            include_prompt=include_prompt,
        )
    except ValueError as error:
        raise InputError(str(error)) from error
    if trim:
        pooling = trim_encoder(transformer, pooling)
    return compose(source, [transformer, pooling, *([Normalize()] if normalize else [])], device)


def load_model(
    path: str | os.PathLike[str] | None = None,
    device: str | None = None,
    *,
    runtime: str | None = None,
    threads: int | None = None,
    providers: Sequence[str] | None = None,
) -> SentenceTransformer:
    """Open a saved model without running code from it: stock modules and this package's only, safetensors only.

    Args:
        path: A folder, or a Hub name, of a sentence-transformers model, portable or with this package's modules, or
            of an exported or packed one; by default :func:`distilface_st.shipped_model`.
        device: Where to put the model; the best there is by default. An exported one stays on the CPU.
        runtime: For an exported model: ``onnxruntime``, ``openvino``, or ``auto`` to time both; by default see
            :func:`distilface_st.inference.engines.default_runtime`. A packed model opens in torch, to train it, unless
            one of these three is given.
        threads: For an exported model: processor threads; all cores by default.
        providers: For an exported model: onnxruntime's execution providers, or OpenVINO's device.

    Returns:
        The model with its prompts and settings. Layer weights of a portable model are frozen, so that training it
        leaves its layer selection alone.

    Raises:
        InputError: Nothing there, no module list, a module of another package, or weights that are not safetensors;
            a runtime for a model that is not exported.
        MissingExtraError: The runtime is not installed.
    """
    name = local_or_hub(shipped_model() if path is None else path)
    module_list = read_module_list(name)
    if module_list and module_list[0]["path"] == ENCODER and is_packed(name := downloaded(name)):
        if not (runtime or threads or providers):
            with unpacked(name) as folder:
                return load_model(folder, device)
        module_list = [{"type": _EXPORTED, "path": ""}]
    if module_list and module_list[0]["type"] == _EXPORTED:
        return _open_export(name, module_list, runtime=runtime, threads=threads, providers=providers)
    if runtime or threads or providers:
        raise InputError(f"{name} is not an exported model, so it has no runtime to choose: `distilface export` it.")
    if all(entry["type"].startswith(STOCK_MODULES) for entry in module_list):
        model = SentenceTransformer(name, device=device, model_kwargs={"use_safetensors": True})
    else:
        model = _load_with_our_modules(name, module_list, device)
    for module in model:
        if isinstance(module, WeightedLayerPooling):
            module.requires_grad_(False)
    return model


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
            write_card(folder / "README.md", model, run, needs_package=_names_our_modules(folder))


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


def _open(encoder: str | os.PathLike[str] | SentenceTransformer) -> SentenceTransformer:
    if isinstance(encoder, SentenceTransformer):
        return compose(encoder, copy.deepcopy(list(encoder)), str(encoder.device))
    name = local_or_hub(encoder)
    if load_file_path(name, "modules.json") is not None:
        model = load_model(name, device="cpu")
    else:
        model = SentenceTransformer(modules=[_open_transformer(name)], device="cpu")
    if not isinstance(model[0], Transformer):
        raise InputError(f"{encoder} does not begin with a transformer encoder, but with {type(model[0]).__name__}.")
    if not os.path.isdir(name):
        model.model_card_data.base_model = name
    return model


def _open_transformer(name: str) -> Transformer:
    try:
        return cast("Transformer", Transformer(name, model_kwargs={"use_safetensors": True}))
    except (OSError, ValueError) as error:
        raise InputError(f"Cannot open {name} as a transformer encoder: {error}") from error


def _open_export(name: str, entries: list[dict[str, Any]], **engine: Any) -> SentenceTransformer:
    model = _load_with_our_modules(name, entries, "cpu", **engine)
    cast("OnnxEncoder", model[0]).engine  # noqa: B018 (opened now, so that damage shows now)
    return model


def _load_with_our_modules(
    name: str, entries: list[dict[str, Any]], device: str | None, **kwargs: Any
) -> SentenceTransformer:
    modules = []
    for entry in entries:
        home, _, class_name = entry["type"].rpartition(".")
        try:
            module_class = getattr(import_module(home), class_name)
        except (ImportError, AttributeError) as error:
            raise InputError(f"{name} names the module {entry['type']}, which this version does not have.") from error
        modules.append(
            module_class.load(
                name, subfolder=entry["path"], model_kwargs={"use_safetensors": True}, backend="torch", **kwargs
            )
        )
    config_file = load_file_path(name, "config_sentence_transformers.json")
    config = json.loads(Path(config_file).read_text(encoding="utf-8")) if config_file else {}
    return SentenceTransformer(
        modules=modules,
        device=device,
        prompts=config.get("prompts"),
        default_prompt_name=config.get("default_prompt_name"),
        similarity_fn_name=config.get("similarity_fn_name"),
        truncate_dim=config.get("truncate_dim"),
    )


def compose(source: SentenceTransformer, modules: list[nn.Module], device: str | None) -> SentenceTransformer:
    """A model of other modules with the prompts and settings of ``source``."""
    model = SentenceTransformer(
        modules=modules,
        device=device,
        prompts=cast("dict[str, str]", dict(source.prompts)),
        default_prompt_name=source.default_prompt_name,
        similarity_fn_name=source.similarity_fn_name,
        truncate_dim=source.truncate_dim,
    )
    model.model_card_data.base_model = source.model_card_data.base_model
    return model


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


def _names_our_modules(folder: Path) -> bool:
    return OUR_MODULES in (folder / "modules.json").read_text(encoding="utf-8")

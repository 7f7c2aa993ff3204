"""Open a saved model without running code from it."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import WeightedLayerPooling
from sentence_transformers.util import load_file_path

from ..errors import InputError
from ..inference.manifest import MANIFEST, WEIGHTS
from ..modules.hidden_states import give_hidden_states, require_hidden_states
from ..pretrained import find_model
from .encoders import check_model
from .module_list import STOCK_MODULES, downloaded, read_module_list
from .packed import is_packed, unpacked

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from sentence_transformers.sentence_transformer.modules import Transformer

    from ..modules import OnnxEncoder

_EXPORTED = "distilface_st.modules.onnx_encoder.OnnxEncoder"


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
            of an exported or packed one; a shipped model's name or ``bundled``; by default ``distilface-mini``.
        device: Where to put the model; the best there is by default. An exported one stays on the CPU, but for
            OpenVINO, whose devices (``GPU``, ``NPU``, ...) go by their names there.
        runtime: For an exported model: ``onnxruntime``, ``openvino``, or ``auto`` to time both; by default see
            :func:`distilface_st.inference.engines.default_runtime`. A packed model opens in ``torch``, to train it,
            unless one of these three is given.
        threads: For an exported model: processor threads; all cores by default.
        providers: For an exported model: onnxruntime's execution providers, best first.

    Returns:
        The model with its prompts and settings. Layer weights of a portable model are frozen, so that training it
        leaves its layer selection alone, and it keeps its hidden states in copies and in other processes.

    Raises:
        InputError: Nothing there, no module list, a module of another package, or weights that are not safetensors;
            a model that reads more than text or cannot pad; a runtime for a model that is not exported.
        MissingExtraError: The runtime is not installed.
    """
    name = find_model(path)
    in_torch = runtime == "torch"
    engine = {"runtime": None if in_torch else runtime, "threads": threads, "providers": providers}
    if runtime == "openvino" and device not in (None, "cpu"):
        engine["engine_device"] = device
    module_list = read_module_list(name)
    if module_list and (module_list[0]["type"] == _EXPORTED or load_file_path(name, MANIFEST)):
        name = downloaded(name)
        if is_packed(name) and not any(engine.values()):
            with unpacked(name) as folder:
                return load_model(folder, device)
        if not in_torch:
            return _load_exported(name, module_list, engine)
        if module_list[0]["type"] == _EXPORTED or not Path(name, WEIGHTS).is_file():
            raise InputError(
                f"{name} holds graphs for other runtimes alone: open the model that it was exported from, or export it "
                "with its torch weights."
            )
    if any(engine.values()):
        raise InputError(f"{name} is not an exported model, so it has no runtime to choose: `distilface export` it.")
    if all(entry["type"].startswith(STOCK_MODULES) for entry in module_list):
        model = SentenceTransformer(name, device=device, model_kwargs={"use_safetensors": True})
    else:
        model = _load_with_our_modules(name, module_list, device)
    for module in model:
        if isinstance(module, WeightedLayerPooling):
            module.requires_grad_(False)
            encoder = cast("Transformer", model[0]).model
            if not encoder.config.output_hidden_states:  # the stock module would leave the last layer as it is
                raise InputError(f"{name} pools hidden layers that its encoder's config.json has not turned on.")
            give_hidden_states(encoder)
            require_hidden_states(module)
    check_model(model)
    return model


def _load_exported(name: str, entries: list[dict[str, Any]], engine: dict[str, Any]) -> SentenceTransformer:
    """A folder with graphs, whose module list may be that of the model in torch."""
    ours = entries if entries[0]["type"] == _EXPORTED else [{"type": _EXPORTED, "path": ""}]
    model = _load_with_our_modules(name, ours, "cpu", **engine)
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
        options = {"model_kwargs": {"use_safetensors": True}, "backend": "torch", **kwargs}
        modules.append(module_class.load(name, subfolder=entry["path"], **options))
    config_file = load_file_path(name, "config_sentence_transformers.json")
    config = json.loads(Path(config_file).read_text(encoding="utf-8")) if config_file else {}
    kept = ("prompts", "default_prompt_name", "similarity_fn_name", "truncate_dim")
    settings: dict[str, Any] = {key: config.get(key) for key in kept}
    return SentenceTransformer(modules=modules, device=device, **settings)

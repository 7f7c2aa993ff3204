"""Save a model, in stock modules where it can be said with them, with a card that holds no training sentence."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from sentence_transformers.sentence_transformer.modules import Pooling, WeightedLayerPooling
from torch import nn

from ..inference.manifest import MANIFEST
from ..modules import MultiLayerPooling, OnnxEncoder
from ..modules.hidden_states import require_hidden_states
from ..utils.files import FolderKind, atomic_folder
from ..utils.provenance import versions
from .build import compose
from .encoders import longest_input
from .load import load_model
from .module_list import OUR_MODULES

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

MODEL_FOLDER = FolderKind(
    "a saved model",
    "modules.json",
    r"README\.md|(vocab|merges)\.txt|encoder|\d+_\w+|\w[\w.-]*\.(json|safetensors|bin|model|onnx|xml|jinja)",
)
"""What :func:`save_model` writes, and replaces."""
EXPORT_FOLDER = replace(
    MODEL_FOLDER, name="an exported model", mark=MANIFEST, members=f"{MODEL_FOLDER.members}|onnx|openvino"
)
"""What an export writes, and replaces."""

_PAPER = """\
@inproceedings{lim2022distilling,
    title = {Distilling Contrastive Learning Models},
    author = {Lim, Ng, Lim},
    year = {2022}
}"""


def save_model(
    model: SentenceTransformer | str | os.PathLike[str],
    path: str | os.PathLike[str],
    portable: bool = True,
    run: dict[str, Any] | None = None,
) -> None:
    """Save a model as a folder, atomically, with a model card.

    Args:
        model: The model to save, or its name or folder: a packed one, such as ``distilface-mini``, becomes a plain one
            that stock sentence-transformers opens.
        path: The folder. A model in it is replaced as a whole; a folder with anything else in it is refused.
        portable: Name stock modules only, where the layer reduction allows it (a mean, or a single layer), so that
            ``SentenceTransformer(path)`` opens the folder without this package. Otherwise, and for max and concat,
            the folder names this package's module and opens with :func:`load_model`.
        run: What the model card says of training: the content of a training run's ``run.json``.

    Raises:
        InputError: A folder with something else than a model in it.
    """
    if isinstance(model, (str, os.PathLike)):
        model = load_model(model, device="cpu")
    to_save = portable_model(model) if portable else model
    exported = model[0] if isinstance(model[0], OnnxEncoder) else None
    with atomic_folder(path, replace(EXPORT_FOLDER, mark=MODEL_FOLDER.mark) if exported else MODEL_FOLDER) as folder:
        to_save.save(str(folder), create_model_card=False)
        if exported and not exported.manifest.is_packed:
            _copy_export(exported.folder, folder, len(model) == 1)
        if not exported:
            needs_package = OUR_MODULES in (folder / "modules.json").read_text("utf-8")
            write_card(folder / "README.md", model, run, needs_package)


def _copy_export(source: Path, folder: Path, whole: bool) -> None:
    """Add what other software reads of an export; of one with nothing after it, ``whole``, its own list of modules."""
    for path in source.rglob("*"):
        name = path.relative_to(source)
        ours = re.fullmatch(EXPORT_FOLDER.members, name.parts[0])
        if ours and path.is_file() and (not (folder / name).exists() or (whole and str(name) == "modules.json")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / name)


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

    Its embeddings are equal, and plain sentence-transformers 6.2+ opens what it is saved as. A model is returned as it
    is where nothing has to change, or nothing can (max and concat over layers have no stock twin).
    """
    position = next((i for i, module in enumerate(model) if isinstance(module, MultiLayerPooling)), None)
    if position is None:
        return model
    pooling = cast("MultiLayerPooling", model[position])
    if pooling.layer_reduction != "mean" and len(pooling.layer_indices) > 1:
        return model
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
    require_hidden_states(over_layers)
    modules = [*list(model)[:position], over_layers, over_tokens, *list(model)[position + 1 :]]
    return compose(model, modules, str(model.device))


def write_card(path: Path, model: SentenceTransformer, run: dict[str, Any] | None, needs_package: bool) -> None:
    """Write a model card for the Hub, Markdown after YAML front matter.

    ``run`` is the content of a training run's ``run.json``, None where the model was not trained here; with
    ``needs_package`` the saved folder opens only with this package.
    """
    text = getattr(model, "_model_card_text", None)
    if not text or run is not None:
        parts = [_head(model, needs_package), "" if needs_package else _in_processes(model), _facts(model)]
        if run:
            parts += [_training(run), _scores(run)]
        parts.append(_citation(run))
        text = "\n\n".join(part for part in parts if part) + "\n"
    path.write_text(text, encoding="utf-8")


def _head(model: SentenceTransformer, needs_package: bool) -> str:
    base = model.model_card_data.base_model
    base_model = f"base_model: {base}\n" if base else ""
    home, call = ("distilface_st", "load_model") if needs_package else ("sentence_transformers", "SentenceTransformer")
    return f"""\
---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
tags:
- sentence-transformers
- sentence-similarity
- feature-extraction
- distilface
{base_model}---

# A DistilFACE sentence encoder

Maps a sentence to {model.get_embedding_dimension()} numbers; similar sentences get similar ones.

```python
from {home} import {call}

model = {call}("PATH OR NAME")
embeddings = model.encode(["It is sunny.", "He drove to work."])
print(model.similarity(embeddings, embeddings))
```"""


def _in_processes(model: SentenceTransformer) -> str:
    if not any(isinstance(module, (MultiLayerPooling, WeightedLayerPooling)) for module in model):
        return ""
    return (
        "To encode in several processes, open it with `load_model` of distilface_st: a copy that "
        "sentence-transformers sends to another process finds no hidden layers there, and pools the last one alone."
    )


def _facts(model: SentenceTransformer) -> str:
    network = getattr(model[0], "model", model[0])
    depth = getattr(getattr(network, "config", None), "num_hidden_layers", None)
    longest = longest_input(model)
    facts = {
        "Base model": model.model_card_data.base_model or "a local encoder",
        "Encoder": type(network).__name__ + (f", {depth} layers" if depth else ""),
        "Pooling": _pooling(model),
        "Dimensions": model.get_embedding_dimension(),
        "Longest input": f"{longest} tokens" if longest else "no limit",
        "Parameters": f"{sum(p.numel() for p in model.parameters()):,}",
        "Similarity": model.similarity_fn_name,
    }
    return "## Model\n\n" + _table(("", ""), facts.items())


def _pooling(model: SentenceTransformer) -> str:
    for module in model:
        if isinstance(module, MultiLayerPooling):
            layers = ", ".join(map(str, module.layer_indices))
            return f"{module.layer_reduction} over hidden layers {layers}; then over tokens: {module.pooling_mode}"
    return "; ".join(repr(module) for module in list(model)[1:])


def _training(run: dict[str, Any]) -> str:
    data, loss = run["data"], run["loss"]
    views, teachers = run["config"].get("views"), run.get("teachers", [])
    settings = {key: value for key, value in run["config"].items() if value is not None and key != "encoder"}
    return "\n\n".join(
        [
            "## Training",
            f"- Data: {data['source']}, {data['rows']:,} rows{f', views: {views}' if views else ''} "
            f"(fingerprint {data['fingerprint']})",
            *(f"- Teacher: {teacher['name']} (fingerprint {teacher['fingerprint']})" for teacher in teachers),
            f"- Loss: {loss['name']}, " + ", ".join(f"{key} {value}" for key, value in loss["settings"].items()),
            f"- Steps: {run['steps']:,}; kept: {run['kept']}",
            _table(("Hyperparameter", "Value"), settings.items()),
        ]
    )


def _scores(run: dict[str, Any]) -> str:
    before, after = run.get("scores_before") or {}, run.get("scores_after") or {}
    if not after:
        return ""

    def score(scores: dict[str, float], name: str) -> str:
        return "" if scores.get(name) is None else f"{scores[name]:.2f}"

    rows = [(name, score(before, name), score(after, name)) for name in after]
    return "## Scores\n\n" + _table(("Metric", "Before", "After"), rows)


def _citation(run: dict[str, Any] | None) -> str:
    sources = [_PAPER, *([run["loss"]["citation"].strip()] if run else [])]
    made_with = ", ".join(f"{name} {version}" for name, version in versions().items())
    return "## Citation\n\n```bibtex\n" + "\n\n".join(sources) + f"\n```\n\nMade with {made_with}."


def _table(head: tuple[str, ...], rows: Any) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        cells = [cell if isinstance(cell, str) else json.dumps(cell) for cell in row]
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines)

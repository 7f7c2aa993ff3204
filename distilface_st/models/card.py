"""The model card: what a model is, what it was trained on and how it scores. It never holds a training sentence."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from ..modules import MultiLayerPooling
from ..utils.provenance import versions

if TYPE_CHECKING:
    from pathlib import Path

    from sentence_transformers import SentenceTransformer

_PAPER = """\
@inproceedings{lim2022distilling,
    title = {Distilling Contrastive Learning Models},
    author = {Lim, Ng, Lim},
    year = {2022}
}"""


def write_card(path: Path, model: SentenceTransformer, run: dict[str, Any] | None, needs_package: bool) -> None:
    """Write a model card for the Hub.

    Args:
        path: The file to write.
        model: The model the card speaks of.
        run: The content of a training run's ``run.json``; None where the model was not trained here.
        needs_package: Whether the saved folder opens only with this package.
    """
    kept = getattr(model, "_model_card_text", None)
    path.write_text(kept if kept and run is None else model_card(model, run, needs_package), encoding="utf-8")


def model_card(model: SentenceTransformer, run: dict[str, Any] | None, needs_package: bool) -> str:
    """The card's text, Markdown after YAML front matter. The arguments are those of :func:`write_card`."""
    parts = [_front_matter(model), _head(model, needs_package), _facts(model)]
    if run:
        parts += [_training(run), _scores(run)]
    parts.append(_citation(run))
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(model: SentenceTransformer) -> str:
    base = model.model_card_data.base_model
    lines = [
        "---",
        "library_name: sentence-transformers",
        "pipeline_tag: sentence-similarity",
        "tags:",
        "- sentence-transformers",
        "- sentence-similarity",
        "- feature-extraction",
        "- distilface",
        *([f"base_model: {base}"] if base else []),
        "---",
    ]
    return "\n".join(lines)


def _head(model: SentenceTransformer, needs_package: bool) -> str:
    module, call = (
        ("distilface_st", "load_model") if needs_package else ("sentence_transformers", "SentenceTransformer")
    )
    return f"""\
# A DistilFACE sentence encoder

Maps a sentence to {model.get_embedding_dimension()} numbers; similar sentences get similar ones.

```python
from {module} import {call}

model = {call}("PATH OR NAME")
embeddings = model.encode(["It is sunny.", "He drove to work."])
print(model.similarity(embeddings, embeddings))
```"""


def _facts(model: SentenceTransformer) -> str:
    encoder = cast("Any", model[0])
    facts = {
        "Base model": model.model_card_data.base_model or "a local encoder",
        "Encoder": f"{type(encoder.model).__name__}, {encoder.config.num_hidden_layers} layers",
        "Pooling": _pooling(model),
        "Dimensions": model.get_embedding_dimension(),
        "Longest input": f"{model.max_seq_length} tokens",
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
    rows = [(name, _number(before.get(name)), _number(after.get(name))) for name in after]
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


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"

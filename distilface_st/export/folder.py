"""What lies in a folder that runs without torch, beside its graphs: manifest, tokenizer, settings and card."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from ..errors import InputError
from ..inference.engines import EXTRAS, batch_feeds
from ..inference.manifest import MANIFEST, Manifest
from ..inference.tokenization import TOKENIZER, SentenceTokenizer
from ..models.fingerprint import model_fingerprint
from ..models.save import MODEL_FOLDER
from ..utils.chunks import chunked
from ..utils.provenance import command, versions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from sentence_transformers import SentenceTransformer

    from ..inference.manifest import Graph
    from .sentence_graph import SentenceGraph

EXPORT_FOLDER = replace(MODEL_FOLDER, name="an exported model", mark=MANIFEST)
"""What an export writes, and replaces."""

CALIBRATION_SENTENCES = 400
"""The most sentences that int8 is tried on."""

_PROBES = ("A man is playing a guitar.", "", "Ünïcödé, 漢字 and 🙂!", "one two three " * 200)


def new_manifest(
    model: SentenceTransformer, graph: SentenceGraph, precision: str, activations: str | None, name: str | None
) -> Manifest:
    """The manifest of a model that has no graph yet; ``graph`` is the model as one function."""
    positions = int(getattr(model[0].config, "max_position_embeddings", 0) or 512)
    with torch.no_grad():
        embedding = graph(**graph.example(1, 4, torch.Generator()))
    return Manifest(
        model={
            "name": name or type(model).__name__,
            "fingerprint": model_fingerprint(model),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "modules": [type(module).__name__ for module in model],
        },
        precision=precision,
        activations=activations,
        dimension=int(embedding.shape[1]),
        max_seq_length=min(model.max_seq_length or positions, positions),
        pad_token_id=model.tokenizer.pad_token_id or 0,
        padding_side=model.tokenizer.padding_side,
        include_prompt=graph.include_prompt,
        graphs={},
        made_with={"versions": versions(), "command": command()},
    )


def save_tokenizer(model: SentenceTransformer, folder: Path, manifest: Manifest) -> None:
    """Write ``tokenizer.json``, without indentation, and check that alone it gives the token ids the model gets."""
    model.tokenizer.backend_tokenizer.save(str(folder / TOKENIZER), pretty=False)
    alone = SentenceTokenizer(folder, manifest)
    for text in _PROBES:
        expected = model.preprocess([text])
        types = expected.get("token_type_ids")
        if expected["input_ids"][0].tolist() != alone.ids_of_one(text) or (types is not None and types.any()):
            raise InputError(f"The tokenizer cannot be exported: on its own it reads {text[:40]!r} differently.")


def save_truncate_dim(model: SentenceTransformer, folder: Path) -> None:
    """Add ``truncate_dim``, which sentence-transformers leaves out, to the settings that it has written."""
    path = folder / "config_sentence_transformers.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**settings, "truncate_dim": model.truncate_dim}, indent=2) + "\n", encoding="utf-8")


def text_batches(folder: Path, manifest: Manifest, sentences: Sequence[str]) -> list[dict[str, np.ndarray]]:
    """What a graph takes for real text, the first ``CALIBRATION_SENTENCES`` of ``sentences``, in small batches."""
    tokenizer = SentenceTokenizer(folder, manifest)
    rows = tokenizer.ids(list(sentences)[:CALIBRATION_SENTENCES])
    return [batch_feeds(*tokenizer.pad(part), manifest, 0) for part in chunked(rows, 4)]


def lowest_cosine(graph: Graph) -> float:
    """The lowest cosine to the torch model's embeddings that was found: for int8 on text, else on random tokens."""
    return graph.check.get("min_cosine_on_text", graph.check["min_cosine"])


def export_card(folder: Path, manifest: Manifest) -> str:
    """The text of ``README.md`` in an exported folder, its other files all in place: their sizes are in the card."""
    graphs, parameters = manifest.graphs, manifest.model["parameters"]
    everything = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    small = everything - sum(graph.size for graph in graphs.values())
    precision = manifest.precision + (f", {manifest.activations} activations" if manifest.activations else "")
    figures = "\n".join(_figures(runtime, graph, small, parameters) for runtime, graph in graphs.items())
    kept = (
        f"Kept in float ({runtime}): " + ", ".join(graph.kept_in_float) + ".\n\n"
        for runtime, graph in graphs.items()
        if graph.kept_in_float
    )
    return f"""\
---
library_name: distilface-st
pipeline_tag: sentence-similarity
tags:
- sentence-similarity
- distilface
---

# {manifest.model["name"]}, {precision}

One graph from token ids to sentence embeddings of {manifest.dimension} dimensions. Without torch:

```python
from distilface_st import EdgeEncoder  # pip install "distilface-st[{",".join(EXTRAS[runtime] for runtime in graphs)}]"

embeddings = EdgeEncoder("PATH").encode(["It is sunny.", "He drove to work."])
```

As a SentenceTransformer:

```python
from distilface_st import load_model

model = load_model("PATH")
```

| | |
|---|---|
| Model | {manifest.model["name"].replace("|", " ")} |
| Modules | {", ".join(manifest.model["modules"])} |
| Parameters | {parameters:,} |
| Precision | {precision} |
| Dimensions | {manifest.dimension} |
| Longest input | {manifest.max_seq_length} tokens |
| Tokenizer and settings | {small / 1e6:.1f} MB |

| graph | size | of fp32 weights, all files | largest difference | lowest cosine | score before | after |
|---|---|---|---|---|---|---|
{figures}

Differences and cosines are to the torch model in float32, on random tokens, for int8 the cosine on text; \
scores are Spearman x 100.

{"".join(kept)}\
Made with {", ".join(f"{package} {version}" for package, version in manifest.made_with["versions"].items())}.
"""


def _figures(runtime: str, graph: Graph, small: int, parameters: int) -> str:
    """A graph's row of the card's table; ``small`` is the size of all other files in bytes."""
    before, after = "not measured", "not measured"
    if graph.scores:
        before, after = f"{graph.scores['before']:.2f} ({graph.scores['data']})", f"{graph.scores['after']:.2f}"
    share = f"{(graph.size + small) / (4 * parameters):.1%}"
    difference = f"{graph.check['max_abs_difference']:.2g} | {lowest_cosine(graph):.5f}"
    return f"| {runtime} | {graph.size / 1e6:.1f} MB | {share} | {difference} | {before} | {after} |"

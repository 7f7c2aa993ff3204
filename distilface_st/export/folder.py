"""What lies in a folder that runs without torch, beside its graphs: manifest, tokenizer, settings and card."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers.sentence_transformer.modules import Pooling, WeightedLayerPooling
from tokenizers import Tokenizer

from ..errors import InputError
from ..inference.engines import EXTRAS, batch_feeds
from ..inference.manifest import Manifest
from ..inference.tokenization import TOKENIZER, SentenceTokenizer
from ..models.fingerprint import model_fingerprint
from ..models.module_list import STOCK_MODULES
from ..utils.chunks import chunked
from ..utils.provenance import command, versions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from sentence_transformers import SentenceTransformer

    from ..inference.manifest import Graph
    from .sentence_graph import SentenceGraph

CALIBRATION_SENTENCES = 400
"""The most sentences that int8 is tried on."""

_BATCH = ("input_ids", "attention_mask")
_POOLINGS = {
    "cls": "cls_token",
    "mean": "mean_tokens",
    "max": "max_tokens",
    "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "weightedmean": "weightedmean_tokens",
    "lasttoken": "lasttoken",
}
"""Pooling modes, and what they were called in settings before sentence-transformers 6."""
_OF_TRAINING = ("max_length", "stride", "truncation_strategy", "pad_to_multiple_of", "is_local", "local_files_only")
"""Settings of a tokenizer that say how it was last used, and mislead others."""
_PROBES = (
    "A man is playing a guitar.",
    "",
    "Ünïcödé, 漢字 and 🙂!",
    "  Two  SPACES\n\tand a line ",
    "İ ﬁ e\u0301 [SEP] </s>",
)
"""Texts that tell one tokenizer's settings from another's; :func:`_long_probes` adds those that are cut."""


def new_manifest(
    model: SentenceTransformer, graph: SentenceGraph, precision: str, activations: str | None, name: str | None
) -> Manifest:
    """The manifest of a model that has no graph yet; ``graph`` is the model as one function."""
    positions = int(getattr(model[0].config, "max_position_embeddings", 0) or 512)
    with torch.no_grad():
        embedding = graph.embed(**graph.example(1, 4, torch.Generator()))
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
    """Write ``tokenizer.json``, without indentation, and check that alone it gives what the model gets.

    Raises:
        InputError: It does not: token ids, or the prompts' lengths, the padding or the masks of a batch are others; or
            queries and documents are cut differently.
    """
    encoder: Any = model[0]
    if any(getattr(encoder, name, None) is not None for name in ("query_length", "document_length", "query_expansion")):
        raise InputError("A model that cuts or expands queries and documents differently cannot be exported.")
    own = Tokenizer.from_str(model.tokenizer.backend_tokenizer.to_str())
    own.enable_truncation(manifest.max_seq_length, direction=model.tokenizer.truncation_side)
    own.no_padding()
    own.save(str(folder / TOKENIZER), pretty=False)
    alone = SentenceTokenizer(folder, manifest)
    # A model whose tokenizer states no limit is cut where its positions end.
    states_limit = (model.max_seq_length or math.inf) <= manifest.max_seq_length
    options: dict[str, Any] = {} if states_limit else {"max_length": manifest.max_seq_length}
    probes = [*_PROBES, *_long_probes(own, manifest.max_seq_length)]
    for prompt in dict.fromkeys([None, *model.prompts.values()]):
        for text in probes:
            expected = model.preprocess([text], prompt=prompt, **options)
            same = expected["input_ids"][0].tolist() == alone.ids_of_one((prompt or "") + text)
            if not same or expected.get("token_type_ids", torch.zeros(1)).any():
                raise InputError(f"The tokenizer cannot be exported: on its own it reads {text[:40]!r} differently.")
        if prompt and expected["prompt_length"] != alone.prompt_length(prompt):
            raise InputError(f"The prompt {prompt!r} cannot be exported: its tokens are counted differently.")
    if model.tokenizer.pad_token_id is not None:
        expected = model.preprocess(probes, **options)
        padded = alone.pad(alone.ids(probes))
        if any((expected[key].numpy() != found).any() for key, found in zip(_BATCH, padded, strict=True)):
            raise InputError("The tokenizer cannot be exported: on its own it pads differently.")


def _long_probes(tokenizer: Tokenizer, limit: int) -> list[str]:
    """Texts of about ``limit`` tokens, some below and some above, whose tokens differ from place to place."""
    uncut = Tokenizer.from_str(tokenizer.to_str())
    uncut.no_truncation()
    size = uncut.get_vocab_size()
    known = [uncut.decode([token]).strip() for token in range(0, size, max(1, size // (2 * limit)))]
    words = [word for word in known if word] or ["a"]
    text = " ".join(f"{words[place % len(words)]} {place}" for place in range(2 * limit))
    ends = [end for _, end in uncut.encode(text, add_special_tokens=False).offsets] or [len(text)]
    counts = range(max(1, limit - 4), limit + 3)  # some tokenizers add no special tokens, others up to four
    return [text[: ends[min(count, len(ends)) - 1]] for count in counts] + [text]


def save_for_hosts(model: SentenceTransformer, folder: Path, manifest: Manifest, torch_weights: bool) -> None:
    """Write what other software reads of a model on the Hub, its own weights left out but for ``torch_weights``.

    Settings are written as they were before sentence-transformers 6, which reads them as well: others know no newer
    ones. Some software wants a file of special tokens, one of WordPiece's words, and the longest input in the
    tokenizer's settings.
    """
    model.save(str(folder), create_model_card=False)
    if not torch_weights:
        for path in folder.glob("model*.safetensors*"):
            path.unlink()
    modules = _read(folder / "modules.json")
    for entry, module in zip(modules, model, strict=True):
        if entry["type"].startswith(STOCK_MODULES):
            entry["type"] = f"sentence_transformers.models.{type(module).__name__}"
        if type(module) is Pooling and module.pooling_mode in _POOLINGS:
            modes = {f"pooling_mode_{key}": mode == module.pooling_mode for mode, key in _POOLINGS.items()}
            own = {"word_embedding_dimension": module.embedding_dimension, "include_prompt": module.include_prompt}
            _write(folder / entry["path"] / "config.json", own | modes)
    _write(folder / "modules.json", modules)
    if not any(isinstance(module, WeightedLayerPooling) for module in model):
        settings = {"max_seq_length": manifest.max_seq_length, "do_lower_case": False}
        _write(folder / "sentence_bert_config.json", settings)
    save_truncate_dim(model, folder)
    _save_words(model.tokenizer, folder, manifest)


def _save_words(tokenizer: Any, folder: Path, manifest: Manifest) -> None:
    _write(folder / "special_tokens_map.json", tokenizer.special_tokens_map)
    path = folder / "tokenizer_config.json"
    kept = {key: value for key, value in _read(path).items() if key not in _OF_TRAINING}
    _write(path, {**kept, "model_max_length": manifest.max_seq_length})
    words = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    if words["type"] == "WordPiece":
        text = "".join(f"{word}\n" for word in sorted(words["vocab"], key=words["vocab"].__getitem__))
        (folder / "vocab.txt").write_text(text, encoding="utf-8")


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def save_truncate_dim(model: SentenceTransformer, folder: Path) -> None:
    """Add ``truncate_dim``, which sentence-transformers leaves out, to the settings that it has written."""
    path = folder / "config_sentence_transformers.json"
    _write(path, {**_read(path), "truncate_dim": model.truncate_dim})


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
    own = {name for graph in graphs.values() for name in graph.files}
    files = [path for path in folder.rglob("*") if path.is_file()]
    in_torch = sum(path.stat().st_size for path in files if path.suffix == ".safetensors" and path.name not in own)
    everything = sum(path.stat().st_size for path in files) - in_torch
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
| Tokenizer and settings | {small / 1e6:.1f} MB |{
        f'''
| Weights for torch | {in_torch / 1e6:.1f} MB |'''
        if in_torch
        else ""
    }

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

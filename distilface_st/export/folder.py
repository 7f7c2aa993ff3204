"""What folders that run without torch have in common: their manifest, their tokenizer and text to try them on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch

from ..errors import InputError
from ..inference.engines import batch_feeds
from ..inference.manifest import Manifest
from ..inference.tokenization import TOKENIZER, SentenceTokenizer
from ..models.fingerprint import model_fingerprint
from ..utils.provenance import command, versions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from sentence_transformers import SentenceTransformer

    from .sentence_graph import SentenceGraph

CALIBRATION_SENTENCES = 400
"""The most sentences that int8 is tried on."""

_BATCH = 4
_PROBES = ("A man is playing a guitar.", "", "Ünïcödé, 漢字 and 🙂!", "one two three " * 200)


def new_manifest(
    model: SentenceTransformer, graph: SentenceGraph, precision: str, activations: str | None, name: str | None
) -> Manifest:
    """The manifest of a model that has no graph yet.

    Args:
        model: The model.
        graph: The same as one function.
        precision: ``fp32``, ``fp16`` or ``int8``.
        activations: For int8, ``dynamic`` or ``static``.
        name: What to call the model; by default its class.
    """
    return Manifest(
        model={
            "name": name or type(model).__name__,
            "fingerprint": model_fingerprint(model),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "modules": [type(module).__name__ for module in model],
        },
        precision=precision,
        activations=activations,
        dimension=_dimension(graph),
        max_seq_length=_longest_input(model),
        pad_token_id=model.tokenizer.pad_token_id or 0,
        padding_side=model.tokenizer.padding_side,
        include_prompt=graph.include_prompt,
        graphs={},
        made_with={"versions": versions(), "command": command()},
    )


def save_tokenizer(model: SentenceTransformer, folder: Path, manifest: Manifest) -> None:
    """Write ``tokenizer.json``, without indentation, and check that alone it gives the token ids that the model gets.

    Raises:
        InputError: It does not.
    """
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
    """What a graph takes for real text, in batches of similar size.

    Args:
        folder: Where the tokenizer lies.
        manifest: The folder's manifest.
        sentences: Text, of which the first ``CALIBRATION_SENTENCES`` are used.
    """
    tokenizer = SentenceTokenizer(folder, manifest)
    rows = tokenizer.ids(list(sentences)[:CALIBRATION_SENTENCES])
    parts = [rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH)]
    return [batch_feeds(*tokenizer.pad(part), manifest, 0) for part in parts]


@torch.no_grad()
def _dimension(graph: SentenceGraph) -> int:
    return int(graph(**graph.example(1, 4, torch.Generator())).shape[1])


def _longest_input(model: SentenceTransformer) -> int:
    """The model's own limit, or what its encoder has positions for."""
    positions = int(getattr(model[0].config, "max_position_embeddings", 0) or 512)
    return min(model.max_seq_length or positions, positions)

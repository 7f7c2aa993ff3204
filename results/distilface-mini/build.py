"""Packs a distilled model as one that the package ships, scores what it packed, and writes that into its card.

    python results/distilface-mini/build.py FIRST SECOND mini|micro ../shared/data/sts distilface_st/assets

FIRST and SECOND are the folders of both stages' ``distilface distill``; what SECOND made is packed. The int8 graph is
scored as it runs (EdgeEncoder, onnxruntime), and so is the
float model before packing, in torch.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from distilface_st import EdgeEncoder, load_model, load_sts, pack_model, sts_suite
from distilface_st.datasets.sts import AVERAGE6
from distilface_st.inference.manifest import PACKED_FILES
from distilface_st.utils.files import write_json

HERE = Path(__file__).parent
MAX_TOKENS = 256

CARD = """\
---
license: apache-2.0
language: en
library_name: sentence-transformers
pipeline_tag: sentence-similarity
tags:
- sentence-transformers
- sentence-similarity
- feature-extraction
- distilface
base_model:
- sentence-transformers/paraphrase-MiniLM-L3-v2
- sentence-transformers/all-mpnet-base-v2
---

# distilface-{name}

A small English sentence encoder: {parameters:,} parameters, {megabytes:.1f} MB in int8, {dimensions} dimensions. It
comes with the package distilface-st; nothing is downloaded.

```python
from distilface_st import EdgeEncoder, load_model, shipped_model

EdgeEncoder({folder}).encode(["It is sunny.", "He drove to work."])  # onnxruntime, without torch
load_model({folder})  # an ordinary SentenceTransformer, to use or to train further
```

## What it is

{layers} of 384 hidden dimensions, mean pooling, at most {tokens} tokens. Word embeddings of
{embedding_size} dimensions for {vocabulary:,} word pieces, projected to 384: in transformers' words an `ElectraModel`.
One set of int8 weights, a scale a row, in `model.safetensors`: torch widens them, `model.onnx` reads them as they lie.

## How it was made

By `distilface distill`, see `results/distilface-mini` in the source repository: cut from paraphrase-MiniLM-L3-v2 and
trained to embed as two teachers do: all-mpnet-base-v2 and paraphrase-MiniLM-L3-v2 (both Apache-2.0, by the
sentence-transformers authors). Objectives: regression, in-batch contrast and relations. Two stages, of {steps[0]:,} and
{steps[1]:,} steps of {batch_size} texts each, on {sentences[0]:,} sentences and then on {sentences[1]:,} other
sentences and passages of up to 256 tokens, without labels: English Wikipedia (CC BY-SA), glosses and examples of
WordNet 3.0 (Princeton University), sentences of a small grammar, written in the manner of captions, headlines and forum
talk with knowledge that STS holds such text. No sentence of an STS set was trained on; the checkpoint was chosen on
STS-B dev. The teachers had been trained on public pairs, among them captions of the
collections from which STS drew some of its own.

## Scores

Spearman x 100 of cosine similarity on STS, all pairs of a set at once ("all").

| | {header} | average of 5 |
|---|{rule}---|
{rows}

The average is that of STS12-15 and STS-B, as in the DistilFACE paper.

## Limits

English. Short, general text: sentences and short paragraphs, not code, not law. It inherits the biases of its teachers
and their text. One training run, one seed.
"""


def scores(encoder: Any, sts: Path) -> dict[str, float]:
    report = sts_suite(encoder, sts, list(AVERAGE6))
    dev = sts_suite(encoder, tasks=[load_sts("STS-B", sts, split="dev")])
    return {**report["scores"], **dev["scores"], "average5": report["average5"]}


def main() -> None:
    stages, name, sts, assets = [Path(run) for run in sys.argv[1:3]], sys.argv[3], Path(sys.argv[4]), Path(sys.argv[5])
    records = [json.loads((run / "run.json").read_text(encoding="utf-8")) for run in stages]
    model = load_model(stages[-1] / "model", device="cpu")
    model.max_seq_length = MAX_TOKENS
    folder = assets / name
    pack_model(model, folder, runtimes=tuple(PACKED_FILES), table_bits=8, name=f"distilface-{name}")
    found = {
        "int8, EdgeEncoder": scores(EdgeEncoder(folder), sts),
        "int8 weights, torch": scores(load_model(folder, device="cpu"), sts),
        "float32, torch": scores(model, sts),
    }
    (folder / "README.md").write_text(card(name, folder, model, records, found), encoding="utf-8")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    write_json(HERE / f"{name}.json", {"bytes": size, "scores": found, "runs": records})
    print(json.dumps({"bytes": size, **found}, indent=2))


def card(name: str, folder: Path, model: Any, records: list[dict[str, Any]], found: dict[str, dict[str, float]]) -> str:
    config = model[0].model.config
    columns = list(next(iter(found.values())))[:-1]
    rows = [
        f"| {kind} | " + " | ".join(f"{own[column]:.2f}" for column in columns) + f" | {own['average5']:.2f} |"
        for kind, own in found.items()
    ]
    return CARD.format(
        name=name,
        folder="" if name == "mini" else f'shipped_model("{name}")',
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        megabytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6,
        dimensions=model.get_embedding_dimension(),
        layers={1: "One BERT layer", 2: "Two BERT layers", 3: "Three BERT layers", 4: "Four BERT layers"}[
            config.num_hidden_layers
        ],
        tokens=MAX_TOKENS,
        embedding_size=config.embedding_size,
        vocabulary=config.vocab_size,
        steps=[record["kept_step"] for record in records],
        batch_size=records[0]["config"]["batch_size"],
        sentences=[record["data"]["rows"] for record in records],
        header=" | ".join(columns),
        rule="---|" * len(columns),
        rows="\n".join(rows),
    )


if __name__ == "__main__":
    main()

"""The card of an exported folder: what it is, how large, how far from the model, and how to run it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..inference.engines import EXTRAS

if TYPE_CHECKING:
    from pathlib import Path

    from ..inference.manifest import Graph, Manifest


def write_export_card(folder: Path, manifest: Manifest) -> None:
    """Write ``README.md`` into an exported folder.

    Args:
        folder: The folder, all its other files in place.
        manifest: Its manifest.
    """
    (folder / "README.md").write_text(export_card(folder, manifest), encoding="utf-8")


def export_card(folder: Path, manifest: Manifest) -> str:
    """The card's text, Markdown after YAML front matter."""
    everything = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    small = everything - sum(graph.size for graph in manifest.graphs.values())
    return (
        "\n\n".join(
            [
                "---\nlibrary_name: distilface-st\npipeline_tag: sentence-similarity\ntags:\n- sentence-similarity\n"
                "- distilface\n---",
                _head(manifest),
                _facts(manifest, small),
                _graphs(manifest, small),
                *(_kept(runtime, graph) for runtime, graph in manifest.graphs.items() if graph.kept_in_float),
                "Made with " + ", ".join(f"{k} {v}" for k, v in manifest.made_with["versions"].items()) + ".",
            ]
        )
        + "\n"
    )


def _head(manifest: Manifest) -> str:
    extras = ",".join(EXTRAS[runtime] for runtime in manifest.graphs)
    return f"""\
# {manifest.model["name"]}, {_precision(manifest)}

One graph from token ids to sentence embeddings of {manifest.dimension} dimensions. Without torch:

```python
from distilface_st.edge import EdgeEncoder  # pip install "distilface-st[{extras}]"

embeddings = EdgeEncoder("PATH").encode(["It is sunny.", "He drove to work."])
```

As a SentenceTransformer:

```python
from distilface_st import load_model

model = load_model("PATH")
```"""


def _facts(manifest: Manifest, small: int) -> str:
    rows = {
        "Model": manifest.model["name"],
        "Modules": ", ".join(manifest.model["modules"]),
        "Parameters": f"{manifest.model['parameters']:,}",
        "Precision": _precision(manifest),
        "Dimensions": str(manifest.dimension),
        "Longest input": f"{manifest.max_seq_length} tokens",
        "Tokenizer and settings": _megabytes(small),
    }
    return "| | |\n|---|---|\n" + "\n".join(f"| {key} | {value.replace('|', ' ')} |" for key, value in rows.items())


def _graphs(manifest: Manifest, small: int) -> str:
    whole = 4 * manifest.model["parameters"]
    lines = [
        "| graph | size | of fp32 weights, all files | largest difference | lowest cosine | score before | after |",
        "|---|---|---|---|---|---|---|",
    ]
    for runtime, graph in manifest.graphs.items():
        scores = graph.scores
        measured = (
            [f"{scores['before']:.2f} ({scores['data']})", f"{scores['after']:.2f}"] if scores else ["not measured"] * 2
        )
        cells = [
            runtime,
            _megabytes(graph.size),
            f"{(graph.size + small) / whole:.1%}",
            f"{graph.check['max_abs_difference']:.2g}",
            f"{graph.check.get('min_cosine_on_text', graph.check['min_cosine']):.5f}",
            *measured,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    note = (
        "Differences and cosines are to the torch model in float32, on random tokens, for int8 the cosine on text; "
        "scores are Spearman x 100."
    )
    return "\n".join(lines) + f"\n\n{note}"


def _kept(runtime: str, graph: Graph) -> str:
    return f"Kept in float ({runtime}): " + ", ".join(graph.kept_in_float) + "."


def _precision(manifest: Manifest) -> str:
    return f"{manifest.precision}, {manifest.activations} activations" if manifest.activations else manifest.precision


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"

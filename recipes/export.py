"""``distilface export``: a model as one graph, for onnxruntime or OpenVINO."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..pretrained import DEFAULT_MODEL
from ._common import JsonFile, ModelArgument, StsDir, console, valid_text, write_result

if TYPE_CHECKING:
    from ..inference.manifest import Manifest

Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        help="Folder to write: a new one, or an export to replace.",
        callback=valid_text,
    ),
]
FORMATS_HELP = "onnx or openvino, or both with a comma: the faster one is picked where it runs."
ACTIVATIONS_HELP = "For int8: dynamic (scales found while it runs) or static (found on text)."
CALIBRATION_HELP = "For int8: text like yours, as for `distilface train`. Default: Python's docs."
REDUCE_RANGE_HELP = "Dynamic int8 in onnxruntime: 7-bit weights, for x86 without VNNI. Default: as found here."
MAX_LOSS_HELP = "The most that the score may fall by int8; layers stay in float until it holds."
TORCH_HELP = "Also write the weights, so that stock sentence-transformers opens the folder in torch."
PLAIN_HELP = "ONNX in standard operators alone, for runtimes without onnxruntime's own."
TABLE_HELP = "For int8: bits of the vocabulary's table, 8, or 4 for a smaller file."
EVAL_FILE_HELP = "Your own scored pairs to measure the loss on, instead of STS-B dev."


def export(
    output: Output,
    model: ModelArgument = DEFAULT_MODEL,
    formats: Annotated[str, typer.Option("--format", help=FORMATS_HELP)] = "onnx",
    precision: Annotated[str, typer.Option(help="fp32, fp16 (half the file) or int8.")] = "fp32",
    activations: Annotated[str, typer.Option(help=ACTIVATIONS_HELP)] = "dynamic",
    calibration: Annotated[str | None, typer.Option(metavar="FILE", help=CALIBRATION_HELP)] = None,
    reduce_range: Annotated[bool | None, typer.Option(help=REDUCE_RANGE_HELP)] = None,
    max_loss: Annotated[float | None, typer.Option(min=0, help=MAX_LOSS_HELP)] = None,
    torch_weights: Annotated[bool, typer.Option("--torch-weights", help=TORCH_HELP)] = False,
    plain: Annotated[bool, typer.Option("--plain", help=PLAIN_HELP)] = False,
    table_bits: Annotated[int, typer.Option(metavar="4|8", help=TABLE_HELP)] = 8,
    sts_dir: StsDir = None,
    eval_file: Annotated[Path | None, typer.Option(help=EVAL_FILE_HELP)] = None,
    json_file: JsonFile = None,
) -> None:
    """Export a model as one graph from token ids to sentence embedding, checked against the model before it is kept."""
    from ..datasets.sentences import load_sentences
    from ..datasets.sts import load_scored_pairs, load_sts
    from ..export.export_model import export_model
    from ..models.save import EXPORT_FOLDER
    from ..utils.files import check_output
    from ._progress import quiet_libraries

    check_output(output, EXPORT_FOLDER)
    quiet_libraries()
    sentences = None if calibration is None else list(load_sentences(calibration, limit=10_000).dataset["sentence"][:])
    pairs = load_scored_pairs(eval_file) if eval_file is not None else None
    if pairs is None and (sts_dir is not None or max_loss is not None):
        pairs = load_sts("STS-B", sts_dir, split="dev")
    with console().status("exporting") as status:
        manifest = export_model(
            model,
            output,
            formats=[name.strip() for name in formats.split(",")],
            precision=precision,
            activations=activations,
            calibration=sentences,
            reduce_range=reduce_range,
            scored_pairs=pairs,
            max_loss=max_loss,
            torch_weights=torch_weights,
            plain=plain,
            table_bits=table_bits,
            progress=status.update,
        )
    _show(manifest, output)
    result = {"output": str(output), **asdict(manifest)}
    own_test = Path(model).parent / "test.jsonl"
    if own_test.is_file():
        result["own_test"] = scores = _own_test(own_test, model, output)
        console().print(f"MRR@10 in the run's own test: {scores['before']:.3f} before, {scores['after']:.3f} now")
    write_result(result, json_file)


def _own_test(path: Path, model: str, output: Path) -> dict[str, float]:
    """MRR@10 of a trained model and of its export in the test that its run has made."""
    from ..adaptation.material import read_test
    from ..inference.edge_encoder import EdgeEncoder
    from ..models.load import load_model

    test = read_test(path)
    return {
        when: test.score(encoder)["mrr@10"]
        for when, encoder in (("before", load_model(model, device="cpu")), ("after", EdgeEncoder(output)))
    }


def _show(manifest: Manifest, output: Path) -> None:
    from rich.table import Table

    from ..export.folder import lowest_cosine

    table = Table(title=f"{manifest.model['name']}, {manifest.precision}: {output}")
    table.add_column("graph")
    scored = next((graph.scores["data"] for graph in manifest.graphs.values() if graph.scores), None)
    for heading in ("MB", "lowest cosine", *((f"{scored} before", "after", "in float") if scored else ())):
        table.add_column(heading, justify="right")
    for runtime, graph in manifest.graphs.items():
        cells = [f"{graph.size / 1e6:.1f}", f"{lowest_cosine(graph):.5f}"]
        if graph.scores:
            cells += [f"{graph.scores['before']:.2f}", f"{graph.scores['after']:.2f}", str(len(graph.kept_in_float))]
        table.add_row(runtime, *cells)
    out = console()
    out.print(table)
    out.print(f'Use it: EdgeEncoder("{output}") without torch, or load_model("{output}").', style="dim")

"""What an exported folder says of itself: ``export.json``, read with every path and checksum checked."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..utils.files import read_json, sha256, write_json

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Sequence

MANIFEST = "export.json"
"""Name of the manifest; a folder that has it is an exported model."""

FORMAT_VERSION = 2
"""Of what is written. Version 1, of version 0.1 of the package, is read as well: its graphs lie at the top."""

WEIGHTS = "model.safetensors"
"""What a packed model's graphs read their weights from, and torch as well."""

OPENVINO_FILES = ("openvino/openvino_model.xml", "openvino/openvino_model.bin")
PACKED_FILES = {"onnxruntime": ("model.onnx", WEIGHTS), "openvino": ("openvino.xml", WEIGHTS, "openvino.bin")}
_GRAPH_FILES = {
    "onnxruntime": (
        *(("onnx/model.onnx",), ("onnx/model_fp16.onnx",), ("onnx/model_quantized.onnx",)),
        PACKED_FILES["onnxruntime"],
        ("model.onnx",),  # as version 0.1 wrote it
    ),
    "openvino": (OPENVINO_FILES, PACKED_FILES["openvino"], ("openvino.xml", "openvino.bin")),
}
"""The files that a runtime's graph may have; the first is the one it opens."""


def graph_files(runtime: str, precision: str) -> tuple[str, ...]:
    """The files of a runtime's graph, the first the one it opens, where other software of that runtime looks for them.

    The names are those of the Hub: of transformers.js and optimum for ONNX, of optimum-intel for OpenVINO.
    """
    if runtime == "openvino":
        return OPENVINO_FILES
    return (f"onnx/model{ {'fp16': '_fp16', 'int8': '_quantized'}.get(precision, '') }.onnx",)


@dataclass(frozen=True)
class Graph:
    """One runtime's graph in an exported folder.

    Args:
        files: Size in bytes and SHA-256 of each file, by name; ``formerly`` has the SHA-256 of earlier graphs of the
            same weights, whose embeddings can be compared with this one's, and is empty for a graph added later.
        options: Settings of the engine that the graph was made for.
        kept_in_float: Names of the linear layers that were left in floating point.
        check: How far the graph was from the torch model, see :func:`distilface_st.export.graph_format.verify`.
        scores: Spearman x 100 on scored pairs, where they were measured: ``before``, ``after``, ``loss``, ``data``.
    """

    files: dict[str, dict[str, Any]]
    options: dict[str, Any] = field(default_factory=dict)
    kept_in_float: tuple[str, ...] = ()
    check: dict[str, float] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(int(entry["bytes"]) for entry in self.files.values())

    @property
    def digest(self) -> str:
        """What tells its files from those of other graphs."""
        return " ".join(str(entry["sha256"]) for entry in self.files.values())


@dataclass(frozen=True)
class Manifest:
    """An exported model. ``asdict`` of it, with ``format_version``, is ``export.json``.

    Args:
        model: What was exported: ``name``, ``fingerprint``, ``parameters``, ``modules``.
        precision: ``fp32``, ``fp16`` or ``int8``.
        activations: For int8, how activations are quantized: ``dynamic`` or ``static``; otherwise ``None``.
        dimension: Width of the embeddings, d.
        max_seq_length: Longest input in tokens; longer text is cut.
        pad_token_id: Token that fills rows up to the longest of a batch.
        padding_side: ``right`` or ``left``.
        include_prompt: Whether a prompt's tokens take part in pooling; where not, the graph takes ``prompt_length``.
        graphs: The graph of each runtime.
        made_with: Package versions and the command.
    """

    model: dict[str, Any]
    precision: str
    activations: str | None
    dimension: int
    max_seq_length: int
    pad_token_id: int
    padding_side: str
    include_prompt: bool
    graphs: dict[str, Graph]
    made_with: dict[str, Any] = field(default_factory=dict)

    @property
    def is_packed(self) -> bool:
        """Whether a graph reads its weights from the file that torch reads, too."""
        return any(WEIGHTS in graph.files for graph in self.graphs.values())

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write ``export.json`` into ``folder``."""
        write_json(Path(folder, MANIFEST), {"format_version": FORMAT_VERSION, **asdict(self)})


def describe_files(folder: str | os.PathLike[str], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Size and checksum of a graph's files, as :class:`Graph` holds them."""
    return {name: {"bytes": Path(folder, name).stat().st_size, "sha256": sha256(Path(folder, name))} for name in names}


def is_export(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds an exported model."""
    return Path(folder, MANIFEST).is_file()


def read_manifest(folder: str | os.PathLike[str]) -> Manifest:
    """Read and check ``export.json``; one that is missing, damaged or of a later version is an :class:`InputError`."""
    path = Path(folder, MANIFEST)
    if not Path(folder).is_dir():
        raise InputError(f"{folder}: no such folder.")
    if not path.is_file():
        raise InputError(f"{folder} is not an exported model (it has no {MANIFEST}): `distilface export` makes one.")
    content = read_json(path)
    version = content.pop("format_version", FORMAT_VERSION)  # without one, the rest is not there either
    if version not in (1, FORMAT_VERSION):
        raise InputError(f"{path} has format version {version!r}; this package reads {FORMAT_VERSION}: update it.")
    try:
        graphs = {name: Graph(**graph) for name, graph in content.pop("graphs").items()}
        manifest = Manifest(graphs=graphs, **content)
        sound = _is_sound(manifest)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged: {error!r}") from error
    if not sound:
        raise InputError(f"{path} is damaged: it names no graph, files that are not a graph's, or impossible sizes.")
    return manifest


def _is_sound(manifest: Manifest) -> bool:
    numbers = (manifest.dimension, manifest.max_seq_length, manifest.pad_token_id)
    return (
        bool(manifest.graphs)
        and all(tuple(graph.files) in _GRAPH_FILES[name] for name, graph in manifest.graphs.items())
        and all({"bytes", "sha256"} <= set(e) for graph in manifest.graphs.values() for e in graph.files.values())
        and all(isinstance(number, int) and number >= 0 for number in numbers)
        and manifest.max_seq_length > 0
        and manifest.padding_side in ("left", "right")
    )


def check_files(folder: str | os.PathLike[str], graph: Graph, names: Collection[str] | None = None) -> None:
    """Compare a graph's files, or some, with their sizes and checksums: a damaged one may give wrong numbers."""
    for name in graph.files if names is None else graph.files.keys() & set(names):
        path, expected = Path(folder, name), graph.files[name]
        if not path.is_file():
            raise InputError(f"{path} is missing: export the model again.")
        if (size := path.stat().st_size) != expected["bytes"]:
            raise InputError(f"{path} is damaged: {size:,} bytes instead of {expected['bytes']:,}; export it again.")
        if sha256(path) != expected["sha256"]:
            raise InputError(f"{path} is damaged: its SHA-256 is not the one in {MANIFEST}; export the model again.")

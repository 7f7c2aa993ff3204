"""Embeds 100 texts with other software, from one exported folder, and compares with ``EdgeEncoder``.

    distilface export distilface-mini --output EXPORT --format onnx,openvino --torch-weights
    python results/hosts/hosts.py EXPORT WORK results/hosts/hosts.csv             # the reference, first
    OTHER/python results/hosts/hosts.py EXPORT WORK results/hosts/hosts.csv fastembed langchain ...
    cd tests/export/javascript && npm ci --ignore-scripts
    node embed.mjs PARENT_OF_EXPORT/ EXPORT fp32 WORK/sentences.json WORK/transformers.js.json
    python results/hosts/hosts.py EXPORT WORK results/hosts/hosts.csv transformers.js

A host is run in an environment of its own, since not all of them agree on versions.
"""

from __future__ import annotations

import argparse
import csv
import json
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable


def stock(folder: str, backend: str) -> Callable[[list[str]], Any]:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(folder, backend=backend, device="cpu").encode


def fastembed(folder: str) -> Callable[[list[str]], Any]:
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    name = "local/export"
    TextEmbedding.add_custom_model(name, PoolingType.MEAN, True, ModelSource(hf=name), 384, "onnx/model.onnx")
    model = TextEmbedding(name, specific_model_path=folder)
    return lambda texts: list(model.embed(texts))


def langchain(folder: str) -> Callable[[list[str]], Any]:
    from langchain_huggingface import HuggingFaceEmbeddings

    return HuggingFaceEmbeddings(model_name=folder, model_kwargs={"device": "cpu"}).embed_documents


def llamaindex(folder: str) -> Callable[[list[str]], Any]:
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    return HuggingFaceEmbedding(model_name=folder, device="cpu").get_text_embedding_batch


def chroma(folder: str) -> Callable[[list[str]], Any]:
    from chromadb.utils.embedding_functions import SentenceTransformerEmbeddingFunction

    return SentenceTransformerEmbeddingFunction(model_name=folder, device="cpu")


def lancedb(folder: str) -> Callable[[list[str]], Any]:
    from lancedb.embeddings import get_registry

    return get_registry().get("sentence-transformers").create(name=folder, device="cpu").generate_embeddings


def txtai(folder: str) -> Callable[[list[str]], Any]:
    from txtai import Embeddings

    return Embeddings(path=folder, gpu=False).batchtransform


HOSTS: dict[str, tuple[str, Callable[[str], Callable[[list[str]], Any]]]] = {
    "SentenceTransformer, torch": ("sentence-transformers", lambda folder: stock(folder, "torch")),
    "SentenceTransformer, onnx": ("optimum-onnx", lambda folder: stock(folder, "onnx")),
    "SentenceTransformer, openvino": ("optimum-intel", lambda folder: stock(folder, "openvino")),
    "fastembed": ("fastembed", fastembed),
    "langchain": ("langchain-huggingface", langchain),
    "llamaindex": ("llama-index-embeddings-huggingface", llamaindex),
    "chroma": ("chromadb", chroma),
    "lancedb": ("lancedb", lancedb),
    "txtai": ("txtai", txtai),
}


def reference(folder: str, work: Path) -> None:
    from distilface_st import EdgeEncoder
    from distilface_st.datasets.python_docs import python_sentences

    known = python_sentences(2000)
    joined = [" ".join(known[start : start + size]) for start, size in ((0, 3), (3, 6), (9, 20))]
    texts = [*known[:1940:20], "hello", "über Straßen, 漢字 🙂", *joined][-100:]
    work.mkdir(parents=True, exist_ok=True)
    (work / "sentences.json").write_text(json.dumps(texts), encoding="utf-8")
    np.save(work / "reference.npy", EdgeEncoder(folder, "onnxruntime").encode(texts, normalize_embeddings=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("work", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("hosts", nargs="*", help=f"{', '.join(HOSTS)}, or the name of a JSON file in WORK.")
    given = parser.parse_args()
    if not given.hosts:
        return reference(given.folder, given.work)
    texts = json.loads((given.work / "sentences.json").read_text(encoding="utf-8"))
    expected = np.load(given.work / "reference.npy")
    for name in given.hosts:
        if name in HOSTS:
            package, opened = HOSTS[name]
            found, made_by = np.asarray(opened(given.folder)(texts), dtype=np.float64), version(package)
        else:
            found, made_by = np.array(json.loads((given.work / f"{name}.json").read_text(encoding="utf-8"))), ""
        cosines = (found * expected).sum(axis=1) / np.linalg.norm(found, axis=1)
        row = {"host": name, "version": made_by, "texts": len(texts), "lowest_cosine": round(float(cosines.min()), 6)}
        is_new = not given.output.exists()
        with given.output.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, row, lineterminator="\n")
            if is_new:
                writer.writeheader()
            writer.writerow(row)
        print(row)
    return None


if __name__ == "__main__":
    main()

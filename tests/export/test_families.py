"""Every family of encoders in every format and precision, each traced once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import transformers

from distilface_st import EdgeEncoder, build_model
from distilface_st.export.export_model import FORMATS
from distilface_st.export.folder import new_manifest, save_tokenizer, text_batches
from distilface_st.export.graph_format import GraphSpec
from distilface_st.export.sentence_graph import SentenceGraph
from distilface_st.inference.manifest import Graph, describe_files

from ..helpers import random_sentences

for _package in ("onnx", "onnxruntime", "onnxscript", "openvino", "nncf"):
    pytest.importorskip(_package)

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 80,
}
FAMILIES = {
    "Bert": SIZES,
    "DistilBert": {"dim": 32, "n_layers": 1, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 80},
    "Roberta": SIZES | {"pad_token_id": 0},
    "XLMRoberta": SIZES | {"pad_token_id": 0},
    "MPNet": SIZES | {"pad_token_id": 0},
    "Electra": SIZES | {"embedding_size": 32},
    "Albert": SIZES | {"embedding_size": 32, "num_hidden_layers": 2},  # which share their weights
    "DebertaV2": SIZES
    | {
        "relative_attention": True,
        "position_buckets": 16,
        "pos_att_type": ["p2c", "c2p"],
        "norm_rel_ebd": "layer_norm",
    },
    "ModernBert": SIZES
    | {f"{name}_token_id": number for number, name in enumerate(["pad", "unk", "cls", "sep", "bos", "eos"])},
    "GPT2": {"n_embd": 32, "n_layer": 1, "n_head": 4, "n_positions": 80},
}
PRECISIONS = {"fp32": 0.99999, "fp16": 0.999, "int8": 0.98, "int8 static": 0.9}
"""Each with the lowest cosine to the torch model that text may have."""


@pytest.fixture(scope="module", params=FAMILIES)
def model(request, tiny_encoder, tmp_path_factory):
    """A random model of a family."""
    folder = tmp_path_factory.mktemp(request.param)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_encoder)
    settings = {"vocab_size": len(tokenizer), "initializer_range": 0.2, **FAMILIES[request.param]}
    config = getattr(transformers, f"{request.param}Config")(**settings)
    getattr(transformers, f"{request.param}Model")(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return build_model(folder, layers="last", device="cpu")


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
def test_every_family_is_exported_in_every_precision(model, tmp_path, kind):
    import onnx

    sentences = random_sentences(40)
    expected = model.encode(sentences)
    graph = SentenceGraph(model)
    manifest = new_manifest(model, graph, "int8", "dynamic", None)
    save_tokenizer(model, tmp_path, manifest)
    batches = text_batches(tmp_path, manifest, random_sentences(40, seed=1))
    built = FORMATS[kind](GraphSpec(graph, "fp32", manifest.max_seq_length))
    sizes = {}
    for name, least in PRECISIONS.items():
        precision, _, static = name.partition(" ")
        built.spec = replace(built.spec, precision=precision, static=bool(static), batches=batches, reduce_range=True)
        built.write(tmp_path)  # which refuses what is not the model
        described = Graph(describe_files(tmp_path, built.files), built.options)
        replace(manifest, graphs={built.runtime: described}).write(tmp_path)
        options = {"INFERENCE_PRECISION_HINT": "f32"} if kind == "openvino" else {}
        encoder = EdgeEncoder(tmp_path, options=options)
        found = encoder.encode(sentences)
        one_by_one = encoder.encode(sentences[::4], batch_size=1, normalize_embeddings=True)
        together = found[::4] / np.linalg.norm(found[::4], axis=1, keepdims=True)
        np.testing.assert_allclose(together, one_by_one, atol=1e-4, err_msg=name)
        cosines = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
        assert cosines.min() > least, name
        sizes[name] = described.size
        if (kind, name) == ("onnx", "int8"):
            tensors = onnx.load(str(tmp_path / "onnx/model_quantized.onnx")).graph.initializer
            large = {
                tensor.name for tensor in tensors if np.prod(tensor.dims) >= 1024 and tensor.data_type != tensor.INT8
            }
            assert not {name for name in large if "rel_embeddings" not in name}  # which DeBERTa adds to and normalizes
    assert sizes["int8"] < sizes["fp16"] < sizes["fp32"]

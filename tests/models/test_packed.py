from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from distilface_st import EdgeEncoder, InputError, build_model, load_model, save_model
from distilface_st.inference.manifest import WEIGHTS, describe_files, read_manifest
from distilface_st.models.packed import is_packed
from distilface_st.modules import OnnxEncoder

for _package in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(_package)

SENTENCES = ["a small cat", "", "The government of the state was at war, and people walked.", "red", "🙂 \0 漢字"]

WITHOUT_TORCH = """
import sys
for name in ("torch", "transformers", "sentence_transformers", "safetensors", "onnx", "openvino"):
    sys.modules[name] = None
from distilface_st.edge import EdgeEncoder
print(EdgeEncoder(sys.argv[1]).encode(["a cat", "a dog"]).shape)
"""

WITHOUT_ONNX = """
import sys
for name in ("onnx", "onnxruntime", "onnxscript"):
    sys.modules[name] = None
from distilface_st import load_model
print(load_model(sys.argv[1], device="cpu").encode(["a cat", "a dog"], show_progress_bar=False).shape)
"""


@pytest.fixture
def copied(packed, tmp_path) -> Path:
    return Path(shutil.copytree(packed, tmp_path / "copy"))


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def vouch(folder: Path) -> None:
    """Make the manifest agree with whatever lies in the folder now."""
    manifest = read_manifest(folder)
    graph = manifest.graphs["onnxruntime"]
    files = describe_files(folder, list(graph.files))
    replace(manifest, graphs={"onnxruntime": replace(graph, files=files)}).write(folder)


def test_without_a_runtime_it_opens_in_torch_and_with_one_as_a_graph(tiny_student, packed):
    trainable = load_model(packed, device="cpu")
    assert [type(module).__name__ for module in trainable] == ["Transformer", "Pooling", "Dense", "Normalize"]
    assert isinstance(trainable[2].activation_function, torch.nn.Tanh)
    assert trainable.max_seq_length == tiny_student.max_seq_length
    for options in ({"runtime": "onnxruntime"}, {"threads": 1}):
        ran = load_model(packed, **options)
        assert isinstance(ran[0], OnnxEncoder)
        assert ran.prompts == trainable.prompts == tiny_student.prompts
        assert cosines(ran.encode(SENTENCES), trainable.encode(SENTENCES)).min() > 0.98


def test_what_opens_in_torch_can_be_trained(packed):
    from sentence_transformers.util import batch_to_device

    model = load_model(packed, device="cpu")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    features = batch_to_device(model.preprocess(["a cat", "the war of the king"]), torch.device("cpu"))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.train()(features)["sentence_embedding"][0, 0].backward()
    optimizer.step()
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert {
        "0.model.embeddings_project.weight",
        "2.linear.weight",
        "0.model.embeddings.word_embeddings.weight",
    } <= changed
    assert torch.equal(load_model(packed, device="cpu").state_dict()["2.linear.weight"], before["2.linear.weight"])


def test_a_new_pooling_is_built_on_a_packed_encoder(packed):
    model = build_model(packed, layers="last_two", device="cpu")
    assert model.encode(SENTENCES).shape == (5, 48)


def test_saved_again_it_opens_in_plain_sentence_transformers(packed, tmp_path):
    model = load_model(packed, device="cpu")
    save_model(model, tmp_path / "saved")
    assert not is_packed(tmp_path / "saved")
    np.testing.assert_allclose(
        SentenceTransformer(str(tmp_path / "saved"), device="cpu").encode(SENTENCES), model.encode(SENTENCES), atol=1e-6
    )


def test_the_graph_saved_alone_keeps_its_weights(packed, tmp_path):
    model = load_model(packed, runtime="onnxruntime")
    save_model(model, tmp_path / "graph")
    assert not is_packed(tmp_path / "graph")
    again = load_model(tmp_path / "graph")
    assert isinstance(again[0], OnnxEncoder)
    np.testing.assert_array_equal(again.encode(SENTENCES), model.encode(SENTENCES))


def test_other_packages_do_not_take_the_integers_for_weights(packed):
    from transformers import AutoModel

    with pytest.raises((OSError, ValueError)):
        SentenceTransformer(str(packed), device="cpu")
    with pytest.raises((OSError, ValueError)):
        AutoModel.from_pretrained(packed)


@pytest.mark.parametrize(("code", "shape"), [(WITHOUT_TORCH, "(2, 40)"), (WITHOUT_ONNX, "(2, 40)")])
def test_each_side_opens_without_what_the_other_needs(packed, code, shape):
    done = subprocess.run([sys.executable, "-c", code, packed], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == shape, done.stderr


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "remove"])
@pytest.mark.parametrize("opened", [EdgeEncoder, load_model])
def test_damaged_weights_are_refused(copied, damage, opened):
    path = copied / WEIGHTS
    content = bytearray(path.read_bytes())
    if damage == "truncate":
        path.write_bytes(content[:-100])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "remove":
        path.unlink()
    else:
        content[-1] ^= 1
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"model\.safetensors is (damaged|missing)"):
        opened(copied)


def test_weights_that_are_none_are_refused_even_if_the_manifest_vouches_for_them(copied):
    from safetensors.numpy import save_file

    for content in (b"", b"\xff" * 200, (200).to_bytes(8, "little") + b"{" * 200):
        (copied / WEIGHTS).write_bytes(content)
        vouch(copied)
        with pytest.raises(InputError, match=r"model\.safetensors is damaged"):
            load_model(copied)
        with pytest.raises(InputError, match="cannot open"):
            EdgeEncoder(copied)
    save_file({"strange": np.zeros(3, np.float32)}, copied / WEIGHTS)
    vouch(copied)
    with pytest.raises(InputError, match="does not hold the weights"):
        load_model(copied)


@pytest.mark.parametrize("name", ["tokenizer.json", "encoder/config.json", "modules.json"])
def test_a_folder_that_is_not_whole_is_refused(copied, name):
    (copied / name).unlink()
    with pytest.raises(InputError):
        load_model(copied, device="cpu")


def test_a_manifest_may_name_no_other_file_and_openvino_none(copied):
    path = copied / "export.json"
    manifest = json.loads(path.read_text())
    (entry,) = manifest["graphs"].values()
    graph, weights = entry["files"].values()
    for graphs in (
        {"onnxruntime": {"files": {"model.onnx": graph, "../model.safetensors": weights}}},
        {"onnxruntime": {"files": {"model.onnx": graph, "other.safetensors": weights}}},
        {"onnxruntime": {"files": {"model.safetensors": weights, "model.onnx": graph}}},
        {"onnxruntime": {"files": {"model.safetensors": weights}}},
        {"openvino": {"files": {"openvino.xml": graph, "openvino.bin": graph, "model.safetensors": weights}}},
    ):
        path.write_text(json.dumps({**manifest, "graphs": graphs}))
        for opened in (EdgeEncoder, load_model):
            with pytest.raises(InputError, match="is damaged"):
                opened(copied)


def test_a_packed_model_becomes_a_plain_folder_in_one_step(packed, tiny_student, tmp_path):
    save_model(packed, tmp_path / "plain")
    plain = SentenceTransformer(str(tmp_path / "plain"), device="cpu")
    np.testing.assert_array_equal(plain.encode(["a cat"]), load_model(packed, device="cpu").encode(["a cat"]))

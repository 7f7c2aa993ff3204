from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from distilface_st import EdgeEncoder, InputError, save_model, shipped_model
from distilface_st.serving import open_encoder
from distilface_st.serving.encoders import ExportedEncoder, TorchEncoder

TEXTS = ["the cat and the dog", "a", "she walked to the old city and read a big book", "naïve"]


@pytest.fixture(scope="module")
def saved(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "my-model"
    save_model(tiny_model, folder)
    return folder


@pytest.mark.parametrize("kind", ["torch", "exported"])
def test_an_encoder_gives_unit_rows_and_counts_what_it_reads(kind, saved, exported, tiny_model) -> None:
    encoder = open_encoder(saved if kind == "torch" else exported, device="cpu" if kind == "torch" else None)
    assert isinstance(encoder, TorchEncoder if kind == "torch" else ExportedEncoder)
    assert encoder.name == ("my-model" if kind == "torch" else "export")
    assert (encoder.dimension, encoder.max_tokens, encoder.query_prompt) == (32, 64, "query")
    for prompt_name, prompt in ((None, ""), ("query", tiny_model.prompts["query"])):
        rows = encoder.encode(TEXTS, prompt_name)
        assert rows.dtype == np.float32
        expected = tiny_model.encode(TEXTS, prompt=prompt, normalize_embeddings=True)
        close = 1e-4 if kind == "torch" else 0.02  # some runtimes compute in bfloat16
        np.testing.assert_allclose(rows, expected, atol=close)
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(encoder.encode(TEXTS[:1], prompt_name), expected[:1], atol=close)
        tokenized = tiny_model.tokenizer([prompt + text for text in TEXTS])["input_ids"]
        assert encoder.count_tokens(TEXTS, prompt_name) == [len(ids) for ids in tokenized]
    assert encoder.count_tokens(["cat " * 500]) == [64]


@pytest.mark.parametrize("kind", ["torch", "exported"])
def test_counting_and_encoding_may_happen_at_once(kind, saved, exported) -> None:
    encoder = open_encoder(saved if kind == "torch" else exported, device="cpu" if kind == "torch" else None)
    expected, counts = encoder.encode(TEXTS), encoder.count_tokens(TEXTS)
    with ThreadPoolExecutor(4) as pool:
        encoded = [pool.submit(encoder.encode, TEXTS) for _ in range(10)]
        counted = [pool.submit(encoder.count_tokens, TEXTS * 20) for _ in range(10)]
        assert all(future.result() == counts * 20 for future in counted)
        for future in encoded:
            np.testing.assert_allclose(future.result(), expected, atol=1e-6)


def test_a_shipped_model_is_served_by_its_name() -> None:
    for model in ("micro", "distilface-micro", shipped_model("micro")):
        encoder = open_encoder(model)
        assert encoder.name == "distilface-micro"
        assert isinstance(encoder.model, EdgeEncoder)


def test_serving_an_exported_model_imports_no_torch() -> None:
    program = (
        "import sys; from distilface_st.serving import open_service; service = open_service('micro'); service.close();"
        "print([name for name in ('torch', 'transformers', 'sentence_transformers') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_model_that_is_not_there_is_said_so(tmp_path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        open_encoder(tmp_path / "nothing")

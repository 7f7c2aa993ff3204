from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding

from distilface_st import EdgeEncoder, InputError, save_model, shipped_model
from distilface_st.models.encoders import open_encoder, own_tokenizer
from distilface_st.serving import ServerSettings, open_service
from distilface_st.serving.encoder import ServedEncoder, display_name
from distilface_st.serving.service import Service

from .fakes import fake_service, serving

TEXTS = ["the cat and the dog", "a", "she walked to the old city and read a big book", "naïve"]


@pytest.fixture(scope="module")
def saved(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "my-model"
    save_model(tiny_model, folder)
    return folder


@pytest.fixture(scope="module", params=["torch", "exported"])
def encoder(request, saved, exported) -> ServedEncoder:
    in_torch = request.param == "torch"
    folder = saved if in_torch else exported
    encoder = ServedEncoder(open_encoder(folder, device="cpu" if in_torch else None), display_name(folder))
    assert isinstance(encoder.model, EdgeEncoder) != in_torch
    assert encoder.name == ("my-model" if in_torch else "export")
    return encoder


def test_an_encoder_gives_unit_rows_and_counts_what_it_reads(encoder, tiny_model) -> None:
    assert (encoder.dimension, encoder.max_tokens, encoder.query_kind) == (32, 64, "query")
    for kind, prompt in ((None, ""), ("query", tiny_model.prompts["query"])):
        rows = encoder.encode(TEXTS, kind)
        assert rows.dtype == np.float32
        expected = tiny_model.encode(TEXTS, prompt=prompt, normalize_embeddings=True)
        close = 0.02 if isinstance(encoder.model, EdgeEncoder) else 1e-4  # some runtimes compute in bfloat16
        np.testing.assert_allclose(rows, expected, atol=close)
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(encoder.encode(TEXTS[:1], kind), expected[:1], atol=close)
        tokenized = tiny_model.tokenizer([prompt + text for text in TEXTS])["input_ids"]
        assert encoder.count_tokens(TEXTS, kind) == [len(ids) for ids in tokenized]
    assert encoder.count_tokens(["cat " * 500]) == [64]


def test_any_sentence_transformer_is_served(odd_model) -> None:
    served = ServedEncoder(odd_model, "odd")
    long = "the old king of the north " * 40
    counts = served.count_tokens([long, "cat"])
    special = 0 if isinstance(odd_model[0], StaticEmbedding) else 2
    assert counts == [64 if served.max_tokens else 240 + special, 1 + special]
    np.testing.assert_allclose(served.encode([long, "cat"])[1:], served.encode(["cat"]), atol=1e-5)


def test_counting_and_encoding_may_happen_at_once(encoder) -> None:
    expected, counts = encoder.encode(TEXTS), encoder.count_tokens(TEXTS)
    with ThreadPoolExecutor(4) as pool:
        encoded = [pool.submit(encoder.encode, TEXTS) for _ in range(10)]
        counted = [pool.submit(encoder.count_tokens, TEXTS * 20) for _ in range(10)]
        assert all(future.result() == counts * 20 for future in counted)
        for future in encoded:
            np.testing.assert_allclose(future.result(), expected, atol=1e-6)


def test_a_static_model_says_that_it_has_no_limit(tiny_model) -> None:
    tokenizer = own_tokenizer(tiny_model)
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=8)], device="cpu")
    with serving(Service(ServedEncoder(model, "static"), None, ServerSettings())) as http:
        assert http.get("/info").json()["max_tokens"] is None
        ids = tokenizer.encode(TEXTS[0], add_special_tokens=False).ids
        answers = [http.post("/v1/embeddings", json={"input": asked}).json() for asked in (TEXTS[0], ids)]
        assert answers[0] == answers[1]
        assert answers[0]["usage"]["total_tokens"] == len(ids)


def test_an_idle_connection_is_closed_after_the_time_set() -> None:
    for seconds, kept in ((0.1, False), (30, True)):
        with serving(fake_service(keep_alive=seconds)) as http:
            connection = HTTPConnection(http.base_url.host, http.base_url.port, timeout=1)
            connection.request("GET", "/health")
            connection.getresponse().read()
            if kept:
                with pytest.raises(TimeoutError):
                    connection.sock.recv(1)
            else:
                assert connection.sock.recv(1) == b""
            connection.close()


def test_a_shipped_model_is_served_by_its_name() -> None:
    for model in ("micro", "distilface-micro", shipped_model("micro")):
        assert display_name(model) == "distilface-micro"
        assert isinstance(open_encoder(model), EdgeEncoder)
    others = [display_name(model) for model in ("runs/first/model/", "mini", "intfloat/e5-small-v2")]
    assert others == ["model", "distilface-mini", "intfloat/e5-small-v2"]


def test_serving_an_exported_model_imports_no_torch() -> None:
    program = (
        "import sys; from distilface_st.serving import open_service; service = open_service('micro'); service.close();"
        "print([name for name in ('torch', 'transformers', 'sentence_transformers') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_model_that_is_not_there_is_said_so(tmp_path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        open_service(tmp_path / "nothing")

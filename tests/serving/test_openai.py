"""The server as OpenAI's own client sees it."""

from __future__ import annotations

import base64
import struct
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import openai
import pytest

from distilface_st import EdgeEncoder, shipped_model

from .fakes import FakeEncoder, fake_service, serving

TEXTS = ["It is sunny.", "He drove to work.", "naïve café 🚲"]


def client(address: str, key: str = "unused") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0, timeout=20)


@pytest.fixture(scope="module")
def micro_encoder() -> EdgeEncoder:
    return EdgeEncoder(shipped_model("micro"), threads=1)


def test_embeddings_are_the_models_own_of_length_1(micro, micro_encoder) -> None:
    answer = client(micro).embeddings.create(model="distilface-micro", input=TEXTS)
    rows = np.array([entry.embedding for entry in answer.data])
    assert [entry.index for entry in answer.data] == [0, 1, 2]
    assert answer.model == "distilface-micro"
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(rows, micro_encoder.encode(TEXTS, normalize_embeddings=True), atol=1e-5)


def test_a_string_gives_one_embedding(micro, micro_encoder) -> None:
    answer = client(micro).embeddings.create(model="distilface-micro", input=TEXTS[0], encoding_format="float")
    expected = micro_encoder.encode(TEXTS[0], normalize_embeddings=True)
    np.testing.assert_allclose(answer.data[0].embedding, expected, atol=1e-6)


def test_base64_is_little_endian_float32_and_equals_float(micro) -> None:
    asked = {"input": TEXTS[:1], "model": "distilface-micro"}
    as_base64 = httpx.post(f"{micro}/v1/embeddings", json={**asked, "encoding_format": "base64"}).json()
    as_float = httpx.post(f"{micro}/v1/embeddings", json={**asked, "encoding_format": "float"}).json()
    raw = base64.b64decode(as_base64["data"][0]["embedding"])
    numbers = struct.unpack(f"<{len(raw) // 4}f", raw)
    assert list(numbers) == as_float["data"][0]["embedding"]
    assert as_base64["usage"] == as_float["usage"]


def test_usage_counts_the_tokens_that_the_model_reads(micro) -> None:
    tokenizer = EdgeEncoder(shipped_model("micro"))._tokenizer
    answer = client(micro).embeddings.create(model="distilface-micro", input=[*TEXTS, "word " * 3000])
    expected = sum(len(tokenizer.ids_of_one(text)) for text in TEXTS) + tokenizer.max_seq_length
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == expected


def test_dimensions_keeps_the_first_and_scales_to_length_1(micro, micro_encoder) -> None:
    answer = client(micro).embeddings.create(model="distilface-micro", input=TEXTS[:1], dimensions=16)
    row = np.array(answer.data[0].embedding)
    first = micro_encoder.encode(TEXTS[0])[:16]
    np.testing.assert_allclose(row, first / np.linalg.norm(first), atol=1e-5)


def test_the_model_may_be_left_out(micro) -> None:
    assert httpx.post(f"{micro}/v1/embeddings", json={"input": "a"}).json()["model"] == "distilface-micro"


def test_models_are_listed(micro) -> None:
    assert [model.id for model in client(micro).models.list()] == ["distilface-micro"]
    assert client(micro).models.retrieve("distilface-micro").id == "distilface-micro"


def test_an_unknown_model_is_404(micro) -> None:
    for call in (
        lambda: client(micro).embeddings.create(model="text-embedding-3-small", input="a"),
        lambda: client(micro).models.retrieve("some/other"),
    ):
        with pytest.raises(openai.NotFoundError) as refused:
            call()
        assert refused.value.code == "model_not_found"
        assert refused.value.type == "invalid_request_error"


@pytest.mark.parametrize("tokens", [[1, 2, 3], [[1, 2], [3]]])
def test_token_arrays_are_refused(micro, tokens) -> None:
    with pytest.raises(openai.BadRequestError, match="tokens are not supported: send text") as refused:
        client(micro).embeddings.create(model="distilface-micro", input=tokens)
    assert refused.value.param == "input"


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        ({"input": ""}, "input", "empty"),
        ({"input": ["a", ""]}, "input", "empty"),
        ({"input": []}, "input", "empty"),
        ({"input": None}, "input", "a string or a list"),
        ({"input": [True]}, "input", "a string or a list"),
        ({}, "input", "required"),
        ({"input": "a", "dimensions": 0}, "dimensions", "greater"),
        ({"input": "a", "dimensions": 100_000}, "dimensions", "384"),
        ({"input": "a", "dimensions": True}, "dimensions", "integer"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format", "base64"),
        ({"input": ["a"] * 2049}, "input", "2048"),
        ({"input": "a" * 100_001}, "input", "100,000"),
        ([], None, "JSON object"),
    ],
)
def test_a_wrong_request_is_400_in_openais_shape(micro, body, param, said) -> None:
    answer = httpx.post(f"{micro}/v1/embeddings", json=body)
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param
    assert said in error["message"]


@pytest.mark.parametrize(
    "raw",
    [
        b'{"input": "\\ud800"}',
        b'{"input": ["a", "\\udfff b"]}',
        b'{"input": "a", "model": "\\ud800"}',
        b'{"input": "a", "user": "\\ud800"}',
        b'{"input": "a", "encoding_format": "\\ud800"}',
        b'{"input": "a", "\\ud800": 1}',
        b'{"input": "\xff"}',
        b'{"input": "a"',
        b'{"input": NaN}',
        b'{"input": "a", "dimensions": 1e400}',
        b'{"input": "a", "dimensions": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b"",
    ],
)
def test_what_is_no_proper_json_or_unicode_is_no_500(micro, raw) -> None:
    answer = httpx.post(f"{micro}/v1/embeddings", content=raw, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()


def test_concurrent_clients_share_batches() -> None:
    encoder = FakeEncoder(seconds=0.02)
    service = fake_service(encoder)
    barrier = threading.Barrier(32)

    def work(number: int) -> bool:
        barrier.wait(20)
        expected = encoder_row(f"text {number}")
        with httpx.Client(base_url=address, timeout=20) as http:
            answers = [http.post("/v1/embeddings", json={"input": f"text {number}"}) for _ in range(4)]
        return all(np.allclose(answer.json()["data"][0]["embedding"], expected) for answer in answers)

    with serving(service) as address, ThreadPoolExecutor(32) as pool:
        assert all(pool.map(work, range(32)))
    assert sum(map(len, encoder.calls)) == 128
    assert len(encoder.calls) < 64


def encoder_row(text: str) -> np.ndarray:
    return FakeEncoder().encode([text])[0]

"""The server as OpenAI's own client sees it."""

from __future__ import annotations

import base64
import struct
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openai
import pytest

from distilface_st import EdgeEncoder, shipped_model

from .fakes import FakeEncoder, connect, fake_service, serving, vector

TEXTS = ["It is sunny.", "He drove to work.", "naïve café 🚲"]


@pytest.fixture(scope="module")
def client(micro) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{micro.base_url}/v1", api_key="unused", max_retries=0, http_client=micro)


@pytest.fixture(scope="module")
def micro_encoder() -> EdgeEncoder:
    return EdgeEncoder(shipped_model("micro"), threads=1)


def test_embeddings_are_the_models_own_of_length_1(client, micro_encoder) -> None:
    answer = client.embeddings.create(model="distilface-micro", input=TEXTS)
    rows = np.array([entry.embedding for entry in answer.data])
    assert [entry.index for entry in answer.data] == [0, 1, 2]
    assert answer.model == "distilface-micro"
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(rows, micro_encoder.encode(TEXTS, normalize_embeddings=True), atol=1e-5)


def test_a_string_gives_one_embedding(client, micro_encoder) -> None:
    answer = client.embeddings.create(model="distilface-micro", input=TEXTS[0], encoding_format="float")
    expected = micro_encoder.encode(TEXTS[0], normalize_embeddings=True)
    np.testing.assert_allclose(answer.data[0].embedding, expected, atol=1e-6)


@pytest.mark.parametrize("texts", [TEXTS[:1], [f"text {number}" for number in range(70)]])
def test_base64_is_little_endian_float32_and_equals_float(micro, texts) -> None:
    asked = {"input": texts, "model": "distilface-micro"}
    as_base64 = micro.post("/v1/embeddings", json={**asked, "encoding_format": "base64"}).json()
    as_float = micro.post("/v1/embeddings", json={**asked, "encoding_format": "float"}).json()
    for written, floats in zip(as_base64["data"], as_float["data"], strict=True):
        raw = base64.b64decode(written["embedding"])
        numbers = struct.unpack(f"<{len(raw) // 4}f", raw)
        assert list(numbers) == floats["embedding"]
    assert as_base64["usage"] == as_float["usage"]


def test_usage_counts_the_tokens_that_the_model_reads(client, micro_encoder) -> None:
    answer = client.embeddings.create(model="distilface-micro", input=[*TEXTS, "word " * 3000])
    tokenizer = micro_encoder._tokenizer
    expected = sum(len(tokenizer.ids_of_one(text)) for text in TEXTS) + tokenizer.max_seq_length
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == expected


def test_dimensions_keeps_the_first_and_scales_to_length_1(client, micro_encoder) -> None:
    answer = client.embeddings.create(model="distilface-micro", input=TEXTS[:1], dimensions=16)
    row = np.array(answer.data[0].embedding)
    first = micro_encoder.encode(TEXTS[0])[:16]
    np.testing.assert_allclose(row, first / np.linalg.norm(first), atol=1e-5)


def test_the_model_may_be_left_out(micro) -> None:
    assert micro.post("/v1/embeddings", json={"input": "a"}).json()["model"] == "distilface-micro"


def test_models_are_listed(client) -> None:
    assert [model.id for model in client.models.list()] == ["distilface-micro"]
    assert client.models.retrieve("distilface-micro").id == "distilface-micro"


def test_an_unknown_model_is_404(client) -> None:
    for call in (
        lambda: client.embeddings.create(model="text-embedding-3-small", input="a"),
        lambda: client.models.retrieve("some/other"),
    ):
        with pytest.raises(openai.NotFoundError) as refused:
            call()
        assert refused.value.code == "model_not_found"
        assert refused.value.type == "invalid_request_error"


def test_token_ids_of_the_models_own_tokenizer_are_read(micro, micro_encoder) -> None:
    tokenizer = micro_encoder._tokenizer.tokenizer
    texts = [*TEXTS, "don't [UNK] C++"]
    ids = [tokenizer.encode(text).ids for text in texts]
    ids[1] = tokenizer.encode(texts[1], add_special_tokens=False).ids
    expected = micro.post("/v1/embeddings", json={"input": texts}).json()
    assert micro.post("/v1/embeddings", json={"input": ids}).json() == expected
    alone = [micro.post("/v1/embeddings", json={"input": one[0]}).json() for one in (ids, texts)]
    assert alone[0] == alone[1]
    assert len(alone[0]["data"]) == 1


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        ([30522], "out of range: the model has 20000 tokens"),
        ([[2**70]], "out of range"),
        ([-1], "out of range"),
        ([], "empty"),
        ([[]], "empty"),
        ([[1999], "a"], "send a string or a list of strings, or token ids"),
        ([1999, True], "send a string or a list of strings, or token ids"),
        ([[[1999]]], "send a string or a list of strings, or token ids"),
        ([2, 3], "no text of this model's own tokenizer"),  # special ones alone
        ([19001, 13512], "no text of this model's own tokenizer"),  # begins inside a word
    ],
)
def test_other_token_ids_are_refused(client, tokens, said) -> None:
    with pytest.raises(openai.BadRequestError, match=said) as refused:
        client.embeddings.create(model="distilface-micro", input=tokens)
    assert refused.value.param == "input"


def test_null_means_the_default(micro) -> None:
    nothing = dict.fromkeys(("model", "encoding_format", "dimensions", "user", "input_type"))
    plain = micro.post("/v1/embeddings", json={"input": "a"})
    assert micro.post("/v1/embeddings", json={"input": "a", **nothing}).json() == plain.json()


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", None, "multipart/form-data"])
@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/rerank", "/search"])
def test_json_sent_as_something_else_is_told_how(http, kind, path) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    answer = http.post(path, content=b'{"input": "a", "query": "a"}', headers=headers)
    assert answer.status_code == 400
    assert "sent with Content-Type: application/json" in answer.json()["error"]["message"]


def test_every_refusal_is_in_openais_shape(http) -> None:
    asked = [
        http.get("/v1/embeddings"),
        http.delete("/info"),
        http.get("/nothing"),
        http.get("/static/nothing"),
        http.get("/v1/models/%ff"),
        http.get("/map?n=null"),
        http.post("/v1/embeddings", content=b"x" * 200_000),
        http.post("/v1/embeddings", content=b"\x1f\x8b", headers={"Content-Encoding": "gzip"}),
    ]
    assert [answer.status_code for answer in asked] == [405, 405, 404, 404, 404, 400, 413, 400]
    for answer in asked:
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
        assert answer.json()["error"]["type"] == "invalid_request_error"


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
    answer = micro.post("/v1/embeddings", json=body)
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
    answer = micro.post("/v1/embeddings", content=raw, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()


def test_concurrent_clients_share_batches() -> None:
    encoder = FakeEncoder(seconds=0.02)
    service = fake_service(encoder)
    barrier = threading.Barrier(32)

    def work(number: int) -> bool:
        barrier.wait(20)
        expected = vector(f"text {number}")
        with connect(str(http.base_url)) as own:
            answers = [own.post("/v1/embeddings", json={"input": f"text {number}"}) for _ in range(4)]
        return all(np.allclose(answer.json()["data"][0]["embedding"], expected) for answer in answers)

    with serving(service) as http, ThreadPoolExecutor(32) as pool:
        assert all(pool.map(work, range(32)))
    assert sum(map(len, encoder.calls)) == 128
    assert len(encoder.calls) < 64

"""What the server refuses, and what it never tells."""

from __future__ import annotations

import io
import logging
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from distilface_st.serving.app import is_loopback
from distilface_st.serving.gate import path_label

from .fakes import FakeEncoder, FakeIndex, connect, fake_service, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "sésame"
WITH_KEY = {"Authorization": f"Bearer {KEY}".encode()}


def wait_until(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@contextmanager
def logged() -> Iterator[io.StringIO]:
    """What the server logs: a handler of our own, since other tests' libraries set the level of pytest's."""
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    logger = logging.getLogger("distilface_st.serving")
    logger.addHandler(handler)
    try:
        yield log
    finally:
        logger.removeHandler(handler)


def sample(http: httpx.Client, name: str, **labels: str) -> float:
    text = http.get("/metrics").text
    for family in text_string_to_metric_families(text):
        for found in family.samples:
            if found.name == name and labels.items() <= found.labels.items():
                return found.value
    return 0.0


@pytest.fixture(scope="module")
def locked() -> Iterator[httpx.Client]:
    with serving(fake_service(index=FakeIndex(["a", "b"]), api_keys=("other", KEY))) as http:
        yield http


def test_the_key_opens(locked) -> None:
    assert locked.post("/v1/embeddings", json={"input": "a"}, headers=WITH_KEY).status_code == 200
    assert locked.get("/info", headers={"Authorization": "bearer other"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer"}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic other"},
     {"Authorization": "Bearer other2"}],
)  # fmt: skip
def test_without_the_key_nothing_is_told(locked, headers) -> None:
    for path in ("/v1/models", "/info", "/metrics", "/map", "/nothing"):
        answer = locked.get(path, headers=headers)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "invalid_api_key"
    for path in ("/v1/embeddings", "/v1/rerank", "/search"):
        assert locked.post(path, json={"input": "a", "query": "a"}, headers=headers).status_code == 401


def test_the_page_and_health_need_no_key(locked) -> None:
    for path in ("/", "/static/app.js", "/health", "/ready", "/docs", "/openapi.json"):
        assert locked.get(path).status_code == 200, path


def test_the_description_tells_of_the_key(locked, http) -> None:
    schemes = [own.get("/openapi.json").json()["components"].get("securitySchemes", {}) for own in (locked, http)]
    assert [list(own) for own in schemes] == [["HTTPBearer"], []]


def test_no_page_loads_anything_from_elsewhere(locked) -> None:
    for path in ("/", "/docs"):
        answer = locked.get(path)
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert 'src="http' not in answer.text
    assert "POST /v1/embeddings" in locked.get("/docs").text


def test_a_large_body_is_413(http) -> None:
    answer = http.post("/v1/embeddings", json={"input": "a" * 200_000})
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "too_large"


def test_a_large_body_of_no_stated_length_is_413(http) -> None:
    answer = http.post("/v1/embeddings", content=(b" " * 50_000 for _ in range(4)))
    assert answer.status_code == 413


def test_a_body_up_to_the_limit_is_taken_however_it_comes(http) -> None:
    body = b'{"input": "a"}'.ljust(150_000)
    pieces = (body[start : start + 1000] for start in range(0, len(body), 1000))
    headers = {"Content-Type": "application/json"}
    assert http.post("/v1/embeddings", content=pieces, headers=headers).status_code == 200


def test_an_encoder_that_fails_is_a_500_that_tells_nothing_and_logs_no_text(http) -> None:
    with logged() as log:
        answer = http.post("/v1/embeddings", json={"input": "poison secret"})
    assert http.post("/v1/embeddings", json={"input": "fine"}).status_code == 200
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "server_error"
    assert not any(word in answer.text for word in ("Traceback", "RuntimeError", "poison", ".py"))
    assert "RuntimeError" in log.getvalue()
    assert "fakes.py" in log.getvalue()
    assert "secret" not in log.getvalue()


def test_texts_are_logged_where_asked_for() -> None:
    with serving(fake_service(log_text=True)) as http, logged() as log:
        http.post("/v1/embeddings", json={"input": "not secret"})
    assert "not secret" in log.getvalue()


def test_a_request_that_takes_too_long_is_504_and_leaves_the_queue(impatient) -> None:
    http, service, encoder = impatient
    encoder.calls.clear()
    encoder.go.clear()
    statuses = [http.post("/v1/embeddings", json={"input": text}).status_code for text in ("a", "b")]
    assert service.batcher.queued_texts == service.at_work == 0
    encoder.go.set()
    assert http.post("/v1/embeddings", json={"input": "c"}).status_code == 200
    assert statuses == [504, 504]
    assert encoder.calls == [["a"], ["c"]]


def test_a_body_that_never_ends_is_504(impatient) -> None:
    url = impatient[0].base_url
    with socket.create_connection((url.host, url.port), timeout=10) as connection:
        connection.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert b" 504 " in connection.recv(4096).split(b"\r\n")[0]


def test_a_client_that_goes_away_leaves_the_queue() -> None:
    encoder = FakeEncoder()
    service = fake_service(encoder)
    with serving(service) as http:
        encoder.go.clear()
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(http.post, "/v1/embeddings", json={"input": "busy"})
            assert encoder.started.wait(10)
            with pytest.raises(httpx.ReadTimeout):
                http.post("/v1/embeddings", json={"input": "gone"}, timeout=0.3)
            wait_until(lambda: service.batcher.queued_texts == 0)
            encoder.go.set()
            assert first.result(20).status_code == 200
        assert sample(http, "distilface_requests_total", path="/v1/embeddings", status="499") == 1
    assert encoder.calls == [["busy"]]


def test_overload_is_429_with_a_time_to_retry_and_loses_nothing_that_was_accepted() -> None:
    encoder = FakeEncoder(seconds=0.01)
    service = fake_service(encoder, queue_texts=8, batch_tokens=2)
    barrier = threading.Barrier(40)

    def work(number: int) -> list[httpx.Response]:
        with connect(str(http.base_url)) as own:
            barrier.wait(20)
            return [own.post("/v1/embeddings", json={"input": f"{number}-{turn}"}) for turn in range(4)]

    with serving(service) as http:
        with ThreadPoolExecutor(40) as pool:
            answers = [answer for own in pool.map(work, range(40)) for answer in own]
        taken = [answer for answer in answers if answer.status_code == 200]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert len(taken) + len(refused) == 160
        assert len(taken) >= 8
        assert len(refused) >= 8
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
        assert refused[0].json()["error"]["type"] == "rate_limit_error"
        assert sum(map(len, encoder.calls)) == len(taken)
        assert sample(http, "distilface_rejected_total", reason="overloaded") == len(refused)
        assert http.post("/v1/embeddings", json={"input": "after"}).status_code == 200


def test_more_requests_at_once_than_allowed_are_429() -> None:
    encoder = FakeEncoder()
    service = fake_service(encoder, max_requests=2)
    with serving(service) as http, ThreadPoolExecutor(2) as pool:
        encoder.go.clear()
        taken = [pool.submit(http.post, "/v1/embeddings", json={"input": "a"}) for _ in "ab"]
        wait_until(lambda: service.at_work == 2)
        assert http.post("/v1/embeddings", json={"input": "b"}).status_code == 429
        assert http.get("/health").status_code == 200
        encoder.go.set()
        assert [future.result(20).status_code for future in taken] == [200, 200]


def test_metrics_count_requests_batches_texts_and_tokens() -> None:
    with serving(fake_service()) as http:
        http.post("/v1/embeddings", json={"input": ["one two", "three"]})
        http.post("/v1/embeddings", json={"input": ""})
        http.get("/secret-path")
        assert sample(http, "distilface_requests_total", path="/v1/embeddings", status="200") == 1
        assert sample(http, "distilface_requests_total", path="/v1/embeddings", status="400") == 1
        assert sample(http, "distilface_requests_total", path="other", status="404") == 1
        assert sample(http, "distilface_request_seconds_count", path="/v1/embeddings") == 2
        assert sample(http, "distilface_texts_total") == 2
        assert sample(http, "distilface_tokens_total") == 3
        assert sample(http, "distilface_batch_texts_sum") == 2
        assert sample(http, "distilface_batch_requests_count") == 1
        assert sample(http, "distilface_queue_texts") == 0
        assert "secret" not in http.get("/metrics").text


def test_paths_that_do_not_exist_share_a_name_in_metrics_and_logs() -> None:
    paths = ("/search", "/v1/models/distilface-mini", "/static/app.js", "/wp-login.php")
    assert [path_label(path) for path in paths] == ["/search", "/v1/models/{model}", "/static", "other"]


def test_only_loopback_addresses_are_this_machines_own() -> None:
    own = {host: is_loopback(host) for host in ("localhost", "::1", "127.0.0.1", "0.0.0.0", "")}
    assert list(own.values()) == [True, True, True, False, False]


def test_head_is_get_without_the_body() -> None:
    with serving(fake_service()) as http:
        for path in ("/health", "/ready", "/v1/models", "/info"):
            answer = http.head(path)
            assert (answer.status_code, answer.content) == (200, b"")
            assert answer.headers["content-length"] == str(len(http.get(path).content))
        assert http.head("/v1/embeddings").status_code == 405

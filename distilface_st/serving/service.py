"""What a server is: its settings, one encoder behind its queue, perhaps an index, and what it counts."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, fields
from functools import lru_cache, partial
from importlib import metadata
from typing import TYPE_CHECKING, Any, TypeVar

import anyio.to_thread
import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ..errors import InputError
from .encoder import Batcher, display_name
from .schemas import MapResponse, Point

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..models.encoders import Kind
    from ..search import Hit, SearchIndex
    from .encoder import ServedEncoder

    _Result = TypeVar("_Result")

_COUNT_AT_ONCE = 4096
"""Characters that are tokenized on the event loop: less work than a change of thread."""

REFUSALS = {code: code for code in ("overloaded", "stopping", "too_large")} | {"invalid_api_key": "unauthorized"}
"""Codes of requests that are refused before any work, and what the metrics call them."""

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)


@dataclass(frozen=True)
class ServerSettings:
    """Keys, batching and limits of a server.

    Args:
        api_keys: Keys, any of which opens the server; none leaves it open.
        batching: Merge concurrent requests; otherwise each request runs the encoder alone.
        batch_tokens: Most tokens in a batch; a longer text is a batch of its own. A graphics card wants more.
        max_wait_ms: After a batch of several requests, wait at most this long for as many to come again. A request that
            comes later starts right away.
        queue_texts: Most texts that wait for the encoder; beyond them requests are refused with 429.
        queue_tokens: Most tokens that wait for the encoder. An empty queue takes any request.
        max_requests: Most requests at work at once.
        max_body_bytes: Largest body of a request.
        max_texts: Most texts of a request (OpenAI's limit by default).
        max_characters: Longest text. The model reads its first tokens only, see ``max_tokens`` of ``/info``.
        max_hits: Most hits of a search.
        max_map_points: Most points of a map.
        request_timeout: Seconds that a request may take, its body included.
        drain_timeout: Seconds that accepted requests are given when the server is told to stop.
        keep_alive: Seconds after which an idle connection is closed. A proxy that keeps connections for its clients
            must do so for a shorter time, or it meets closed ones.
        search_threads: Searches at work at once.
        log_text: Write texts into the log.

    Raises:
        InputError: A number that is too small, or an empty key.
    """

    api_keys: tuple[str, ...] = ()
    batching: bool = True
    batch_tokens: int = 1024
    max_wait_ms: float = 2.0
    queue_texts: int = 4096
    queue_tokens: int = 262_144
    max_requests: int = 1024
    max_body_bytes: int = 8 * 2**20
    max_texts: int = 2048
    max_characters: int = 100_000
    max_hits: int = 100
    max_map_points: int = 5000
    request_timeout: float = 60.0
    drain_timeout: float = 60.0
    keep_alive: float = 5.0
    search_threads: int = 32
    log_text: bool = False

    def __post_init__(self) -> None:
        if not all(key.strip() for key in self.api_keys):
            raise InputError("An API key is empty: give one, or none at all.")
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            least = 1 if isinstance(field.default, int) else 0
            if not least <= value < float("inf"):
                raise InputError(f"{field.name} is {value}: it must be a number of at least {least}.")


class Metrics:
    """What a server counts, for Prometheus, in a registry of its own. No metric holds any text."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter, histogram = partial(Counter, registry=self.registry), partial(Histogram, registry=self.registry)
        self.requests = counter("distilface_requests", "Requests answered.", ["path", "status"])
        self.request_seconds = histogram(
            "distilface_request_seconds", "Time to answer a request.", ["path"], buckets=_SECONDS
        )
        self.rejected = counter("distilface_rejected", "Requests refused before any work.", ["reason"])
        for reason in REFUSALS.values():
            self.rejected.labels(reason)
        self._batches = histogram("distilface_batch_seconds", "Time of a batch.", buckets=_SECONDS)
        self._batch_texts = histogram("distilface_batch_texts", "Texts in a batch.", buckets=_COUNTS)
        self._batch_requests = histogram("distilface_batch_requests", "Requests merged in a batch.", buckets=_COUNTS)
        self._texts = counter("distilface_texts", "Texts encoded.")
        self._tokens = counter("distilface_tokens", "Tokens encoded.")

    def on_batch(self, requests: int, texts: int, tokens: int, seconds: float) -> None:
        """Count a batch."""
        self._batches.observe(seconds)
        self._batch_texts.observe(texts)
        self._batch_requests.observe(requests)
        self._texts.inc(texts)
        self._tokens.inc(tokens)


class Service:
    """What the routes call: an encoder, its queue, the metrics, and perhaps an index, whose queries join the queue."""

    def __init__(self, encoder: ServedEncoder, index: SearchIndex | None, settings: ServerSettings) -> None:
        self.encoder, self.index, self.settings = encoder, index, settings
        self.metrics = Metrics()
        self.batcher = Batcher(encoder, settings, self.metrics.on_batch)
        self.stopping = False
        self.at_work = 0
        self._map = lru_cache(8)(self._draw_map)
        self._mapping = threading.Lock()
        self._search_threads = anyio.CapacityLimiter(settings.search_threads)
        if index is not None:
            index.encoder = QueryEncoder(self)
        gauge = partial(Gauge, registry=self.metrics.registry)
        texts = gauge("distilface_queue_texts", "Texts that wait for the encoder.")
        texts.set_function(lambda: self.batcher.queued_texts)
        tokens = gauge("distilface_queue_tokens", "Tokens that wait for the encoder.")
        tokens.set_function(lambda: self.batcher.queued_tokens)
        at_work = gauge("distilface_requests_at_work", "Requests accepted and not yet answered.")
        at_work.set_function(lambda: self.at_work)

    @property
    def ready(self) -> bool:
        """Whether new requests are taken."""
        return not self.stopping and self.batcher.alive

    def close(self) -> None:
        """Finish what was accepted, then stop the encoder's thread."""
        self.stopping = True
        self.batcher.close()
        self.batcher.join(self.settings.drain_timeout)

    async def embed(self, texts: Sequence[str], kind: Kind | None = None, unit: bool = True) -> tuple[np.ndarray, int]:
        """Embeddings, shape (texts, d), and how many tokens were read. Cancelling leaves the queue.

        They have length 1, or where ``unit`` is false that which the model gave them.
        """
        self.batcher.check_room(len(texts))
        if sum(map(len, texts)) <= _COUNT_AT_ONCE:
            tokens = self.encoder.count_tokens(texts, kind)
        else:
            tokens = await anyio.to_thread.run_sync(self.encoder.count_tokens, texts, kind)
        rows = await asyncio.wrap_future(self.batcher.submit(texts, tokens, kind, unit))
        return rows, sum(tokens)

    async def rerank(self, query: str, documents: Sequence[str]) -> tuple[np.ndarray, int]:
        """How similar a query is to documents, by the model's own similarity function, and how many tokens were read.

        Shape (documents,), float64, rounded so that equal documents, whose embeddings may differ in the last bit, tie.
        """
        encoder = self.encoder
        asked, of_query = await self.embed([query], encoder.query_kind, encoder.compares_units)
        rows, of_documents = await self.embed(documents, encoder.document_kind, encoder.compares_units)
        scores = np.asarray(encoder.similarity(asked, rows), dtype=np.float64)[0]
        return scores.round(6), of_query + of_documents

    async def search(self, query: str, k: int, filter: dict[str, Any] | None, hybrid: bool) -> list[Hit]:  # noqa: A002
        """The best ``k`` documents for a query."""
        assert self.index is not None
        self.batcher.check_room(1)
        search = partial(self.index.search, [query], k=k, filter=filter, hybrid=hybrid, highlight=True)
        return (await self._in_thread(search))[0]

    async def map(self, n: int) -> bytes:
        """At most ``n`` passages of the index with their places in the plane, as JSON."""

        def draw() -> bytes:
            with self._mapping:  # a map that several ask for is drawn once
                return self._map(n)

        return await self._in_thread(draw)

    async def info(self) -> dict[str, Any]:
        """What ``/info`` answers."""
        index = None
        if self.index is not None:
            index = dict(await self._in_thread(self.index.info))
            index["model"] = display_name(index["model"])
        return {
            "model": self.encoder.name,
            "dimension": self.encoder.dimension,
            "max_tokens": self.encoder.max_tokens,
            "version": metadata.version("distilface-st"),
            "fields": index.pop("fields", {}) if index else {},
            "unique": index.pop("unique", []) if index else [],
            "index": index,
        }

    async def _in_thread(self, call: Callable[[], _Result]) -> _Result:
        return await anyio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=self._search_threads)

    def _draw_map(self, n: int) -> bytes:
        assert self.index is not None
        hits, embeddings = self.index.sample(n)
        places = pca_2d(embeddings).round(5).tolist()
        points = [Point(x=x, y=y, **hit.as_dict()) for hit, (x, y) in zip(hits, places, strict=True)]
        return MapResponse(points=points).model_dump_json().encode()


@dataclass(frozen=True)
class QueryEncoder:
    """The queue as the index sees it: an encoder that blocks, so that queries share batches with all else."""

    service: Service

    def encode(self, inputs: Sequence[str], **_: Any) -> np.ndarray:
        """Embeddings of queries, of length 1, shape (inputs, d), whatever other options say."""
        service, kind = self.service, self.service.encoder.query_kind
        future = service.batcher.submit(inputs, service.encoder.count_tokens(inputs, kind), kind)
        try:
            return future.result(service.settings.request_timeout)
        except FutureTimeoutError as error:  # a class of its own in Python 3.10
            raise TimeoutError from error
        finally:
            future.cancel()

    encode_query = encode


def pca_2d(embeddings: np.ndarray) -> np.ndarray:
    """The first two principal components of rows (n, d), centred, on one scale in [-1, 1]: (n, 2), float64.

    Equal embeddings give equal points, and the same input always the same picture.
    """
    rows = np.asarray(embeddings, dtype=np.float64)
    if len(rows) == 0:
        return np.zeros((0, 2))
    rows = rows - rows.mean(axis=0)
    _, directions = np.linalg.eigh(rows.T @ rows)
    components = directions[:, ::-1][:, :2]
    largest = components[np.abs(components).argmax(axis=0), np.arange(components.shape[1])]
    points = rows @ (components * np.sign(largest))  # an eigenvector's sign is arbitrary
    points = np.pad(points, ((0, 0), (0, 2 - points.shape[1])))
    scale = np.abs(points).max()
    return np.asarray(points / scale if scale > 1e-12 else np.zeros_like(points)) + 0.0

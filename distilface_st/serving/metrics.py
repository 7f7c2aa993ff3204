"""What the server counts, for Prometheus. No metric holds any text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from collections.abc import Callable

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)


class Metrics:
    """The metrics of one server, in a registry of their own.

    Example:
        >>> metrics = Metrics()
        >>> metrics.on_batch(2, 3, 40, 0.01)
        >>> b"distilface_texts_total 3.0" in metrics.exposition()
        True
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "distilface_requests", "Requests answered.", ["path", "status"], registry=self.registry
        )
        self._latency = Histogram(
            "distilface_request_seconds",
            "Time to answer a request.",
            ["path"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._rejected = Counter(
            "distilface_rejected", "Requests refused before any work.", ["reason"], registry=self.registry
        )
        self._batches = Histogram(
            "distilface_batch_seconds", "Time of a batch.", buckets=_SECONDS, registry=self.registry
        )
        self._batch_texts = Histogram(
            "distilface_batch_texts", "Texts in a batch.", buckets=_COUNTS, registry=self.registry
        )
        self._batch_requests = Histogram(
            "distilface_batch_requests", "Requests merged in a batch.", buckets=_COUNTS, registry=self.registry
        )
        self._texts = Counter("distilface_texts", "Texts encoded.", registry=self.registry)
        self._tokens = Counter("distilface_tokens", "Tokens encoded.", registry=self.registry)
        for reason in ("overloaded", "stopping", "unauthorized", "too_large"):
            self._rejected.labels(reason)

    def watch(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """Add a gauge that reads its value when asked."""
        Gauge(f"distilface_{name}", meaning, registry=self.registry).set_function(value)

    def on_batch(self, requests: int, texts: int, tokens: int, seconds: float) -> None:
        """Count a batch."""
        self._batches.observe(seconds)
        self._batch_texts.observe(texts)
        self._batch_requests.observe(requests)
        self._texts.inc(texts)
        self._tokens.inc(tokens)

    def on_request(self, path: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        self._requests.labels(path, str(status)).inc()
        self._latency.labels(path).observe(seconds)

    def on_rejected(self, reason: str) -> None:
        """Count a request that was refused: ``overloaded``, ``stopping``, ``unauthorized`` or ``too_large``."""
        self._rejected.labels(reason).inc()

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)

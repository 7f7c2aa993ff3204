"""Concurrent requests, merged into batches for one encoder."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .encoder import Kind, ServedEncoder
    from .service import ServerSettings

_SMOOTHING = 0.1
"""Weight of the last batch in the measured speed."""


class OverloadedError(Exception):
    """The queue is full.

    Args:
        retry_after: Whole seconds after which the queue will have emptied, at the speed measured.
    """

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"The server has more work than it can take: try again in {retry_after} s.")
        self.retry_after = retry_after


class StoppingError(Exception):
    """The server finishes what it has accepted and takes no more."""

    def __init__(self) -> None:
        super().__init__("The server is stopping and takes no new requests.")


@dataclass(eq=False)
class _Job:
    """A request's texts, of which the first ``taken`` are encoded or being encoded, and their rows so far."""

    texts: Sequence[str]
    tokens: Sequence[int]
    kind: Kind | None
    future: Future[np.ndarray] = field(default_factory=Future)
    rows: list[np.ndarray] = field(default_factory=list)
    taken: int = 0


class _Part(NamedTuple):
    """Texts ``start`` to ``stop`` of a request."""

    job: _Job
    start: int
    stop: int

    @property
    def texts(self) -> Sequence[str]:
        return self.job.texts[self.start : self.stop]

    @property
    def tokens(self) -> int:
        return sum(self.job.tokens[self.start : self.stop])


class Batcher:
    """A bounded queue in front of an encoder, and the one thread that runs it.

    A batch takes texts from the queue up to the token budget, from several requests where they are waiting. A lone
    request starts right away; what comes meanwhile is merged. A request larger than a batch shares the encoder: after
    each batch of its texts the others have their turn. A cancelled request leaves the queue at once.

    Args:
        encoder: The encoder.
        settings: Budget, wait and bounds.
        on_batch: Called after each batch with its requests, texts, tokens and seconds.

    Attributes:
        queued_texts: Texts that wait.
        queued_tokens: Tokens that wait.

    Example:
        ::

            encoder = ServedEncoder(open_encoder(), "distilface-mini")
            batcher = Batcher(encoder, ServerSettings())
            texts = ["It is sunny."]
            rows = batcher.submit(texts, encoder.count_tokens(texts)).result()  # (1, d)
            batcher.close()
    """

    def __init__(
        self,
        encoder: ServedEncoder,
        settings: ServerSettings,
        on_batch: Callable[[int, int, int, float], Any] = lambda requests, texts, tokens, seconds: None,
    ) -> None:
        self._encoder, self._settings, self._on_batch = encoder, settings, on_batch
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self.queued_texts = self.queued_tokens = 0
        self._merged, self._ended = 0, -math.inf  # the last batch: its requests, and when it ended
        self._seconds_per_token = 0.0
        self._thread = threading.Thread(target=self._run, name="distilface-encoder", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the encoder's thread runs."""
        return self._thread.is_alive()

    def check_room(self, texts: int, tokens: int = 0) -> None:
        """Refuse a request that the queue has no room for; an empty queue has room for any.

        Raises:
            OverloadedError: It has none now.
            StoppingError: It takes no more.
        """
        if self._closed:
            raise StoppingError
        too_many = self.queued_texts + texts > self._settings.queue_texts
        if self.queued_texts and (too_many or self.queued_tokens + tokens > self._settings.queue_tokens):
            raise OverloadedError(max(1, min(60, math.ceil(self.queued_tokens * self._seconds_per_token))))

    def submit(self, texts: Sequence[str], tokens: Sequence[int], kind: Kind | None = None) -> Future[np.ndarray]:
        """Queue a request. It may be called from any thread.

        Args:
            texts: One text or more.
            tokens: How many tokens each has.
            kind: What they are to the encoder. Texts of several kinds do not share a batch.

        Returns:
            The embeddings to come, shape (texts, d); cancelling it takes the request out of the queue.

        Raises:
            OverloadedError: The queue is full.
            StoppingError: It takes no more.
        """
        job = _Job(texts, tokens, kind)
        with self._changed:
            self.check_room(len(texts), sum(tokens))
            self._jobs.append(job)
            self.queued_texts += len(texts)
            self.queued_tokens += sum(tokens)
            self._changed.notify()
        job.future.add_done_callback(lambda _: self._forget(job))
        return job.future

    def close(self) -> None:
        """Take no more requests; those accepted are finished. Returns at once, see :meth:`join`."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def join(self, timeout: float | None = None) -> None:
        """Wait until the requests accepted before :meth:`close` are finished."""
        self._thread.join(timeout)

    def _forget(self, job: _Job) -> None:
        """Take what is left of a request that was cancelled, or failed, out of the queue."""
        with self._changed:
            if job.taken < len(job.texts):
                self._jobs.remove(job)
                self._take(job, len(job.texts))

    def _take(self, job: _Job, stop: int) -> _Part:
        part = _Part(job, job.taken, stop)
        self.queued_texts -= len(part.texts)
        self.queued_tokens -= part.tokens
        job.taken = stop
        return part

    def _run(self) -> None:
        while parts := self._next_batch():
            began = time.perf_counter()
            self._encode(parts)
            seconds = time.perf_counter() - began
            tokens = sum(part.tokens for part in parts)
            self._merged, self._ended = len(parts), time.monotonic()
            speed = seconds / max(1, tokens)
            self._seconds_per_token += (_SMOOTHING if self._seconds_per_token else 1) * (
                speed - self._seconds_per_token
            )
            self._on_batch(len(parts), sum(len(part.texts) for part in parts), tokens, seconds)

    def _next_batch(self) -> list[_Part]:
        """Parts to encode together; none where the queue is closed and empty."""
        with self._changed:
            while True:
                while not self._jobs:
                    if self._closed:
                        return []
                    self._changed.wait()
                if self._settings.batching:
                    self._wait_for_more()
                if parts := self._take_batch():
                    return parts

    def _wait_for_more(self) -> None:
        """After a batch of n requests, wait for n again while they may still be on their way."""
        deadline = self._ended + self._settings.max_wait_ms / 1000
        while len(self._jobs) < self._merged and self.queued_tokens < self._settings.batch_tokens and not self._closed:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not self._changed.wait(remaining):
                return

    def _take_batch(self) -> list[_Part]:
        parts: list[_Part] = []
        budget = self._settings.batch_tokens if self._settings.batching else math.inf
        while self._jobs and budget > 0:
            job = self._jobs[0]
            if parts and job.kind != parts[0].job.kind:
                break
            stop = job.taken
            # The first text of a batch is taken whatever its length: it would wait for ever otherwise.
            while stop < len(job.texts) and (job.tokens[stop] <= budget or (not parts and stop == job.taken)):
                budget -= job.tokens[stop]
                stop += 1
            if stop == job.taken:
                break
            parts.append(self._take(job, stop))
            self._jobs.popleft()
            if stop < len(job.texts):
                self._jobs.append(job)  # behind the others, whose turn it is now
                break
            if not self._settings.batching:
                break
        return parts

    def _encode(self, parts: list[_Part]) -> None:
        try:
            rows = self._encoder.encode([text for part in parts for text in part.texts], parts[0].job.kind)
        except Exception as error:
            if len(parts) > 1:  # one request's text must not fail the others'
                for part in parts:
                    self._encode([part])
                return
            with suppress(InvalidStateError):
                parts[0].job.future.set_exception(error)
            return
        first = 0
        for job, start, stop in parts:
            job.rows.append(rows[first : first + stop - start])
            first += stop - start
            if stop == len(job.texts):
                with suppress(InvalidStateError):  # cancelled meanwhile
                    job.future.set_result(np.concatenate(job.rows))

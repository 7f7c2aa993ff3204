"""What the routes call: one encoder behind its queue, and perhaps an index."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any, TypeVar

import anyio.to_thread

from .batcher import Batcher
from .encoders import model_name
from .metrics import Metrics
from .projection import plane
from .schemas import MapResponse, Point

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    from .protocols import SearchHit, ServedEncoder, ServedIndex
    from .settings import ServerSettings

    _Result = TypeVar("_Result")

_COUNT_AT_ONCE = 4096
"""Characters that are tokenized on the event loop: less work than a change of thread."""

_KEPT_MAPS = 8


class Service:
    """An encoder, its queue, an index if there is one, and the metrics.

    Args:
        encoder: The encoder.
        index: A search index; its queries go through the same queue as embeddings.
        settings: Batching and limits.
    """

    def __init__(self, encoder: ServedEncoder, index: ServedIndex | None, settings: ServerSettings) -> None:
        self.encoder, self.index, self.settings = encoder, index, settings
        self.metrics = Metrics()
        self.batcher = Batcher(encoder, settings, self.metrics.on_batch)
        self.stopping = False
        self.at_work = 0
        self._maps: OrderedDict[int, bytes] = OrderedDict()
        self._mapping = threading.Lock()
        self._search_threads = anyio.CapacityLimiter(settings.search_threads)
        if index is not None:
            index.encoder = QueryEncoder(self)
        self.metrics.watch("queue_texts", "Texts that wait for the encoder.", lambda: self.batcher.queued_texts)
        self.metrics.watch("queue_tokens", "Tokens that wait for the encoder.", lambda: self.batcher.queued_tokens)
        self.metrics.watch("requests_at_work", "Requests accepted and not yet answered.", lambda: self.at_work)

    @property
    def ready(self) -> bool:
        """Whether new requests are taken."""
        return not self.stopping and self.batcher.alive

    def close(self) -> None:
        """Finish what was accepted, then stop the encoder's thread."""
        self.stopping = True
        self.batcher.close()
        self.batcher.join(self.settings.drain_timeout)

    async def embed(self, texts: Sequence[str]) -> tuple[np.ndarray, int]:
        """Embeddings of length 1, shape (texts, d), and how many tokens were read. Cancelling leaves the queue.

        Raises:
            OverloadedError: The queue is full.
            StoppingError: The server is stopping.
        """
        self.batcher.check_room(len(texts))
        if sum(map(len, texts)) <= _COUNT_AT_ONCE:
            tokens = self.encoder.count_tokens(texts)
        else:
            tokens = await anyio.to_thread.run_sync(self.encoder.count_tokens, texts)
        rows = await asyncio.wrap_future(self.batcher.submit(texts, tokens))
        return rows, sum(tokens)

    async def search(self, query: str, k: int, filter: dict[str, Any] | None, hybrid: bool) -> Sequence[SearchHit]:  # noqa: A002
        """The best ``k`` passages for a query.

        Raises:
            InputError: The filter does not fit the index.
            OverloadedError: The queue is full.
        """
        assert self.index is not None
        self.batcher.check_room(1)
        search = partial(self.index.search, [query], k=k, filter=filter, hybrid=hybrid, highlight=True)
        return (await self._in_thread(search))[0]

    async def map(self, n: int) -> bytes:
        """At most ``n`` passages of the index with their places in the plane, as JSON."""
        return await self._in_thread(partial(self._map, n))

    async def info(self) -> dict[str, Any]:
        """What ``/info`` answers."""
        index = None
        if self.index is not None:
            index = dict(await self._in_thread(self.index.info))
            index["model"] = model_name(str(index.get("model", self.index.model)))
        return {
            "model": self.encoder.name,
            "dimension": self.encoder.dimension,
            "max_tokens": self.encoder.max_tokens,
            "version": metadata.version("distilface-st"),
            "fields": index.pop("fields", {}) if index else {},
            "index": index,
        }

    async def _in_thread(self, call: Callable[[], _Result]) -> _Result:
        return await anyio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=self._search_threads)

    def _map(self, n: int) -> bytes:
        assert self.index is not None
        with self._mapping:
            if n in self._maps:
                self._maps.move_to_end(n)
                return self._maps[n]
            hits, embeddings = self.index.sample(n)
            points = [
                Point(x=x, y=y, id=hit.id, text=hit.text, passage=hit.passage, metadata=hit.metadata)
                for hit, (x, y) in zip(hits, plane(embeddings).round(5).tolist(), strict=True)
            ]
            self._maps[n] = MapResponse(points=points).model_dump_json().encode()
            if len(self._maps) > _KEPT_MAPS:
                self._maps.popitem(last=False)
            return self._maps[n]


class QueryEncoder:
    """The queue as the index sees it: an encoder that blocks, so that queries share batches with all else.

    Args:
        service: The service.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    def encode(self, sentences: str | Sequence[str], **_: Any) -> np.ndarray:
        """Embeddings of length 1, shape (sentences, d); for a string, shape (d,).

        Args:
            sentences: A string, or several.
            **_: Taken for likeness with other encoders; embeddings here are always normalized.

        Raises:
            OverloadedError: The queue is full.
            TimeoutError: The queue did not come to it in time.
        """
        texts = [sentences] if isinstance(sentences, str) else list(sentences)
        service, prompt = self._service, self._service.encoder.query_prompt
        future = service.batcher.submit(texts, service.encoder.count_tokens(texts, prompt), prompt)
        try:
            rows = future.result(service.settings.request_timeout)
        except FutureTimeoutError as error:  # a class of its own in Python 3.10
            raise TimeoutError from error
        finally:
            future.cancel()
        return rows[0] if isinstance(sentences, str) else rows

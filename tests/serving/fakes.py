"""An encoder and an index that need no model, and a real server around them."""

from __future__ import annotations

import hashlib
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np

from distilface_st import InputError
from distilface_st.search import Hit
from distilface_st.serving import ServerSettings, http_server
from distilface_st.serving.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DIMENSION = 8


def vector(text: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    row = np.random.default_rng(seed).normal(size=DIMENSION).astype(np.float32)
    return row / np.linalg.norm(row)


class FakeEncoder:
    """A token a word; it keeps what it was asked, may be slow, and may be held back until ``go`` is set."""

    name = "fake"
    dimension = DIMENSION
    max_tokens: int | None = 64
    query_kind: str | None = None
    document_kind: str | None = None
    compares_units = True

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.calls: list[list[str]] = []
        self.kinds: list[str | None] = []
        self.go = threading.Event()
        self.go.set()
        self.started = threading.Event()

    def encode(self, texts: Sequence[str], kind: str | None = None, unit: bool = True) -> np.ndarray:
        self.calls.append(list(texts))
        self.kinds.append(kind)
        self.started.set()
        assert self.go.wait(20)
        time.sleep(self.seconds)
        if any("poison" in text for text in texts):
            raise RuntimeError(f"cannot encode {texts!r}")
        return np.stack([vector(text) for text in texts])

    def similarity(self, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        return queries @ documents.T

    def text_of(self, ids: Sequence[int]) -> str:
        if not all(0 <= number < 100 for number in ids):
            raise InputError("a token id is out of range.")
        return " ".join(map(str, ids))

    def count_tokens(self, texts: Sequence[str], kind: str | None = None) -> list[int]:
        return [len(text.split()) for text in texts]


class FakeIndex:
    model = "fake"
    encoder: Any = None

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = list(texts)
        self.vectors = np.stack([vector(text) for text in texts])
        self.samples = 0

    def search(
        self,
        queries: list[str],
        k: int = 10,
        filter: dict[str, Any] | None = None,  # noqa: A002
        hybrid: bool = False,
        highlight: bool = True,
    ) -> list[list[Hit]]:
        if filter and "number" not in filter:
            raise InputError("The index has no such field.")
        found = []
        for row in self.encoder.encode(queries, normalize_embeddings=True):
            scores = self.vectors @ row
            best = np.argsort(-scores)[:k]
            found.append([self._hit(int(i), float(scores[i]), (0, 3)) for i in best])
        return found

    def sample(self, n: int, seed: int = 0) -> tuple[list[Hit], np.ndarray]:
        self.samples += 1
        return [self._hit(i, 0.0) for i in range(min(n, len(self.texts)))], self.vectors[:n]

    def info(self) -> dict[str, Any]:
        return {
            "documents": len(self.texts),
            "passages": len(self.texts),
            "dimension": DIMENSION,
            "model": "somewhere/else/fake",
            "store": "memory",
            "fields": {"number": [0, 1]},
        }

    def _hit(self, number: int, score: float, highlight: tuple[int, int] | None = None) -> Hit:
        return Hit(str(number), score, self.texts[number], {"number": number}, 0, highlight)


def connect(address: str) -> httpx.Client:
    """A client of a server without encryption, which is spared the reading of certificates."""
    return httpx.Client(base_url=address, verify=False, timeout=20)


@contextmanager
def serving(service: Service) -> Iterator[httpx.Client]:
    """A real server on a free port of this machine, in a thread; yields a client of it."""
    server = http_server(service, port=0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        assert time.monotonic() < deadline
        assert thread.is_alive()
        time.sleep(0.005)
    try:
        with connect(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}") as http:
            yield http
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def fake_service(encoder: FakeEncoder | None = None, index: FakeIndex | None = None, **settings: Any) -> Service:
    return Service(encoder or FakeEncoder(), index, ServerSettings(**settings))

"""What a server may be told: keys, batching and limits."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ..errors import InputError


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

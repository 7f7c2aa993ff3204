"""The encoder of a server: a model with a name, a bounded queue in front of it, and the one thread that runs it."""

from __future__ import annotations

import copy
import math
import threading
import time
from collections import deque
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import InputError
from ..models.encoders import (
    Kind,
    embedding_dimension,
    embeddings_of,
    lasting_name,
    longest_input,
    manifest_of,
    own_tokenizer,
    prompt_of,
    unit_embeddings,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from .service import ServerSettings

_RUN_TOKENS = 128
"""Tokens in one run of an exported graph. On a processor a padded token costs the same in runs of any size
(distilface-mini: 46 to 52 us, one core), and the fewer texts there are to sort, the more padding a large run has: 32
docstring sentences of 499 tokens took 27 ms in runs of 128 and 60 ms in runs of 1,024."""


_KINDS: tuple[Kind, ...] = ("query", "document")

_NO_LIMIT = 2**31
"""A static model's limit is infinite, and that of a tokenizer without one is 10^30."""


class ServedEncoder:
    """An ``EdgeEncoder`` or a ``SentenceTransformer`` with a name for clients.

    ``max_tokens`` is where the model cuts a text (``None``: nowhere), ``query_kind`` is ``query`` where it embeds
    queries differently from other text, ``document_kind`` likewise. ``compares_units`` is whether its similarity
    function is the cosine, to which the length of an embedding is nothing.
    """

    def __init__(self, model: Any, name: str) -> None:
        self.model, self.name = model, name
        self.dimension = embedding_dimension(model)
        self.max_tokens = longest_input(model)
        usual: str = model.prompts.get(model.default_prompt_name or "") or ""
        self._prompts: dict[Kind | None, str] = {None: usual}
        for kind in _KINDS:
            self._prompts[kind] = model.prompts.get(prompt_of(kind, model.prompts) or "") or ""
        routed = any(type(part).__name__ == "Router" for part in getattr(model, "children", list)())
        self.query_kind: Kind | None = "query" if routed or self._prompts["query"] != usual else None
        self.document_kind: Kind | None = "document" if routed or self._prompts["document"] != usual else None
        self.compares_units = getattr(model, "similarity_fn_name", None) in (None, "cosine")
        self._exported = hasattr(model, "input_lengths")
        # A copy, since setting a tokenizer's truncation while another thread uses it is an error.
        self._tokenizer: Any = None if self._exported else copy.deepcopy(model.tokenizer)
        self._counting, self._encoding = threading.Lock(), threading.Lock()

    def encode(self, texts: Sequence[str], kind: Kind | None = None, unit: bool = True) -> np.ndarray:
        """Embeddings, shape (texts, d), float32; with the model's default prompt, or that of a kind.

        They have length 1, or where ``unit`` is false that which the model gave them.
        """
        options: dict[str, Any] = {"batch_tokens": _RUN_TOKENS} if self._exported else {}
        embed = unit_embeddings if unit else embeddings_of
        with self._encoding:
            return embed(self.model, texts, kind, show_progress_bar=False, **options)

    def similarity(self, queries: np.ndarray, documents: np.ndarray) -> Any:
        """How similar embeddings are by the model's own similarity function, shape (queries, documents)."""
        return self.model.similarity(queries, documents)

    def count_tokens(self, texts: Sequence[str], kind: Kind | None = None) -> list[int]:
        """How many tokens of each text the model reads, special and prompt ones included."""
        prompted = [self._prompts[kind] + text for text in texts]
        if self._exported:
            return list(self.model.input_lengths(prompted))
        with self._counting:
            if hasattr(self._tokenizer, "encode_batch"):  # a bare one, of static embeddings or of an exported model
                special = manifest_of(self.model) is not None
                return [len(one.ids) for one in self._tokenizer.encode_batch(prompted, add_special_tokens=special)]
            ids = self._tokenizer(prompted, truncation=self.max_tokens is not None, max_length=self.max_tokens)
        return [len(row) for row in ids["input_ids"]]

    def text_of(self, ids: Sequence[int]) -> str:
        """The text that token ids of the model's own tokenizer stand for, special ones left out.

        Raises:
            InputError: The model has no such ids, or they are another tokenizer's: they do not read back as they are.
        """
        tokenizer = self._reader
        special = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        special.discard(tokenizer.token_to_id(getattr(tokenizer.model, "unk_token", None) or ""))
        if any(not 0 <= number < _NO_LIMIT or tokenizer.id_to_token(number) is None for number in ids):
            raise InputError(f"a token id is out of range: the model has {tokenizer.get_vocab_size()} tokens.")
        kept = [number for number in ids if number not in special]
        text: str = tokenizer.decode(kept, skip_special_tokens=False)
        if not kept or tokenizer.encode(text, add_special_tokens=False).ids != kept:
            raise InputError("the tokens are no text of this model's own tokenizer: send text.")
        return text

    @cached_property
    def _reader(self) -> Any:
        return own_tokenizer(self.model)


def display_name(model: str | os.PathLike[str] | None) -> str:
    """What clients call a model: a shipped one by its name, a folder by its own, a Hub name as it is."""
    name = lasting_name(model)
    is_path = Path(name).is_absolute() or name.count("/") > 1
    return Path(name).resolve().name if is_path else name


class OverloadedError(Exception):
    """The queue is full; it will have emptied after ``retry_after`` seconds, at the speed measured."""

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
    unit: bool
    future: Future[np.ndarray] = field(default_factory=Future)
    rows: list[np.ndarray] = field(default_factory=list)
    taken: int = 0


class _Part(NamedTuple):
    """Some of a request's texts, and how many tokens they have."""

    job: _Job
    texts: Sequence[str]
    tokens: int


class Batcher:
    """A bounded queue in front of an encoder, and the one thread that runs it.

    A batch takes texts from the queue up to the token budget, from several requests where they are waiting. A lone
    request starts right away; what comes meanwhile is merged. A request larger than a batch shares the encoder: after
    each batch of its texts the others have their turn. A cancelled request leaves the queue at once. ``on_batch`` is
    called after each batch with its requests, texts, tokens and seconds.
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
        """Raise an OverloadedError if the queue has no room (an empty one always has), a StoppingError once closed."""
        if self._closed:
            raise StoppingError
        too_many = self.queued_texts + texts > self._settings.queue_texts
        if self.queued_texts and (too_many or self.queued_tokens + tokens > self._settings.queue_tokens):
            raise OverloadedError(max(1, min(60, math.ceil(self.queued_tokens * self._seconds_per_token))))

    def submit(
        self, texts: Sequence[str], tokens: Sequence[int], kind: Kind | None = None, unit: bool = True
    ) -> Future[np.ndarray]:
        """Queue a request: texts, how many tokens each has, their kind, and whether rows are scaled to length 1.

        Requests that differ in the last two share no batch.

        It may be called from any thread, and refuses what :meth:`check_room` refuses. It gives the embeddings to come,
        shape (texts, d); cancelling them takes the request out of the queue.
        """
        job = _Job(texts, tokens, kind, unit)
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
        part = _Part(job, job.texts[job.taken : stop], sum(job.tokens[job.taken : stop]))
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
            weight = 0.1 if self._seconds_per_token else 1
            self._seconds_per_token += weight * (seconds / max(1, tokens) - self._seconds_per_token)
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
            if parts and (job.kind, job.unit) != (parts[0].job.kind, parts[0].job.unit):
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
        first_job = parts[0].job
        try:
            rows = self._encoder.encode([text for part in parts for text in part.texts], first_job.kind, first_job.unit)
        except Exception as error:
            if len(parts) > 1:  # one request's text must not fail the others'
                for part in parts:
                    self._encode([part])
                return
            with suppress(InvalidStateError):
                first_job.future.set_exception(error)
            return
        first = 0
        for job, texts, _ in parts:
            job.rows.append(rows[first : first + len(texts)])
            first += len(texts)
            if sum(map(len, job.rows)) == len(job.texts):
                with suppress(InvalidStateError):  # cancelled meanwhile
                    job.future.set_result(np.concatenate(job.rows))

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from distilface_st import InputError
from distilface_st.serving import ServerSettings
from distilface_st.serving.encoder import Batcher, OverloadedError, StoppingError

from .fakes import FakeEncoder, vector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

WAIT = 10


@pytest.fixture
def encoder() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture
def make(encoder: FakeEncoder) -> Iterator[Callable[..., Batcher]]:
    made = []

    def build(**settings: Any) -> Batcher:
        made.append(Batcher(encoder, ServerSettings(**settings)))
        return made[-1]

    yield build
    encoder.go.set()
    for batcher in made:
        batcher.close()
        batcher.join(WAIT)


def submit(batcher: Batcher, *texts: str, kind: str | None = None) -> Future[np.ndarray]:
    return batcher.submit(texts, [len(text.split()) for text in texts], kind)


def hold(batcher: Batcher, encoder: FakeEncoder) -> Future[np.ndarray]:
    """Keep the encoder busy with a text, so that what follows has to queue."""
    encoder.go.clear()
    encoder.started.clear()
    busy = submit(batcher, "busy")
    assert encoder.started.wait(WAIT)
    return busy


def test_each_request_gets_its_own_rows(make, encoder) -> None:
    batcher = make()
    hold(batcher, encoder)
    futures = {text: submit(batcher, text, text + " again") for text in "abcde"}
    encoder.go.set()
    for text, future in futures.items():
        np.testing.assert_array_equal(future.result(WAIT), [vector(text), vector(text + " again")])


def test_what_queues_while_the_encoder_is_busy_is_one_batch(make, encoder) -> None:
    batcher = make()
    hold(batcher, encoder)
    futures = [submit(batcher, text) for text in "abcde"]
    encoder.go.set()
    assert [len(future.result(WAIT)) for future in futures] == [1] * 5
    assert encoder.calls == [["busy"], list("abcde")]


def test_without_batching_each_request_runs_alone_and_whole(make, encoder) -> None:
    batcher = make(batching=False, batch_tokens=1)
    hold(batcher, encoder)
    futures = [submit(batcher, "a", "b", "c"), submit(batcher, "d")]
    encoder.go.set()
    for future in futures:
        future.result(WAIT)
    assert encoder.calls == [["busy"], ["a", "b", "c"], ["d"]]


def test_a_batch_keeps_to_its_tokens(make, encoder) -> None:
    batcher = make(batch_tokens=4)
    hold(batcher, encoder)
    futures = [submit(batcher, text) for text in ("1 2 3", "4", "1 2", "1 2 3 4 5 6", "1")]
    encoder.go.set()
    for future in futures:
        future.result(WAIT)
    assert encoder.calls == [["busy"], ["1 2 3", "4"], ["1 2"], ["1 2 3 4 5 6"], ["1"]]


def test_a_large_request_takes_turns_with_small_ones(make, encoder) -> None:
    batcher = make(batch_tokens=3)
    hold(batcher, encoder)
    large, small = submit(batcher, *"abcdefg"), submit(batcher, "x")
    encoder.go.set()
    np.testing.assert_array_equal(large.result(WAIT), [vector(text) for text in "abcdefg"])
    small.result(WAIT)
    assert encoder.calls[1:4] == [list("abc"), ["x", "d", "e"], ["f", "g"]]


def test_texts_of_two_kinds_share_no_batch(make, encoder) -> None:
    batcher = make()
    hold(batcher, encoder)
    futures = [submit(batcher, "a"), submit(batcher, "b", kind="query"), submit(batcher, "c", kind="query")]
    encoder.go.set()
    for future in futures:
        future.result(WAIT)
    assert list(zip(encoder.calls, encoder.kinds, strict=True))[1:] == [(["a"], None), (["b", "c"], "query")]


def test_a_lone_request_does_not_wait(make, encoder) -> None:
    batcher = make(max_wait_ms=2000)
    began = time.monotonic()
    for text in "abc":
        submit(batcher, text).result(WAIT)
    assert time.monotonic() - began < 1


def test_after_a_batch_of_several_it_waits_for_as_many_but_not_long(make, encoder) -> None:
    batcher = make(max_wait_ms=300)
    hold(batcher, encoder)
    futures = [submit(batcher, text) for text in "abc"]
    encoder.go.set()
    for future in futures:
        future.result(WAIT)
    futures = [submit(batcher, "d")]
    time.sleep(0.02)
    futures += [submit(batcher, "e"), submit(batcher, "f")]
    for future in futures:
        future.result(WAIT)
    assert encoder.calls[-1] == ["d", "e", "f"]
    began = time.monotonic()
    submit(batcher, "g").result(WAIT)
    assert 0.1 < time.monotonic() - began < 2
    began = time.monotonic()
    submit(batcher, "h").result(WAIT)
    assert time.monotonic() - began < 0.1


def test_a_cancelled_request_leaves_the_queue(make, encoder) -> None:
    batcher = make()
    hold(batcher, encoder)
    kept, cancelled = submit(batcher, "kept"), submit(batcher, "cancelled text", "another")
    assert (batcher.queued_texts, batcher.queued_tokens) == (3, 4)
    assert cancelled.cancel()
    assert (batcher.queued_texts, batcher.queued_tokens) == (1, 1)
    encoder.go.set()
    kept.result(WAIT)
    assert encoder.calls == [["busy"], ["kept"]]


def test_cancelling_a_request_at_work_harms_no_other(make, encoder) -> None:
    batcher = make()
    busy = hold(batcher, encoder)
    busy.cancel()
    other = submit(batcher, "other")
    encoder.go.set()
    np.testing.assert_array_equal(other.result(WAIT), [vector("other")])


def test_a_full_queue_refuses_and_recovers(make, encoder) -> None:
    batcher = make(queue_texts=3, queue_tokens=10)
    hold(batcher, encoder)
    accepted = [submit(batcher, "a", "b")]
    with pytest.raises(OverloadedError) as refused:
        submit(batcher, "c", "d")
    assert refused.value.retry_after >= 1
    with pytest.raises(OverloadedError):
        submit(batcher, "one text of more than as many tokens as are left")
    accepted.append(submit(batcher, "e"))
    encoder.go.set()
    for future in accepted:
        future.result(WAIT)
    submit(batcher, "c", "d").result(WAIT)


def test_an_empty_queue_takes_a_request_of_any_size(make, encoder) -> None:
    assert len(submit(make(queue_texts=1, queue_tokens=1), "a b c", "d").result(WAIT)) == 2


def test_closing_finishes_what_was_accepted_and_takes_no_more(make, encoder) -> None:
    batcher = make()
    hold(batcher, encoder)
    accepted = [submit(batcher, text) for text in "abc"]
    batcher.close()
    with pytest.raises(StoppingError):
        submit(batcher, "d")
    encoder.go.set()
    batcher.join(WAIT)
    assert all(future.done() and future.result(0).shape == (1, 8) for future in accepted)
    assert not batcher.alive


def test_a_text_that_fails_fails_its_own_request_only(make, encoder) -> None:
    batcher = make()
    hold(batcher, encoder)
    good, bad, fine = submit(batcher, "good"), submit(batcher, "poison"), submit(batcher, "fine")
    encoder.go.set()
    np.testing.assert_array_equal(good.result(WAIT), [vector("good")])
    np.testing.assert_array_equal(fine.result(WAIT), [vector("fine")])
    with pytest.raises(RuntimeError):
        bad.result(WAIT)
    submit(batcher, "the thread lives").result(WAIT)


def test_a_large_request_that_fails_leaves_the_queue(make, encoder) -> None:
    batcher = make(batch_tokens=2)
    with pytest.raises(RuntimeError):
        submit(batcher, "poison", *"abcdefgh").result(WAIT)
    submit(batcher, "next").result(WAIT)
    assert batcher.queued_texts == batcher.queued_tokens == 0


@pytest.mark.parametrize(
    "wrong", [{"batch_tokens": 0}, {"max_wait_ms": -1}, {"request_timeout": float("nan")}, {"api_keys": ("", "a")}]
)
def test_settings_that_make_no_sense_are_refused(wrong) -> None:
    with pytest.raises(InputError, match=r"at least|empty"):
        ServerSettings(**wrong)

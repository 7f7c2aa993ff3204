"""What every request passes before any work: key, body, limits, time; and what every answer passes on its way out."""

from __future__ import annotations

import hmac
import logging
import time
from typing import TYPE_CHECKING

import anyio

from .batcher import OverloadedError, StoppingError
from .errors import ApiError, as_api_error, log_unexpected

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from .service import Service

logger = logging.getLogger("distilface_st.serving")

OPEN_PATHS = frozenset({"/", "/docs", "/openapi.json", "/health", "/ready", "/favicon.ico"})
"""Paths that need no key: they tell nothing of the model, the index or the traffic."""

_OTHER_PATHS = frozenset({"/v1/embeddings", "/v1/models", "/search", "/map", "/info", "/metrics"})
_WORK = frozenset({"/v1/embeddings", "/search", "/map"})
_DISCARD_SECONDS = 2.0
CLIENT_GONE = 499
"""The status that is logged where the client did not wait (nginx's number for it)."""


class Gate:
    """ASGI middleware around the whole application.

    It checks the key, reads the body up to its limit, holds the time limit, cancels what a client no longer waits for,
    refuses work while the server stops, turns every exception into an answer, and counts and logs the outcome.

    Args:
        app: The application.
        service: What it serves.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service
        self._keys = [key.encode() for key in service.settings.api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        incoming, reply = _Incoming(receive), _Reply(send)
        try:
            with anyio.fail_after(self._service.settings.request_timeout):
                await self._answer(scope, incoming, reply)
        except Exception as error:
            await self._explain(error, scope, incoming, reply)
        path, seconds = path_label(scope["path"]), time.perf_counter() - began
        self._service.metrics.on_request(path, reply.status, seconds)
        logger.info("%s %s %d %.1f ms", scope["method"], path, reply.status, seconds * 1000)

    async def _answer(self, scope: Scope, receive: _Incoming, reply: _Reply) -> None:
        self._check_key(scope)
        if scope["path"] not in _WORK:
            await self._app(scope, receive, reply)
            return
        service = self._service
        if service.stopping:
            raise StoppingError
        if service.at_work >= service.settings.max_requests:
            raise OverloadedError(1)
        service.at_work += 1
        try:
            body = await read_body(scope, receive, service.settings.max_body_bytes)
            await self._while_awaited(scope, body, receive, reply)
        finally:
            service.at_work -= 1

    async def _while_awaited(self, scope: Scope, body: bytes, receive: Receive, reply: _Reply) -> None:
        """Run the application and cancel it if the client goes away."""

        async def replay() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            if not reply.started:
                reply.status = CLIENT_GONE
            group.cancel_scope.cancel()

        failure: Exception | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            try:
                await self._app(scope, replay, reply)
            except Exception as error:  # kept out of the group, which would wrap it
                failure = error
            group.cancel_scope.cancel()
        if failure is not None:
            raise failure

    def _check_key(self, scope: Scope) -> None:
        if not self._keys or scope["path"] in OPEN_PATHS or scope["path"].startswith("/static/"):
            return
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, key = (given[0] if len(given) == 1 else b"").partition(b" ")
        matches = [hmac.compare_digest(key.strip(), known) for known in self._keys]
        if scheme.lower() != b"bearer" or not any(matches):
            raise ApiError(
                401,
                "The API key is missing or wrong: send `Authorization: Bearer KEY`.",
                code="invalid_api_key",
                reason="unauthorized",
                headers={"WWW-Authenticate": "Bearer"},
            )

    async def _explain(self, error: Exception, scope: Scope, receive: _Incoming, reply: _Reply) -> None:
        answer = as_api_error(error)
        if answer.code == "internal_error":
            log_unexpected(error, f"{scope['method']} {path_label(scope['path'])}", self._service.settings.log_text)
        if answer.reason:
            self._service.metrics.on_rejected(answer.reason)
            await receive.discard(scope, 4 * self._service.settings.max_body_bytes)
        if not reply.started:
            await answer.response()(scope, receive, reply)


class _Incoming:
    """``receive``, and whether the body has been read to its end."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._ended = False

    async def __call__(self) -> Message:
        message = await self._receive()
        self._ended = self._ended or not message.get("more_body")
        return message

    async def discard(self, scope: Scope, most: int) -> None:
        """Read on for a moment: a client still sending when the connection closes never sees the answer."""
        if any(name == b"expect" for name, _ in scope["headers"]):
            return
        size = 0
        with anyio.move_on_after(_DISCARD_SECONDS):
            while not self._ended and size < most:
                size += len((await self()).get("body", b""))


class _Reply:
    """``send``, and what has been sent."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False
        self.status = 500

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started, self.status = True, message["status"]
        await self._send(message)


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """A request's whole body, if it is within the limit.

    Raises:
        ApiError: It is larger, by its header or by count.
    """
    headers = dict(scope["headers"])
    too_large = ApiError(
        413, f"The body is larger than {limit:,} bytes: send less at once.", code="too_large", reason="too_large"
    )
    length = headers.get(b"content-length", b"0")
    if length.isdigit() and int(length) > limit:
        raise too_large
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ApiError(400, "The body is not complete.")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise too_large
        if not message.get("more_body"):
            return b"".join(parts)


def path_label(path: str) -> str:
    """A path as metrics and logs name it: those that exist, and one name for all that do not.

    Example:
        >>> path_label("/v1/models/distilface-mini"), path_label("/wp-login.php")
        ('/v1/models/{model}', 'other')
    """
    if path in OPEN_PATHS or path in _OTHER_PATHS:
        return path
    if path.startswith("/v1/models/"):
        return "/v1/models/{model}"
    return "/static" if path.startswith("/static/") else "other"

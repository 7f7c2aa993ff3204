"""What every request passes before any work, and every answer on its way out: key, limits, time, and errors.

Clients see errors in OpenAI's shape: one sentence, never a traceback.
"""

from __future__ import annotations

import hmac
import logging
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from ..errors import InputError
from .encoder import OverloadedError, StoppingError
from .service import REFUSALS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from .service import Service

logger = logging.getLogger("distilface_st.serving")

OPEN_PATHS = frozenset({"/", "/docs", "/openapi.json", "/health", "/ready", "/favicon.ico"})
"""Paths that need no key: they tell nothing of the model, the index or the traffic."""

BEARER = HTTPBearer(auto_error=False)

_WORK = frozenset({"/v1/embeddings", "/v1/rerank", "/search", "/map"})
_KNOWN_PATHS = OPEN_PATHS | _WORK | {"/v1/models", "/info", "/metrics"}
_KINDS = {401: "authentication_error", 429: "rate_limit_error"}


@dataclass(eq=False)
class ApiError(Exception):
    """An error with its HTTP status."""

    status: int
    message: str  # one sentence
    code: str | None = None  # what programs may act on
    param: str | None = None  # the field at fault
    headers: Mapping[str, str] | None = None

    def response(self) -> JSONResponse:
        """The error as an answer: ``{"error": {"message", "type", "param", "code"}}``."""
        kind = _KINDS.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return JSONResponse({"error": error}, self.status, self.headers)


def as_api_error(error: Exception) -> ApiError:
    """What a client is told of an exception; of one that nobody expected, only that there was one."""
    match error:
        case ApiError():
            return error
        case OverloadedError():
            return ApiError(429, str(error), "overloaded", headers={"Retry-After": str(error.retry_after)})
        case StoppingError():
            return ApiError(503, str(error), "stopping", headers={"Retry-After": "5", "Connection": "close"})
        case TimeoutError():
            return ApiError(504, "The request took longer than the server allows.", "timeout")
        case RequestValidationError():
            return _invalid(error)
        case InputError():
            return ApiError(400, str(error))
        case HTTPException():
            return ApiError(error.status_code, f"{error.detail}.".replace("..", "."), headers=error.headers)
    return ApiError(500, "The server had an error. It has been logged.", "internal_error")


def _invalid(error: RequestValidationError) -> ApiError:
    """The first thing that is wrong. Its input is not quoted: it may be long, or no valid Unicode."""
    first: dict[str, Any] = dict(error.errors()[0])
    kind, message = str(first["type"]), str(first["msg"]).removeprefix("Value error, ")
    if kind == "json_invalid":
        return ApiError(400, "The body is not valid JSON.")
    if kind in ("model_attributes_type", "dict_type") and len(first["loc"]) == 1:
        return ApiError(400, "The body must be a JSON object, sent with Content-Type: application/json.")
    field = next((part for part in first["loc"][1:] if isinstance(part, str)), None)
    return ApiError(400, f"{field}: {message}." if field else f"{message}.", param=field)


class Gate:
    """ASGI middleware around the whole application.

    It checks the key, reads the body up to its limit, holds the time limit, cancels what a client no longer waits for,
    refuses work while the server stops, turns every exception into an answer, and counts and logs the outcome.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service
        self._keys = [key.encode() for key in service.settings.api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        incoming, reply = _Incoming(scope, receive), _Reply(send)
        path = path_label(scope["path"])
        try:
            with anyio.fail_after(self._service.settings.request_timeout):
                await self._answer(scope, incoming, reply)
        except Exception as error:
            answer = as_api_error(error)
            if answer.code == "internal_error":
                # The message, which may quote a user's text, is logged only if texts may be.
                said = f": {error}" if self._service.settings.log_text else ""
                frames = "".join(traceback.format_tb(error.__traceback__))
                logger.error("%s %s failed with %s%s\n%s", scope["method"], path, type(error).__name__, said, frames)
            if reason := REFUSALS.get(answer.code or ""):
                self._service.metrics.rejected.labels(reason).inc()
                await incoming.discard(4 * self._service.settings.max_body_bytes)
            if not reply.started:
                await answer.response()(scope, incoming, reply)
        seconds = time.perf_counter() - began
        self._service.metrics.requests.labels(path, str(reply.status)).inc()
        self._service.metrics.request_seconds.labels(path).observe(seconds)
        logger.info("%s %s %d %.1f ms", scope["method"], path, reply.status, seconds * 1000)

    async def _answer(self, scope: Scope, incoming: _Incoming, reply: _Reply) -> None:
        # The key comes before everything else, paths that do not exist included, so that a route's own dependency
        # would be too late.
        if self._keys and scope["path"] not in OPEN_PATHS and not scope["path"].startswith("/static/"):
            given = await BEARER(Request(scope))
            key = given.credentials.encode("latin-1") if given else b""  # as Starlette decodes headers
            # Every key is compared, each in constant time, so that the time taken tells nothing of them.
            matches = [hmac.compare_digest(key, known) for known in self._keys]
            if not any(matches):
                said = "The API key is missing or wrong: send `Authorization: Bearer KEY`."
                raise ApiError(401, said, "invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        if scope["method"] == "HEAD":  # GET without the body, which the server itself leaves out
            scope = {**scope, "method": "GET"}
        if scope["path"] not in _WORK:
            await self._app(scope, incoming, reply)
            return
        service = self._service
        if service.stopping:
            raise StoppingError
        if service.at_work >= service.settings.max_requests:
            raise OverloadedError(1)
        service.at_work += 1
        try:
            body = await incoming.body(service.settings.max_body_bytes)
            await self._while_awaited(scope, body, incoming, reply)
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
                reply.status = 499  # nginx's number for a client that did not wait
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


class _Incoming:
    """``receive``, and whether the body has been read to its end."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._headers, self._receive, self._ended = dict(scope["headers"]), receive, False

    async def __call__(self) -> Message:
        message = await self._receive()
        self._ended = self._ended or not message.get("more_body")
        return message

    async def body(self, limit: int) -> bytes:
        """The whole body, if it is within the limit by its header and by count; else an ApiError."""
        too_large = ApiError(413, f"The body is larger than {limit:,} bytes: send less at once.", "too_large")
        length = self._headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > limit:
            raise too_large
        body = bytearray()
        while not self._ended:
            message = await self()
            if message["type"] == "http.disconnect":
                raise ApiError(400, "The body is not complete.")
            body += message.get("body", b"")
            if len(body) > limit:
                raise too_large
        return bytes(body)

    async def discard(self, most: int) -> None:
        """Read on for a moment: a client still sending when the connection closes never sees the answer."""
        if b"expect" in self._headers:
            return
        size = 0
        with anyio.move_on_after(2):
            while not self._ended and size < most:
                size += len((await self()).get("body", b""))


class _Reply:
    """``send``, and what has been sent."""

    def __init__(self, send: Send) -> None:
        self._send, self.started, self.status = send, False, 500

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started, self.status = True, message["status"]
        await self._send(message)


def path_label(path: str) -> str:
    """A path as metrics and logs name it: those that exist, and one name for all that do not."""
    if path in _KNOWN_PATHS:
        return path
    if path.startswith("/v1/models/"):
        return "/v1/models/{model}"
    return "/static" if path.startswith("/static/") else "other"

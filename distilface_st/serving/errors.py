"""Errors as clients see them: OpenAI's shape, one sentence, never a traceback."""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from ..errors import InputError
from .batcher import OverloadedError, StoppingError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI
    from starlette.requests import Request

logger = logging.getLogger("distilface_st.serving")


class ApiError(Exception):
    """An error with its HTTP status.

    Args:
        status: HTTP status.
        message: One sentence.
        param: The field at fault.
        code: What programs may act on.
        reason: For a refusal, its name in the metrics.
        headers: More headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        reason: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.reason, self.headers = reason, headers

    def response(self) -> JSONResponse:
        """The error as an answer: ``{"error": {"message", "type", "param", "code"}}``."""
        kinds = {401: "authentication_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return JSONResponse({"error": error}, self.status, self.headers)


def as_api_error(error: Exception) -> ApiError:
    """What a client is told of an exception; of one that nobody expected, only that there was one."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, OverloadedError):
        headers = {"Retry-After": str(error.retry_after)}
        return ApiError(429, str(error), code="overloaded", reason="overloaded", headers=headers)
    if isinstance(error, StoppingError):
        headers = {"Retry-After": "5", "Connection": "close"}
        return ApiError(503, str(error), code="stopping", reason="stopping", headers=headers)
    if isinstance(error, TimeoutError):
        return ApiError(504, "The request took longer than the server allows.", code="timeout")
    if isinstance(error, InputError):
        return ApiError(400, str(error))
    if isinstance(error, RequestValidationError):
        return _invalid(error)
    if isinstance(error, HTTPException):
        return ApiError(error.status_code, f"{error.detail}.".replace("..", "."), headers=error.headers)
    return ApiError(500, "The server had an error. It has been logged.", code="internal_error")


def install(app: FastAPI) -> None:
    """Answer every expected exception of ``app`` in OpenAI's shape. Others reach the gate, which logs them."""

    async def answer(request: Request, error: Exception) -> JSONResponse:
        return as_api_error(error).response()

    for kind in (InputError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, answer)


def log_unexpected(error: Exception, where: str, with_text: bool) -> None:
    """Log where an exception came from; its message, which may quote a user's text, only where texts may be logged."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    said = f": {error}" if with_text else ""
    logger.error("%s failed with %s%s\n%s", where, type(error).__name__, said, frames)


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

"""The routes: each checks what its schema cannot, calls the service, and shapes the answer."""

from __future__ import annotations

import base64
import json
import logging
from typing import TYPE_CHECKING, Annotated, Any

import anyio.to_thread
import numpy as np
from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse

from . import schemas
from .errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .service import Service

logger = logging.getLogger("distilface_st.serving")

_WRITE_AT_ONCE = 8
"""Embeddings that are written as JSON on the event loop; more would hold up other requests."""

_ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": schemas.ErrorResponse, "description": "The request cannot be answered as it is."},
    "5XX": {"model": schemas.ErrorResponse, "description": "The server cannot answer now."},
}


def api_routes(service: Service) -> APIRouter:
    """OpenAI's routes for embeddings and models."""
    router = APIRouter(responses=_ERRORS)

    @router.post("/v1/embeddings", response_model=schemas.EmbeddingResponse)
    async def embeddings(request: schemas.EmbeddingRequest) -> Response:
        """Embed texts, as OpenAI's API does. Embeddings have length 1."""
        texts = [request.input] if isinstance(request.input, str) else request.input
        check_model(service, request.model)
        check_texts(service, texts)
        width = request.dimensions or service.encoder.dimension
        if width > service.encoder.dimension:
            raise ApiError(400, f"dimensions: the model has {service.encoder.dimension}.", param="dimensions")
        log_texts(service, texts)
        rows, tokens = await service.embed(texts)
        write = base64_rows if request.encoding_format == "base64" else float_rows
        if len(texts) > _WRITE_AT_ONCE:
            data = await anyio.to_thread.run_sync(write, shorten(rows, width))
        else:
            data = write(shorten(rows, width))
        usage = json.dumps({"prompt_tokens": tokens, "total_tokens": tokens})
        model = json.dumps(service.encoder.name)
        body = f'{{"object":"list","data":[{data}],"model":{model},"usage":{usage}}}'
        return Response(body, media_type="application/json")

    @router.get("/v1/models")
    async def models() -> schemas.ModelList:
        """The models that are served."""
        return schemas.ModelList(data=[schemas.Model(id=service.encoder.name)])

    @router.get("/v1/models/{model:path}")
    async def model(model: str) -> schemas.Model:
        """A model that is served."""
        check_model(service, model)
        return schemas.Model(id=service.encoder.name)

    return router


def search_routes(service: Service) -> APIRouter:
    """Search, the map and what is served."""
    router = APIRouter(responses=_ERRORS)

    @router.post("/search")
    async def search(request: schemas.SearchRequest) -> schemas.SearchResponse:
        """Find passages by meaning and, if `hybrid`, by words as well."""
        check_index(service)
        check_texts(service, [request.query], "query")
        if request.k > service.settings.max_hits:
            raise ApiError(400, f"k: at most {service.settings.max_hits}.", param="k")
        log_texts(service, [request.query])
        hits = await service.search(request.query, request.k, request.filter, request.hybrid)
        return schemas.SearchResponse(hits=[schemas.Hit.model_validate(hit, from_attributes=True) for hit in hits])

    @router.get("/map", response_model=schemas.MapResponse)
    async def plane(n: Annotated[int, Query(ge=1)] = 1000) -> Response:
        """Passages in the plane of their first two principal components."""
        check_index(service)
        if n > service.settings.max_map_points:
            raise ApiError(400, f"n: at most {service.settings.max_map_points}.", param="n")
        return Response(await service.map(n), media_type="application/json")

    @router.get("/info")
    async def info() -> schemas.Info:
        """What is served."""
        return schemas.Info(**await service.info())

    return router


def state_routes(service: Service) -> APIRouter:
    """Health and metrics."""
    router = APIRouter()

    @router.get("/health")
    async def health() -> schemas.Status:
        """Whether the server runs."""
        return schemas.Status(status="ok")

    @router.get("/ready", response_model=schemas.Status, responses={503: {"model": schemas.Status}})
    async def ready() -> JSONResponse:
        """Whether the server takes requests."""
        return JSONResponse({"status": "ready" if service.ready else "stopping"}, 200 if service.ready else 503)

    @router.get("/metrics", responses={200: {"content": {"text/plain": {}}}}, response_class=Response)
    async def metrics() -> Response:
        """Counters and histograms in Prometheus' text format."""
        return Response(service.metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


def check_model(service: Service, name: str | None) -> None:
    """Refuse a model that is not served."""
    if name is not None and name != service.encoder.name:
        raise ApiError(
            404,
            f"That model is not served here; this server has {service.encoder.name}.",
            param="model",
            code="model_not_found",
        )


def check_index(service: Service) -> None:
    """Refuse what needs an index where there is none."""
    if service.index is None:
        raise ApiError(404, "This server has no index: start it with --index.", code="no_index")


def check_texts(service: Service, texts: Sequence[str], param: str = "input") -> None:
    """Refuse more texts, or longer ones, than the settings allow."""
    settings = service.settings
    if len(texts) > settings.max_texts:
        raise ApiError(400, f"{param}: {len(texts)} texts; at most {settings.max_texts} at once.", param=param)
    longest = max(map(len, texts))
    if longest > settings.max_characters:
        raise ApiError(
            400, f"{param}: a text of {longest:,} characters; at most {settings.max_characters:,}.", param=param
        )


def log_texts(service: Service, texts: Sequence[str]) -> None:
    """Log texts, where that was asked for."""
    if service.settings.log_text:
        logger.info("texts: %s", json.dumps(list(texts), ensure_ascii=False))


def shorten(rows: np.ndarray, width: int) -> np.ndarray:
    """The first dimensions of embeddings, of length 1 again.

    Example:
        >>> shorten(np.array([[0.6, 0.0, 0.8]], dtype=np.float32), 2).tolist()
        [[1.0, 0.0]]
    """
    if width == rows.shape[1]:
        return rows
    rows = rows[:, :width]
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def float_rows(rows: np.ndarray) -> str:
    """Embeddings as JSON's members of ``data``: numbers that give back the same float32.

    Example:
        >>> float_rows(np.array([[0.5, -1.0]], dtype=np.float32))
        '{"object":"embedding","index":0,"embedding":[0.5,-1.0]}'
    """
    written = (json.dumps(row.tolist(), separators=(",", ":")) for row in rows)
    return _members(written)


def base64_rows(rows: np.ndarray) -> str:
    """Embeddings as JSON's members of ``data``: base64 of little-endian float32.

    Example:
        >>> base64_rows(np.array([[0.5]], dtype=np.float32))
        '{"object":"embedding","index":0,"embedding":"AAAAPw=="}'
    """
    written = (f'"{base64.b64encode(row.tobytes()).decode()}"' for row in rows.astype("<f4"))
    return _members(written)


def _members(written: Any) -> str:
    return ",".join(f'{{"object":"embedding","index":{index},"embedding":{row}}}' for index, row in enumerate(written))

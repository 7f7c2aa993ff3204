"""The application: OpenAI's routes, search, health and metrics, the pages, and the gate around them all."""

from __future__ import annotations

import base64
import json
import logging
from contextlib import asynccontextmanager
from html import escape
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import anyio.to_thread
import numpy as np
import orjson
from fastapi import APIRouter, Depends, FastAPI, Query, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from prometheus_client import generate_latest
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from . import schemas
from .gate import BEARER, ApiError, Gate, as_api_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from starlette.requests import Request

    from .service import Service

logger = logging.getLogger("distilface_st.serving")

STATIC = Path(__file__).parent / "static"
_PAGE_SOURCES = "script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:"
_DOCS_SOURCES = "style-src 'unsafe-inline'"

_WRITE_AT_ONCE = 64
"""Embeddings that are written as JSON on the event loop; more would hold up other requests."""

_ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": schemas.ErrorResponse, "description": "The request cannot be answered as it is."},
    "5XX": {"model": schemas.ErrorResponse, "description": "The server cannot answer now."},
}


def create_app(service: Service) -> FastAPI:
    """An application for any ASGI server that serves an encoder and, if there is one, an index.

    When it shuts down, it closes the service.

    Example:
        ::

            app = create_app(open_service("distilface-mini", settings=ServerSettings(api_keys=("secret",))))
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await anyio.to_thread.run_sync(service.close)

    async def answer(_: Request, error: Exception) -> JSONResponse:
        return as_api_error(error).response()

    app = FastAPI(
        title="distilface",
        version=metadata.version("distilface-st"),
        description="Embeddings and search. Errors have the shape of OpenAI's.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        # Starlette would answer these two in its own words; all other exceptions reach the gate.
        exception_handlers={RequestValidationError: answer, HTTPException: answer},
    )
    # The gate checks the keys; this only tells OpenAPI of them.
    security = [Depends(BEARER)] if service.settings.api_keys else []
    app.include_router(_api_routes(service), responses=_ERRORS, dependencies=security)
    app.include_router(_search_routes(service), responses=_ERRORS, dependencies=security)
    app.include_router(_state_routes(service))
    _add_pages(app)
    app.add_middleware(Gate, service=service)
    return app


def _api_routes(service: Service) -> APIRouter:
    """OpenAI's routes for embeddings and models."""
    router = APIRouter()

    @router.post("/v1/embeddings", response_model=schemas.EmbeddingResponse)
    async def embeddings(request: schemas.EmbeddingRequest) -> Response:
        """Embed texts, as OpenAI's API does. Embeddings have length 1."""
        texts = [request.input] if isinstance(request.input, str) else request.input
        _check_model(service, request.model)
        _check_texts(service, texts)
        width = request.dimensions or service.encoder.dimension
        if width > service.encoder.dimension:
            raise ApiError(400, f"dimensions: the model has {service.encoder.dimension}.", param="dimensions")
        rows, tokens = await service.embed(texts)
        rows = shorten(rows, width)
        if len(texts) > _WRITE_AT_ONCE:
            written = await anyio.to_thread.run_sync(write_rows, rows, request.encoding_format)
        else:
            written = write_rows(rows, request.encoding_format)
        body = {
            "object": "list",
            "data": [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(written)],
            "model": service.encoder.name,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
        return Response(orjson.dumps(body), media_type="application/json")

    @router.get("/v1/models")
    async def models() -> schemas.ModelList:
        """The models that are served."""
        return schemas.ModelList(data=[schemas.Model(id=service.encoder.name)])

    @router.get("/v1/models/{model:path}")
    async def model(model: str) -> schemas.Model:
        """A model that is served."""
        _check_model(service, model)
        return schemas.Model(id=service.encoder.name)

    return router


def _search_routes(service: Service) -> APIRouter:
    """Search, the map, what is served and what is counted."""
    router = APIRouter()

    @router.post("/search")
    async def search(request: schemas.SearchRequest) -> schemas.SearchResponse:
        """Find passages by meaning and, if `hybrid`, by words as well."""
        _check_index(service)
        _check_texts(service, [request.query], "query")
        if request.k > service.settings.max_hits:
            raise ApiError(400, f"k: at most {service.settings.max_hits}.", param="k")
        hits = await service.search(request.query, request.k, request.filter, request.hybrid)
        return schemas.SearchResponse(hits=hits)

    @router.get("/map", response_model=schemas.MapResponse)
    async def pca_map(n: Annotated[int, Query(ge=1)] = 1000) -> Response:
        """Passages in the plane of their first two principal components."""
        _check_index(service)
        if n > service.settings.max_map_points:
            raise ApiError(400, f"n: at most {service.settings.max_map_points}.", param="n")
        return Response(await service.map(n), media_type="application/json")

    @router.get("/info")
    async def info() -> schemas.Info:
        """What is served."""
        return schemas.Info(**await service.info())

    @router.get("/metrics", responses={200: {"content": {"text/plain": {}}}}, response_class=Response)
    async def metrics() -> Response:
        """Counters and histograms in Prometheus' text format."""
        written = generate_latest(service.metrics.registry)
        return Response(written, media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


def _state_routes(service: Service) -> APIRouter:
    """Health: open to all."""
    router = APIRouter()

    @router.get("/health")
    async def health() -> schemas.Status:
        """Whether the server runs."""
        return schemas.Status(status="ok")

    @router.get("/ready", response_model=schemas.Status, responses={503: {"model": schemas.Status}})
    async def ready() -> JSONResponse:
        """Whether the server takes requests."""
        return JSONResponse({"status": "ready" if service.ready else "stopping"}, 200 if service.ready else 503)

    return router


def _add_pages(app: FastAPI) -> None:
    """Pages for people, which load nothing from elsewhere: the search page and a list of the routes."""
    app.mount("/static", StaticFiles(directory=STATIC, check_dir=False))

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        if not (STATIC / "index.html").is_file():
            raise ApiError(404, "This installation has no page; /docs lists the routes.")
        return FileResponse(STATIC / "index.html", headers=_page_headers(_PAGE_SOURCES))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(docs_page(app.openapi()), headers=_page_headers(_DOCS_SOURCES))


def _page_headers(sources: str) -> dict[str, str]:
    nothing_else = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    return {
        "Content-Security-Policy": f"default-src 'none'; {sources}; {nothing_else}",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }


def docs_page(schema: dict[str, Any]) -> str:
    """A list of the routes of an OpenAPI schema, in plain HTML.

    Example:
        >>> "<code>GET /health</code>" in docs_page(
        ...     {"info": {"title": "t", "version": "1"}, "paths": {"/health": {"get": {"description": "Runs?"}}}}
        ... )
        True
    """
    rows = "\n".join(
        f"<dt><code>{escape(method.upper())} {escape(path)}</code></dt><dd>{escape(route.get('description', ''))}</dd>"
        for path, methods in schema["paths"].items()
        for method, route in methods.items()
    )
    title = f"{escape(schema['info']['title'])} {escape(schema['info']['version'])}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<style>body{font:1rem/1.5 system-ui,sans-serif;max-width:44rem;margin:2rem auto;padding:0 1rem}"
        "dt{margin-top:1rem}:root{color-scheme:light dark}</style></head>"
        f'<body><h1>{title}</h1><p>Schemas of requests and answers: <a href="openapi.json">openapi.json</a>.</p>'
        f"<dl>{rows}</dl></body></html>"
    )


def _check_model(service: Service, name: str | None) -> None:
    served = service.encoder.name
    if name is not None and name != served:
        said = f"That model is not served here; this server has {served}."
        raise ApiError(404, said, "model_not_found", param="model")


def _check_index(service: Service) -> None:
    if service.index is None:
        raise ApiError(404, "This server has no index: start it with --index.", "no_index")


def _check_texts(service: Service, texts: Sequence[str], param: str = "input") -> None:
    """Refuse more texts, or longer ones, than the settings allow; log them, where that was asked for."""
    settings = service.settings
    if len(texts) > settings.max_texts:
        raise ApiError(400, f"{param}: {len(texts)} texts; at most {settings.max_texts} at once.", param=param)
    longest = max(map(len, texts))
    if longest > settings.max_characters:
        said = f"{param}: a text of {longest:,} characters; at most {settings.max_characters:,}."
        raise ApiError(400, said, param=param)
    if settings.log_text:
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


def write_rows(rows: np.ndarray, encoding_format: str) -> list[Any]:
    """Embeddings as JSON holds them: numbers that give back the same float32, or base64 of little-endian float32.

    Example:
        >>> rows = np.array([[0.5, -1.0]], dtype=np.float32)
        >>> orjson.dumps(write_rows(rows, "float")), write_rows(rows, "base64")
        (b'[[0.5,-1.0]]', ['AAAAPwAAgL8='])
    """
    if encoding_format == "base64":
        return [base64.b64encode(row.tobytes()).decode() for row in rows.astype("<f4")]
    # Row by row, since orjson holds the interpreter's lock while it writes; as float64, since it would write a float32
    # as the shortest decimal that is nearest to it, which reads as another float64.
    return [orjson.Fragment(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)) for row in rows.astype(np.float64)]

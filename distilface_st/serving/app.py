"""The application (OpenAI's routes, search, health, metrics, pages) and the server that runs it until told to stop."""

from __future__ import annotations

import base64
import copy
import ipaddress
import json
import logging
import time
from contextlib import asynccontextmanager
from functools import partial
from html import escape
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import anyio.to_thread
import numpy as np
import orjson
import uvicorn
from fastapi import APIRouter, Depends, FastAPI, Query, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from prometheus_client import generate_latest
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles
from typing_extensions import override
from uvicorn.config import LOGGING_CONFIG

from ..errors import InputError
from ..models.encoders import open_encoder
from ..search import SearchIndex
from . import schemas
from .encoder import ServedEncoder, display_name
from .gate import BEARER, ApiError, Gate, as_api_error
from .service import ServerSettings, Service

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Sequence

    from starlette.requests import Request

logger = logging.getLogger("distilface_st.serving")

_STATIC = Path(__file__).parent / "static"

_WRITE_AT_ONCE = 64
"""Embeddings that are written as JSON on the event loop; more would hold up other requests."""

_FIRST_QUERY = "The first run of a graph is slow: better now than for the first client."

_ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": schemas.ErrorResponse, "description": "The request cannot be answered as it is."},
    "5XX": {"model": schemas.ErrorResponse, "description": "The server cannot answer now."},
}


def serve(
    model: str | os.PathLike[str] | None = None,
    index: str | os.PathLike[str] | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    settings: ServerSettings | None = None,
    device: str | None = None,
    runtime: str | None = None,
    threads: int | None = None,
) -> None:
    """Serve a model, and an index if one is given, until SIGINT or SIGTERM; then finish what was accepted.

    Args:
        model: A folder, a Hub name or a shipped model's name; by default the index's own, or without an index
            ``distilface-mini``.
        index: Folder of an index that ``distilface index`` made.
        host: Address to listen on; by default this machine only.
        port: Port to listen on; 0 for any that is free.
        settings: Keys, batching and limits.
        device: As in :func:`distilface_st.models.encoders.open_encoder`.
        runtime: Likewise.
        threads: Likewise.

    Raises:
        InputError: A model or an index that cannot be opened, or that do not belong together.
        MissingExtraError: The runtime is not installed.
    """
    run(open_service(model, index, settings, device=device, runtime=runtime, threads=threads), host, port)


def open_service(
    model: str | os.PathLike[str] | None = None,
    index: str | os.PathLike[str] | None = None,
    settings: ServerSettings | None = None,
    *,
    device: str | None = None,
    runtime: str | None = None,
    threads: int | None = None,
) -> Service:
    """Open what :func:`serve` serves; :func:`create_app` makes an application of it.

    The encoder and the index are asked once, by vectors and by words, so that the first client waits no longer than the
    next: before there is a queue, which would count it, and before the server handles SIGTERM, which stops it at once.
    """
    opened = None if index is None else SearchIndex.open(index)
    if opened is not None:
        model, runtime = model or opened.model, runtime or opened.runtime
    encoder = open_encoder(model, device=device, runtime=runtime, threads=threads)
    if opened is not None:
        opened.use(encoder)  # which refuses another model than the index's
    served = ServedEncoder(encoder, display_name(model))
    served.encode([_FIRST_QUERY])
    served.count_tokens([_FIRST_QUERY])
    if opened is not None:
        opened.search([_FIRST_QUERY], hybrid=True)
    return Service(served, opened, settings or ServerSettings())


def run(service: Service, host: str = "127.0.0.1", port: int = 8000) -> None:
    """Answer requests until SIGINT or SIGTERM; then finish what was accepted, and answer all else with 503."""
    server = http_server(service, host, port)
    if not is_loopback(host) and not service.settings.api_keys:
        logger.warning("Anyone who can reach %s may use this server: give --api-key, or keep to 127.0.0.1.", host)
    index = "" if service.index is None else " and an index made with it"
    logger.info("Serving %s (%d dimensions)%s.", service.encoder.name, service.encoder.dimension, index)
    server.run()


def http_server(service: Service, host: str = "127.0.0.1", port: int = 8000) -> uvicorn.Server:
    """The server that :func:`run` runs. Told to stop, it closes its port only when accepted requests are finished."""
    log_config: dict[str, Any] = copy.deepcopy(LOGGING_CONFIG)
    log_config["loggers"]["uvicorn.access"] = {"handlers": [], "level": "WARNING", "propagate": False}
    log_config["loggers"][logger.name] = {"handlers": ["default"], "level": "INFO", "propagate": False}
    config = uvicorn.Config(
        create_app(service),
        host=host,
        port=port,
        log_config=log_config,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        lifespan="on",
        timeout_keep_alive=service.settings.keep_alive,  # type: ignore[arg-type]  # seconds, as any number
        timeout_graceful_shutdown=max(1, int(service.settings.drain_timeout)),
    )
    return _DrainingServer(config, service)


class _DrainingServer(uvicorn.Server):
    """A server that, told to stop, goes on to answer (new work with 503) until accepted requests are finished."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service, self._deadline = service, float("inf")

    @override
    def handle_exit(self, sig: int, frame: Any) -> None:
        if self._service.stopping:  # told twice: at once
            self.should_exit = self.force_exit = True
        self._service.stopping = True
        self._deadline = time.monotonic() + self._service.settings.drain_timeout

    @override
    async def on_tick(self, counter: int) -> bool:
        if self._service.stopping and (not self._service.at_work or time.monotonic() > self._deadline):
            self.should_exit = True
        return await super().on_tick(counter)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def create_app(service: Service) -> FastAPI:
    """An application for any ASGI server, which closes the service when it shuts down."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await anyio.to_thread.run_sync(service.close)

    async def answer(_: Request, error: Exception) -> JSONResponse:
        return as_api_error(error).response()

    app = FastAPI(
        title="distilface",
        version=metadata.version("distilface-st"),
        description="Embeddings, reranking and search. Errors have the shape of OpenAI's.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        # Starlette would answer these two in its own words; all other exceptions reach the gate.
        exception_handlers={RequestValidationError: answer, HTTPException: answer},
    )
    # The gate checks the keys; this only tells OpenAPI of them.
    security = [Depends(BEARER)] if service.settings.api_keys else []
    app.include_router(_api_routes(service), responses=_ERRORS, dependencies=security)
    _add_open_routes(app, service)
    app.add_middleware(Gate, service=service)
    return app


def _api_routes(service: Service) -> APIRouter:
    """The routes that a key opens: OpenAI's, reranking, search, the map, what is served and what is counted."""
    router = APIRouter()

    @router.post("/v1/embeddings", response_model=schemas.EmbeddingResponse)
    async def embeddings(request: schemas.EmbeddingRequest) -> Response:
        """Embed texts, as OpenAI's API does. Embeddings have length 1."""
        _check_model(service, request.model)
        texts = await _texts_of(service, request.input)
        _check_texts(service, texts)
        width = request.dimensions or service.encoder.dimension
        if width > service.encoder.dimension:
            raise ApiError(400, f"dimensions: the model has {service.encoder.dimension}.", param="dimensions")
        rows, tokens = await service.embed(texts)
        write = partial(write_rows, shorten(rows, width), request.encoding_format)
        written = write() if len(texts) <= _WRITE_AT_ONCE else await anyio.to_thread.run_sync(write)
        body = {
            "object": "list",
            "data": [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(written)],
            "model": service.encoder.name,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
        return Response(orjson.dumps(body), media_type="application/json")

    @router.post("/v1/rerank", response_model_exclude_none=True)
    async def rerank(request: schemas.RerankRequest) -> schemas.RerankResponse:
        """Rank documents by how similar their embeddings are to a query's, as Cohere's and Jina's APIs do."""
        _check_model(service, request.model)
        texts = [entry if isinstance(entry, str) else entry.text for entry in request.documents]
        _check_texts(service, [request.query], "query")
        _check_texts(service, texts, "documents")
        scores, tokens = await service.rerank(request.query, texts)
        best = np.argsort(-scores, kind="stable")[: request.top_n].tolist()
        results = [schemas.RerankResult(index=index, relevance_score=float(scores[index])) for index in best]
        if request.return_documents:
            for result in results:
                result.document = schemas.RerankDocument(text=texts[result.index])
        usage = schemas.Usage(prompt_tokens=tokens, total_tokens=tokens)
        return schemas.RerankResponse(model=service.encoder.name, results=results, usage=usage)

    @router.get("/v1/models")
    async def models() -> schemas.ModelList:
        """The models that are served."""
        return schemas.ModelList(data=[schemas.Model(id=service.encoder.name)])

    @router.get("/v1/models/{model:path}")
    async def model(model: str) -> schemas.Model:
        """A model that is served."""
        _check_model(service, model)
        return schemas.Model(id=service.encoder.name)

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
        counted = generate_latest(service.metrics.registry)
        return Response(counted, media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


def _add_open_routes(app: FastAPI, service: Service) -> None:
    """Routes open to all: health, and pages for people, which load nothing from elsewhere."""

    @app.get("/health")
    async def health() -> schemas.Status:
        """Whether the server runs."""
        return schemas.Status(status="ok")

    @app.get("/ready", response_model=schemas.Status, responses={503: {"model": schemas.Status}})
    async def ready() -> JSONResponse:
        """Whether the server takes requests."""
        return JSONResponse({"status": "ready" if service.ready else "stopping"}, 200 if service.ready else 503)

    app.mount("/static", StaticFiles(directory=_STATIC, check_dir=False))

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        if not (_STATIC / "index.html").is_file():
            raise ApiError(404, "This installation has no page; /docs lists the routes.")
        sources = "script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:"
        return FileResponse(_STATIC / "index.html", headers=_page_headers(sources))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(docs_page(app.openapi()), headers=_page_headers("style-src 'unsafe-inline'"))


def _page_headers(sources: str) -> dict[str, str]:
    nothing_else = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    return {
        "Content-Security-Policy": f"default-src 'none'; {sources}; {nothing_else}",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }


def docs_page(schema: dict[str, Any]) -> str:
    """A list of the routes of an OpenAPI schema, in plain HTML."""
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
    if name not in (None, served):
        said = f"That model is not served here; this server has {served}."
        raise ApiError(404, said, "model_not_found", param="model")


async def _texts_of(service: Service, given: str | list[str] | list[int] | list[list[int]]) -> Sequence[str]:
    """What ``input`` holds as texts; token ids are read by the model's tokenizer."""
    if isinstance(given, str):
        return [given]
    if isinstance(given[0], str):
        return given
    ids = [given] if isinstance(given[0], int) else given
    try:
        return await anyio.to_thread.run_sync(lambda: [service.encoder.text_of(row) for row in ids])
    except InputError as error:
        raise ApiError(400, f"input: {error}", param="input") from error


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
    """The first dimensions of embeddings, of length 1 again."""
    if width == rows.shape[1]:
        return rows
    rows = rows[:, :width]
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def write_rows(rows: np.ndarray, encoding_format: str) -> list[Any]:
    """Embeddings as JSON holds them: numbers that give back the same float32, or base64 of little-endian float32."""
    if encoding_format == "base64":
        return [base64.b64encode(row.tobytes()).decode() for row in rows.astype("<f4")]
    # Row by row, since orjson holds the interpreter's lock while it writes; as float64, since it would write a float32
    # as the shortest decimal that is nearest to it, which reads as another float64.
    return [orjson.Fragment(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)) for row in rows.astype(np.float64)]

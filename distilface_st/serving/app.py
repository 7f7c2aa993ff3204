"""The application: routes, pages and the gate, put together."""

from __future__ import annotations

from contextlib import asynccontextmanager
from importlib import metadata
from typing import TYPE_CHECKING

import anyio.to_thread
from fastapi import FastAPI

from . import errors, pages
from .gate import Gate
from .routes import api_routes, search_routes, state_routes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .service import Service


def create_app(service: Service) -> FastAPI:
    """An ASGI application that serves an encoder and, if there is one, an index.

    Args:
        service: What it serves. When the application shuts down, the service is closed.

    Returns:
        The application, for uvicorn or any other ASGI server.

    Example:
        ::

            settings = ServerSettings(api_keys=("secret",))
            app = create_app(Service(open_encoder(), None, settings))
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await anyio.to_thread.run_sync(service.close)

    app = FastAPI(
        title="distilface",
        version=metadata.version("distilface-st"),
        description="Embeddings and search. Errors have the shape of OpenAI's.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    for router in (api_routes(service), search_routes(service), state_routes(service)):
        app.include_router(router)
    pages.install(app)
    errors.install(app)
    app.add_middleware(Gate, service=service)
    return app

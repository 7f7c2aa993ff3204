"""Pages for people, all of them local: the search page and a list of the routes."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from fastapi.responses import FileResponse, HTMLResponse
from starlette.staticfiles import StaticFiles

from .errors import ApiError

if TYPE_CHECKING:
    from fastapi import FastAPI

STATIC = Path(__file__).parent / "static"
_NOTHING_ELSE = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    + _NOTHING_ELSE
)
_DOCS_POLICY = "default-src 'none'; style-src 'unsafe-inline'; " + _NOTHING_ELSE
_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
_POLICY = "Content-Security-Policy"


def install(app: FastAPI) -> None:
    """Add ``/``, ``/docs`` and ``/static`` to an application that has its other routes."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def page() -> FileResponse:
        if not (STATIC / "index.html").is_file():
            raise ApiError(404, "This installation has no page; /docs lists the routes.")
        return FileResponse(STATIC / "index.html", headers={**_HEADERS, _POLICY: _PAGE_POLICY})

    @router.get("/docs")
    async def docs() -> HTMLResponse:
        return HTMLResponse(docs_page(app.openapi()), headers={**_HEADERS, _POLICY: _DOCS_POLICY})

    app.include_router(router)
    app.mount("/static", StaticFiles(directory=STATIC, check_dir=False))


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

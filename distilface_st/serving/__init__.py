"""A server for embeddings and search: OpenAI's API, dynamic batching, bounded queues. It needs the extra ``serve``."""

from __future__ import annotations

from ..utils.extras import require

for _module in ("fastapi", "orjson", "prometheus_client", "uvicorn"):
    require(_module, "Serving", "serve")

# After the check, so that a missing library is named with the extra that brings it.
from .app import http_server, open_service, run, serve  # noqa: E402
from .service import ServerSettings  # noqa: E402

__all__ = ["ServerSettings", "http_server", "open_service", "run", "serve"]

"""A server for embeddings and search: OpenAI's API, dynamic batching, bounded queues. It needs the extra ``serve``."""

from __future__ import annotations

from .encoders import open_encoder
from .server import http_server, open_service, run, serve
from .settings import ServerSettings

__all__ = ["ServerSettings", "http_server", "open_encoder", "open_service", "run", "serve"]

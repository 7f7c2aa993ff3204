"""Open a model and perhaps an index, and answer over HTTP until told to stop."""

from __future__ import annotations

import copy
import ipaddress
import logging
import time
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtraError
from .encoders import open_encoder
from .settings import ServerSettings

if TYPE_CHECKING:
    import os

    import uvicorn

    from .protocols import ServedIndex
    from .service import Service

logger = logging.getLogger("distilface_st.serving")


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
            :func:`distilface_st.shipped_model`.
        index: Folder of an index that ``distilface index`` made.
        host: Address to listen on; by default this machine only.
        port: Port to listen on; 0 for any that is free.
        settings: Keys, batching and limits.
        device: For a model that is not exported: where to run.
        runtime: For an exported model: ``onnxruntime``, ``openvino`` or ``auto``.
        threads: For an exported model: processor threads.

    Raises:
        InputError: A model or an index that cannot be opened, or that do not belong together.
        MissingExtraError: The extra ``serve`` is not installed.
    """
    _require_extra()
    settings = settings or ServerSettings()
    service = open_service(model, index, settings, device=device, runtime=runtime, threads=threads)
    run(service, host, port)


def open_service(
    model: str | os.PathLike[str] | None = None,
    index: str | os.PathLike[str] | None = None,
    settings: ServerSettings | None = None,
    *,
    device: str | None = None,
    runtime: str | None = None,
    threads: int | None = None,
) -> Service:
    """Open what :func:`serve` serves; :func:`distilface_st.serving.app.create_app` makes an application of it."""
    _require_extra()
    from .service import Service

    opened: ServedIndex | None = None
    if index is not None:
        from ..search import SearchIndex

        found = SearchIndex.open(index)
        encoder = open_encoder(model or found.model, device=device, runtime=runtime, threads=threads)
        found.use(encoder.model, encoder.name)  # which refuses another model than the index's
        opened = found
    else:
        encoder = open_encoder(model, device=device, runtime=runtime, threads=threads)
    encoder.encode(["The first run of a graph is slow: better now than for the first client."])
    return Service(encoder, opened, settings or ServerSettings())


def run(service: Service, host: str = "127.0.0.1", port: int = 8000) -> None:
    """Answer requests until SIGINT or SIGTERM; then finish what was accepted, and answer all else with 503.

    Args:
        service: What to serve.
        host: Address to listen on.
        port: Port to listen on; 0 for any that is free.
    """
    server = http_server(service, host, port)
    if not is_loopback(host) and not service.settings.api_keys:
        logger.warning("Anyone who can reach %s may use this server: give --api-key, or keep to 127.0.0.1.", host)
    index = "" if service.index is None else " and an index made with it"
    logger.info("Serving %s (%d dimensions)%s.", service.encoder.name, service.encoder.dimension, index)
    server.run()


def http_server(service: Service, host: str = "127.0.0.1", port: int = 8000) -> uvicorn.Server:
    """The server that :func:`run` runs. Told to stop, it closes its port only when accepted requests are finished."""
    _require_extra()
    import uvicorn

    from .app import create_app

    class Draining(uvicorn.Server):
        deadline = float("inf")

        def handle_exit(self, sig: int, frame: Any) -> None:
            if service.stopping:
                self.should_exit = self.force_exit = True
            service.stopping = True
            self.deadline = time.monotonic() + service.settings.drain_timeout

        async def on_tick(self, counter: int) -> bool:
            if service.stopping and (not service.at_work or time.monotonic() > self.deadline):
                self.should_exit = True
            return await super().on_tick(counter)

    config = uvicorn.Config(
        create_app(service),
        host=host,
        port=port,
        log_config=_log_config(),
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        lifespan="on",
        timeout_graceful_shutdown=max(1, int(service.settings.drain_timeout)),
    )
    return Draining(config)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address.

    Example:
        >>> is_loopback("localhost"), is_loopback("::1"), is_loopback("0.0.0.0"), is_loopback("")
        (True, True, False, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _log_config() -> dict[str, Any]:
    from uvicorn.config import LOGGING_CONFIG

    config = copy.deepcopy(LOGGING_CONFIG)
    config["loggers"]["uvicorn.access"] = {"handlers": [], "level": "WARNING", "propagate": False}
    config["loggers"][logger.name] = {"handlers": ["default"], "level": "INFO", "propagate": False}
    return config


def _require_extra() -> None:
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("Serving", "serve") from error

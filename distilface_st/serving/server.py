"""Open a model and perhaps an index, and answer over HTTP until told to stop."""

from __future__ import annotations

import copy
import ipaddress
import logging
import time
from typing import TYPE_CHECKING, Any

import uvicorn
from typing_extensions import override
from uvicorn.config import LOGGING_CONFIG

from ..models.encoders import open_encoder
from ..search import SearchIndex
from .app import create_app
from .encoder import ServedEncoder, display_name
from .service import ServerSettings, Service

if TYPE_CHECKING:
    import os

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
    """Open what :func:`serve` serves; :func:`distilface_st.serving.app.create_app` makes an application of it."""
    opened = None if index is None else SearchIndex.open(index)
    if opened is not None:
        model, runtime = model or opened.model, runtime or opened.runtime
    encoder = open_encoder(model, device=device, runtime=runtime, threads=threads)
    if opened is not None:
        opened.use(encoder)  # which refuses another model than the index's
    served = ServedEncoder(encoder, display_name(model))
    served.encode(["The first run of a graph is slow: better now than for the first client."])
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
        timeout_graceful_shutdown=max(1, int(service.settings.drain_timeout)),
    )
    return _DrainingServer(config, service)


class _DrainingServer(uvicorn.Server):
    """A server that, told to stop, goes on to answer (new work with 503) until accepted requests are finished."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._deadline = float("inf")

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
    """Whether only this machine can reach an address.

    Example:
        >>> is_loopback("localhost"), is_loopback("::1"), is_loopback("0.0.0.0"), is_loopback("")
        (True, True, False, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

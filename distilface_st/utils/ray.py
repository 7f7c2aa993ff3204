"""A Ray cluster: the one at hand, one at an address, or one on this machine for as long as it is needed."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .extras import require

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def ray_cluster(purpose: str, address: str, cpus: int, gpus: float | None = None) -> Iterator[Any]:
    """Be connected to a cluster that has the cores wanted.

    Args:
        purpose: What it is for, for the errors.
        address: The cluster's; ``local`` starts one on this machine. One that this process is connected to is used.
        cpus: Cores wanted. A cluster that has fewer, or fewer GPUs, is an :class:`InputError`.
        gpus: GPUs wanted.

    Yields:
        The library.
    """
    ray = ray_library(purpose)
    is_ours = not ray.is_initialized()
    if is_ours and address == "local":
        ray.init(num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level="error")
    elif is_ours:
        ray.init(address, log_to_driver=False, logging_level="error")
    try:
        there = ray.cluster_resources()
        for kind, wanted in (("CPU", cpus), ("GPU", gpus or 0)):
            if there.get(kind, 0) < wanted:
                raise InputError(f"{purpose} wants {wanted} {kind}s, on a cluster of {there.get(kind, 0):g}.")
        yield ray
    finally:
        if is_ours:
            ray.shutdown()


def ray_library(purpose: str) -> Any:
    """The library, or an error that says how to get it."""
    return require("ray", purpose, "ray")

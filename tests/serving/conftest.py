from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from distilface_st import shipped_model
from distilface_st.serving import ServerSettings, open_service

from .fakes import FakeEncoder, FakeIndex, fake_service, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from distilface_st.serving.service import Service


@pytest.fixture(scope="package")
def micro() -> Iterator[httpx.Client]:
    """A server of distilface-micro."""
    pytest.importorskip("onnxruntime")
    with serving(open_service(shipped_model("micro"), settings=ServerSettings(), threads=1)) as http:
        yield http


@pytest.fixture(scope="package")
def index() -> FakeIndex:
    return FakeIndex([f"passage {number}" for number in range(20)])


@pytest.fixture(scope="package")
def http(index) -> Iterator[httpx.Client]:
    """A server of a fake encoder and a fake index, with limits of its own."""
    with serving(fake_service(index=index, max_map_points=50, max_body_bytes=150_000)) as http:
        yield http


@pytest.fixture(scope="package")
def impatient(index) -> Iterator[tuple[httpx.Client, Service, FakeEncoder]]:
    """A server that gives a request 0.3 s."""
    encoder = FakeEncoder()
    service = fake_service(encoder, index, request_timeout=0.3)
    with serving(service) as http:
        yield http, service, encoder

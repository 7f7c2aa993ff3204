from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from distilface_st import shipped_model
from distilface_st.serving import ServerSettings, open_service

from .fakes import serving

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="package")
def micro() -> Iterator[str]:
    """The address of a server of distilface-micro."""
    pytest.importorskip("onnxruntime")
    with serving(open_service(shipped_model("micro"), settings=ServerSettings(), threads=1)) as address:
        yield address

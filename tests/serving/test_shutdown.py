"""A server told to stop, as a process of its own."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
SERVER = """
import sys
from distilface_st.serving import run
from tests.serving.fakes import FakeEncoder, fake_service
run(fake_service(FakeEncoder(seconds=0.4), batch_tokens=2), host=sys.argv[1], port=0)
"""


@pytest.fixture
def process(request) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """A server whose batches of two words take 0.4 s, its address, and what it says."""
    host = getattr(request, "param", "127.0.0.1")
    with subprocess.Popen([sys.executable, "-c", SERVER, host], cwd=ROOT, stderr=subprocess.PIPE, text=True) as started:
        said: list[str] = []
        assert started.stderr is not None
        for line in started.stderr:
            said.append(line)
            if found := re.search(r"running on http://\S+:(\d+)", line):
                break
        else:
            pytest.fail("".join(said))
        reader = threading.Thread(target=lambda: said.extend(started.stderr or []), daemon=True)
        reader.start()
        yield started, f"http://127.0.0.1:{found.group(1)}", said
        if started.poll() is None:
            started.kill()


def test_sigterm_finishes_what_was_accepted_and_refuses_new_requests(process) -> None:
    started, address, said = process
    with ThreadPoolExecutor(4) as pool:
        accepted = [
            pool.submit(httpx.post, f"{address}/v1/embeddings", json={"input": f"text {i}"}, timeout=20)
            for i in range(4)
        ]
        time.sleep(0.3)
        started.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        refused = httpx.post(f"{address}/v1/embeddings", json={"input": "late"}, timeout=20)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "stopping"
        assert httpx.get(f"{address}/ready").status_code == 503
        assert httpx.get(f"{address}/health").status_code == 200
        assert [future.result(20).status_code for future in accepted] == [200] * 4
    assert started.wait(10) == 0
    assert "Traceback" not in "".join(said)
    assert json.loads(refused.text)


def test_an_idle_server_stops_at_once(process) -> None:
    started, address, _ = process
    assert httpx.get(f"{address}/ready").status_code == 200
    started.send_signal(signal.SIGTERM)
    assert started.wait(5) == 0


@pytest.mark.parametrize(("process", "warned"), [("0.0.0.0", True), ("127.0.0.1", False)], indirect=["process"])
def test_a_server_open_to_all_without_a_key_warns(process, warned) -> None:
    _, _, said = process
    assert any("Anyone who can reach" in line for line in said) == warned

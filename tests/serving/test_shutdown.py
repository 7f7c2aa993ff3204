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
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .fakes import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx

ROOT = Path(__file__).parents[2]
SERVER = """
import sys
from distilface_st.serving import run
from tests.serving.fakes import FakeEncoder, fake_service
run(fake_service(FakeEncoder(seconds=0.3), batch_tokens=2), host=sys.argv[1], port=0)
"""

WARMING = """
import sys, time
from distilface_st.search import SearchIndex, index_corpus
from distilface_st.serving import serve
index_corpus(sys.argv[1] + "/corpus.txt", sys.argv[1] + "/index", "micro")
def search(*_, **__):
    print("warming", file=sys.stderr, flush=True)
    time.sleep(60)
SearchIndex.search = search
serve(index=sys.argv[1] + "/index", port=0)
"""


@contextmanager
def process(host: str) -> Iterator[tuple[subprocess.Popen[str], httpx.Client, list[str]]]:
    """A server whose batches of two words take 0.3 s, a client of it, and what it says."""
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
        with connect(f"http://127.0.0.1:{found.group(1)}") as http:
            yield started, http, said
        if started.poll() is None:
            started.kill()


def warned(said: list[str]) -> bool:
    return any("Anyone who can reach" in line for line in said)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_sigterm_finishes_what_was_accepted_and_refuses_new_requests() -> None:
    with process("127.0.0.1") as (started, http, said), ThreadPoolExecutor(4) as pool:
        assert not warned(said)
        accepted = [pool.submit(http.post, "/v1/embeddings", json={"input": f"text {i}"}) for i in range(4)]
        wait_until(lambda: "distilface_requests_at_work 4.0" in http.get("/metrics").text)
        started.send_signal(signal.SIGTERM)
        wait_until(lambda: http.get("/ready").status_code == 503)
        refused = http.post("/v1/embeddings", json={"input": "late"})
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "stopping"
        assert http.get("/ready").status_code == 503
        assert http.get("/health").status_code == 200
        assert [future.result(20).status_code for future in accepted] == [200] * 4
        assert started.wait(10) == 0
        assert "Traceback" not in "".join(said)
        assert json.loads(refused.text)


def test_an_idle_server_stops_at_once_and_one_open_to_all_without_a_key_warns() -> None:
    with process("0.0.0.0") as (started, http, said):
        assert warned(said)
        assert http.get("/ready").status_code == 200
        started.send_signal(signal.SIGTERM)
        assert started.wait(5) == 0


def test_a_server_that_is_told_to_stop_before_it_is_ready_stops_at_once(tmp_path) -> None:
    pytest.importorskip("faiss")
    pytest.importorskip("onnxruntime")
    (tmp_path / "corpus.txt").write_text("Bread rises in the cold.\n", encoding="utf-8")
    command = [sys.executable, "-c", WARMING, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as started:
        assert started.stderr is not None
        assert any(line == "warming\n" for line in started.stderr)
        started.send_signal(signal.SIGTERM)
        assert started.wait(5) != 0
        assert "Traceback" not in started.stderr.read()

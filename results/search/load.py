"""What batching is worth under load, and what a server does with ten times the clients that it has room for.

    python results/search/load.py results/search [--model distilface-mini] [--seconds 10] [--rounds 5]

Writes load.csv (a row for every timing) and load.json (medians, least and most; the overload; the machine).

Two servers on this machine, one that merges requests and one that does not, take turns: in every round each is loaded
for some seconds by 32 clients, then by one, then it sleeps while the other has its turn. A client is a connection that
sends a request of one sentence, reads the whole answer and sends the next. Servers and clients share the processor, so
the numbers are lower than a server of its own would give, equally for both. ``cpu_ms`` is what the server's process
spent of the processor on a request, which does not change with what else the machine does.

For the overload a third server has room for 64 texts and meets 320 clients that do not wait before they try again. A
request that was accepted is lost if its connection ends, its answer does not come within 30 s or is not whole, or its
status is neither 200 nor 429. After it come the 32 clients again, to see whether the server has recovered.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import os
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.request import urlopen

import numpy as np

from distilface_st.benchmark.report import machine
from distilface_st.datasets.python_docs import python_sentences
from distilface_st.utils.files import write_json
from distilface_st.utils.provenance import provenance, text_fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterator

CLIENTS = 32
OVERLOAD = 10
ROOM = 64
PATIENCE = 30.0
VARIANTS: dict[str, dict[str, Any]] = {"batching": {}, "no batching": {"batching": False}}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path, nargs="?")
    parser.add_argument("--model", default="distilface-mini")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.model, json.loads(options.serve))
        return
    texts = python_sentences(2000)
    with server(options.model, VARIANTS["batching"]) as on, server(options.model, VARIANTS["no batching"]) as off:
        timings = take_turns({"batching": on, "no batching": off}, texts, options.rounds, options.seconds)
    with server(options.model, {"queue_texts": ROOM}) as small:
        overload = overload_and_recover(small, texts, options.seconds)
    with (options.output / "load.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(timings[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(timings)
    report = {
        "model": options.model,
        "text": {"source": "Python's docstrings", "sentences": len(texts), "fingerprint": text_fingerprint(texts)},
        "summary": summary(timings),
        "overload": overload,
        "machine": machine(),
        **provenance(seconds=options.seconds, rounds=options.rounds),
    }
    write_json(options.output / "load.json", report)
    print(json.dumps({"summary": report["summary"], "overload": overload}, indent=2))


def serve(model: str, settings: dict[str, Any]) -> None:
    """Be a server on a free port, which is printed first."""
    import logging
    import threading

    from distilface_st.serving import ServerSettings, http_server, open_service

    running = http_server(open_service(model, settings=ServerSettings(**settings)), port=0)
    logging.disable(logging.INFO)

    def tell() -> None:
        while not running.started:
            time.sleep(0.01)
        print(running.servers[0].sockets[0].getsockname()[1], flush=True)

    threading.Thread(target=tell, daemon=True).start()
    running.run()


class Server(NamedTuple):
    """Where a server listens, and its process."""

    port: int
    process: int

    def batches(self) -> int:
        """Batches that it has run."""
        with urlopen(f"http://127.0.0.1:{self.port}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        return int(float(next(line for line in lines if line.startswith("distilface_batch_requests_count")).split()[1]))

    def cpu_seconds(self) -> float:
        """What its process has spent of the processor; 0 where the system does not tell."""
        try:
            spent = Path(f"/proc/{self.process}/stat").read_text().rpartition(")")[2].split()[11:13]
        except OSError:
            return 0.0
        return sum(map(int, spent)) / os.sysconf("SC_CLK_TCK")


@contextmanager
def server(model: str, settings: dict[str, Any]) -> Iterator[Server]:
    """A server in a process of its own."""
    command = [sys.executable, __file__, "--model", model, "--serve", json.dumps({**settings, "request_timeout": 120})]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Server(int(process.stdout.readline()), process.pid)
        finally:
            process.terminate()


def take_turns(servers: dict[str, Server], texts: list[str], rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Load each server in turn; who begins a round alternates."""
    for running in servers.values():
        asyncio.run(load(running.port, texts, CLIENTS, min(1.0, seconds)))
    timings = []
    for number in range(rounds):
        order = list(servers) if number % 2 == 0 else list(reversed(servers))
        for variant in order:
            for clients in (CLIENTS, 1):
                running = servers[variant]
                batches, spent = running.batches(), running.cpu_seconds()
                answers = asyncio.run(load(running.port, texts, clients, seconds))
                measured = measures(answers, running.batches() - batches, running.cpu_seconds() - spent)
                timings.append({"round": number, "variant": variant, "clients": clients, **measured})
                print(timings[-1], file=sys.stderr, flush=True)
    return timings


def overload_and_recover(running: Server, texts: list[str], seconds: float) -> dict[str, Any]:
    """As many clients as the server has room for ten times over, between two measurements of its usual load."""
    port = running.port
    before = asyncio.run(load(port, texts, CLIENTS, seconds))
    during = asyncio.run(load(port, texts, CLIENTS * OVERLOAD, seconds))
    began = time.perf_counter()
    first = asyncio.run(load(port, texts, 1, 0.0))
    recovered = time.perf_counter() - began
    after = asyncio.run(load(port, texts, CLIENTS, seconds))
    statuses = Counter(answer["status"] for answer in during)
    return {
        "clients": CLIENTS * OVERLOAD,
        "room_texts": ROOM,
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "accepted": measures([answer for answer in during if answer["status"] == 200]),
        "refused": statuses[429],
        "refused_without_retry_after": sum(a["status"] == 429 and not a["retry_after"] for a in during),
        "lost": sum(count for status, count in statuses.items() if status not in (200, 429)),
        "first_answer_after_s": round(recovered, 4),
        "first_status_after": first[0]["status"],
        "requests_per_second_before": measures(before)["requests_per_second"],
        "requests_per_second_after": measures(after)["requests_per_second"],
        "refused_after": sum(answer["status"] == 429 for answer in after),
    }


async def load(port: int, texts: list[str], clients: int, seconds: float) -> list[dict[str, Any]]:
    """Every answer that clients at work side by side get; each sends one request at least."""
    answers: list[dict[str, Any]] = []
    source = cycle(texts)
    until = time.perf_counter() + seconds

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while True:
            answers.append(await one(reader, writer, next(source)))
            if time.perf_counter() >= until or not answers[-1]["status"]:
                break
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return answers


async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, text: str) -> dict[str, Any]:
    """Send a request and read its answer; status 0 where there is none."""
    body = json.dumps({"input": text, "encoding_format": "base64"}).encode()
    head = f"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    began = time.perf_counter()
    try:
        writer.write(head.encode() + b"\r\n\r\n" + body)
        status, headers, answer = await asyncio.wait_for(read_answer(reader), PATIENCE)
        if status == 200 and len(json.loads(answer)["data"]) != 1:
            status = 0
    except (OSError, EOFError, ValueError, asyncio.TimeoutError):
        status, headers = 0, {}
    ended = time.perf_counter()
    return {"status": status, "began": began, "ended": ended, "retry_after": headers.get("retry-after")}


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(first.split()[1]), headers, await reader.readexactly(int(headers["content-length"]))


def measures(answers: list[dict[str, Any]], batches: int = 0, cpu: float = 0.0) -> dict[str, Any]:
    """Rate, latencies, mean batch and cost of the good answers; for all but cost the first tenth is left out."""
    good = [answer for answer in answers if answer["status"] == 200]
    if not good:
        raise SystemExit("No request was answered.")
    start, end = min(answer["began"] for answer in good), max(answer["ended"] for answer in good)
    start += (end - start) / 10
    kept = [answer for answer in good if answer["began"] >= start] or good
    p50, p99 = np.percentile([(answer["ended"] - answer["began"]) * 1000 for answer in kept], [50, 99])
    return {
        "requests": len(good),
        "requests_per_second": round(len(kept) / (end - start), 1),
        "p50_ms": round(float(p50), 2),
        "p99_ms": round(float(p99), 2),
        "requests_a_batch": round(len(good) / batches, 2) if batches else None,
        "cpu_ms": round(1000 * cpu / len(good), 3) if cpu else None,
    }


def summary(timings: list[dict[str, Any]]) -> dict[str, Any]:
    """Median, least and most over the rounds, and how many times the rate batching gives, round by round."""
    found: dict[str, Any] = {}
    names = ("requests_per_second", "p50_ms", "p99_ms", "requests_a_batch", "cpu_ms")
    for clients in (CLIENTS, 1):
        rates = []
        for variant in VARIANTS:
            own = [row for row in timings if (row["variant"], row["clients"]) == (variant, clients)]
            found[f"{variant}, {clients} clients"] = {
                name: median_and_range([row[name] for row in own]) for name in names
            }
            rates.append([row["requests_per_second"] for row in own])
        ratios = [round(on / off, 3) for on, off in zip(*rates, strict=True)]
        found[f"rate with batching over without, {clients} clients"] = median_and_range(ratios)
    return found


def median_and_range(values: list[float]) -> dict[str, float] | None:
    """Median, least and most."""
    return None if None in values else {"median": round(median(values), 3), "least": min(values), "most": max(values)}


if __name__ == "__main__":
    main()

"""A small real HTTP server that shows the page and answers as ``distilface serve`` does, from a fixed corpus."""

from __future__ import annotations

import random
import re
import threading
import time
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles

import distilface_st

if TYPE_CHECKING:
    from collections.abc import Iterator

STATIC = Path(distilface_st.__file__).parent / "serving" / "static"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

CORPUS: dict[str, list[str]] = {
    "accounts": [
        "Your account page lists every device. To reset a lost password, choose Forgot password and follow the mail. "
        "The link works for one hour.",
        "Two-step sign-in asks for a code besides the password. Keep the ten spare codes somewhere safe.",
        "An account can be closed at any time. We delete what it holds after thirty days.",
        "After five wrong passwords the login is locked for ten minutes. An administrator can unlock it sooner.",
    ],
    "cycling": [
        "🚲 Spring is the time to look over a bicycle. Clean the chain, oil it lightly and wipe off what is left. "
        "Then check both brakes.",
        "A flat tyre is mended in ten minutes. Find the hole under water, roughen the rubber and press on a patch.",
        "Narrow city streets are safest in the middle of the lane. Drivers then wait instead of squeezing past.",
        "Batteries of electric bicycles last longest between a fifth and four fifths full.",
    ],
    "cooking": [
        "Bread dough rises slowly in the cold. Leave it overnight in the fridge and bake it in the morning.",
        "Salt the water for pasta well and keep a cup of it. It binds the sauce.",
        "An old cast-iron pan needs no soap. Scrub it with salt, dry it on the stove and rub in a little oil.",
        "Lentils need no soaking. They are done in twenty-five minutes, red ones in ten.",
    ],
    "astronomy": [
        "Venus turns backwards and takes longer to turn once than to go round the Sun. A day there outlasts a year.",
        "A red star is cooler than a blue one. Its colour tells the temperature of its surface.",
        "The tails of comets point away from the Sun, whichever way the comet flies.",
        "Tides follow the Moon, and twice a month the Sun adds to them.",
    ],
    "markets": [
        "Shares fell sharply on Monday after the bank raised its rate. By Friday most had recovered.",
        "The price of copper is watched as a sign of how much is being built.",
        "A bond's price falls when rates rise, since new bonds then pay more.",
        "The central bank left its rate where it was. Markets had expected a cut.",
    ],
    "gardening": [
        "Water tomatoes at the root and in the morning. Wet leaves invite blight, above all in cool weather.",
        "Plant garlic in October, a hand apart. It wants cold weeks before it splits into cloves.",
        "Compost wants brown and green in equal parts. Turn it when it smells.",
        'The label said <img src=x onerror="document.title=1"> and nothing grew. Sow hardy seeds in spring.',
    ],
}
CONCEPTS = """
password passwords login sign-in log account reset unlock locked
bicycle bicycles bike chain brakes tyre cycling
bread dough bake pasta sauce pan oil lentils cook
star sun moon planet venus comet comets sky
shares market markets stock rate rates bank bond bonds price fell dropped monday week
plant garlic tomatoes compost seeds sow garden yard grow
child kid playing runs
mend repair clean check look
""".strip().split("\n")
_CONCEPT_OF = {word: f"concept {number}" for number, line in enumerate(CONCEPTS) for word in line.split()}


def embed(text: str) -> np.ndarray:
    """A unit vector of the words and of what they are about."""
    vector = np.full(96, 0.02)
    for word in re.findall(r"[\w-]+", text.lower()):
        vector[zlib.crc32(word.encode()) % 96] += 0.6
        if concept := _CONCEPT_OF.get(word):
            vector[zlib.crc32(concept.encode()) % 96] += 1.5
    return vector / np.linalg.norm(vector)


def documents() -> list[dict[str, Any]]:
    """The corpus, a dict with id, text and metadata each."""
    return [
        {"id": f"{section}/{number:02}", "text": text, "metadata": {"section": section, "year": 2021 + number}}
        for section, texts in CORPUS.items()
        for number, text in enumerate(texts)
    ]


def points() -> list[dict[str, Any]]:
    """The map: sections in clusters; passages from 1 on are numbered sentences of their document."""
    chance = random.Random(4)
    centres = [(-0.72, 0.6), (0.1, 0.75), (0.75, 0.35), (-0.55, -0.35), (0.2, -0.1), (0.6, -0.7)]
    found = []
    for document in documents():
        x, y = centres[list(CORPUS).index(document["metadata"]["section"])]
        dx, dy = chance.gauss(0, 0.09), chance.gauss(0, 0.09)
        sentences = [document["text"], *re.split(r"(?<=\.) ", document["text"])]
        for number in range(10):
            place = {
                "x": min(max(x + dx + chance.gauss(0, 0.06), -1), 1),
                "y": min(max(y + dy + chance.gauss(0, 0.06), -1), 1),
            }
            text = sentences[number % len(sentences)] + f" ({number})" * (number > 0)
            found.append({**document, **place, "passage": number, "text": text})
    return found


@dataclass
class PageServer:
    """What a test sets and reads.

    Attributes:
        url: Where the page is.
        key: The API key to ask for.
        busy: How many of the next answers are 429.
        indexed: Whether there is an index.
        delays: Seconds to wait before a query's hits, by query.
        metadata: More metadata of documents, by id.
        unique: Fields whose values belong to one document each, with their values.
        received: Path and body of every request to the API.
    """

    url: str = ""
    key: str | None = None
    busy: int = 0
    indexed: bool = True
    delays: dict[str, float] = field(default_factory=dict)
    metadata: dict[str, dict[str, Any]] = field(default_factory=dict)
    unique: dict[str, list[str]] = field(default_factory=dict)
    received: list[tuple[str, Any]] = field(default_factory=list)

    def reset(self) -> None:
        """As at the beginning."""
        self.__init__(self.url)  # type: ignore[misc]

    def bodies(self, path: str) -> list[Any]:
        """What was sent to a path, in order."""
        return [body for where, body in list(self.received) if where == path]


def hits(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The documents nearest to a query that pass its filter."""
    query = embed(body["query"])
    wanted = body.get("filter", {}).items()
    passing = [doc for doc in documents() if all(doc["metadata"][name] == value for name, value in wanted)]
    found = [{**doc, "score": float(query @ embed(doc["text"])), "passage": 0} for doc in passing]
    found.sort(key=lambda hit: -hit["score"])
    return [{**hit, "highlight": _best_sentence(hit["text"], query)} for hit in found[: body["k"]]]


def _best_sentence(text: str, query: np.ndarray) -> tuple[int, int]:
    spans = [match.span() for match in re.finditer(r"\S.*?\.(?= |$)", text)]
    return max(spans, key=lambda span: float(query @ embed(text[slice(*span)])))


def _app(server: PageServer) -> FastAPI:
    app = FastAPI(docs_url=None, openapi_url=None)

    @app.middleware("http")
    async def guard(request: Request, call_next: Any) -> Any:
        path = request.url.path
        if path in ("/info", "/search", "/map", "/v1/embeddings"):
            body = await request.json() if request.method == "POST" else None
            server.received.append((path, body))
            if server.key and request.headers.get("Authorization") != f"Bearer {server.key}":
                return JSONResponse({"detail": "An API key is needed."}, 401)
            if server.busy and path != "/info":
                server.busy -= 1
                return JSONResponse({"detail": "Busy."}, 429, {"Retry-After": "1"})
        answer = await call_next(request)
        answer.headers["Content-Security-Policy"] = POLICY
        return answer

    @app.get("/")
    def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    @app.get("/info")
    def info() -> dict[str, Any]:
        index = {"documents": 24, "passages": 240, "store": "memory"} if server.indexed else None
        fields = {"section": list(CORPUS), "year": [2021, 2022, 2023, 2024]} if server.indexed else {}
        model = {"model": "distilface-mini", "dimension": 96, "max_tokens": 256, "version": "0.2.0"}
        return {**model, "index": index, "fields": fields | server.unique, "unique": list(server.unique)}

    @app.post("/search")
    def search(body: dict[str, Any]) -> Any:
        time.sleep(server.delays.get(body["query"], 0))
        if body["query"] == "broken":
            return JSONResponse({"detail": "The query is broken."}, 400)
        found = [] if body["query"] == "nothing" else hits(body)
        more = [{**hit["metadata"], **server.metadata.get(hit["id"], {})} for hit in found]
        return {"hits": [{**hit, "metadata": own} for hit, own in zip(found, more, strict=True)]}

    @app.get("/map")
    def scatter() -> dict[str, Any]:
        return {"points": points()}

    @app.post("/v1/embeddings")
    def embeddings(body: dict[str, Any]) -> dict[str, Any]:
        return {"data": [{"embedding": embed(text).tolist()} for text in body["input"]]}

    app.mount("/static", StaticFiles(directory=STATIC))
    return app


@contextmanager
def serving() -> Iterator[PageServer]:
    """Serves the page on a free port of the loopback interface."""
    state = PageServer()
    server = uvicorn.Server(uvicorn.Config(_app(state), port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    state.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    yield state
    server.should_exit = True
    thread.join()

"""Requests and answers, as OpenAPI describes them."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ..search.hits import Hit  # noqa: TC001 (pydantic reads the annotation)


def _only_text(value: object) -> object:
    """Say plainly what is wrong with ``input``; a union's own errors would name each member."""
    if isinstance(value, list):
        if any(isinstance(entry, (int, list)) and not isinstance(entry, bool) for entry in value):
            raise ValueError("arrays of tokens are not supported: send text, a string or a list of strings")
        if not value:
            raise ValueError("the list is empty: send one text or more")
    entries = value if isinstance(value, list) else [value]
    for entry in entries:
        if not isinstance(entry, str):
            raise ValueError("send a string or a list of strings")
        if not entry:
            raise ValueError("a text is empty")
    return value


_Text = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True)

    @model_validator(mode="before")
    @classmethod
    def _valid_unicode(cls, value: object) -> object:
        """JSON can spell half a character; neither a tokenizer nor an answer can hold one."""
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("the body is not valid Unicode: it has a lone surrogate") from None
        except RecursionError:
            raise ValueError("the body is nested too deeply") from None
        return value


class EmbeddingRequest(_Strict):
    """OpenAI's request for embeddings."""

    input: Annotated[_Text | Annotated[list[_Text], Field(min_length=1)], BeforeValidator(_only_text)]
    model: str | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None
    user: str | None = None


class Embedding(BaseModel):
    """One embedding, of length 1: numbers, or base64 of little-endian float32."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """Tokens that the model read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingResponse(BaseModel):
    """OpenAI's answer with embeddings."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage


class Model(BaseModel):
    """A model that is served."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "distilface-st"


class ModelList(BaseModel):
    """The models that are served."""

    object: Literal["list"] = "list"
    data: list[Model]


class SearchRequest(_Strict):
    """A query, how many hits, and what they must satisfy."""

    query: Annotated[_Text, BeforeValidator(_only_text)]
    k: Annotated[int, Field(ge=1)] = 10
    filter: dict[str, Any] | None = None
    hybrid: bool = False


class SearchResponse(BaseModel):
    """Passages found, best first."""

    hits: list[Hit]


class Point(BaseModel):
    """A passage on the map; x and y are in [-1, 1]."""

    x: float
    y: float
    id: str
    text: str
    passage: int
    metadata: dict[str, Any]


class MapResponse(BaseModel):
    """Passages in the plane."""

    points: list[Point]


class Info(BaseModel):
    """What is served; ``max_tokens`` is where the model cuts a text, ``fields`` what a filter may name."""

    model: str
    dimension: int
    max_tokens: int | None
    version: str
    index: dict[str, Any] | None
    fields: dict[str, Any]


class Status(BaseModel):
    """``ok``, ``ready`` or ``stopping``."""

    status: str


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(BaseModel):
    """An error in OpenAI's shape."""

    error: ErrorDetail

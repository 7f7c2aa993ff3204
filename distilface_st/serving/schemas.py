"""Requests and answers, as OpenAPI describes them."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ..search.hits import Hit  # noqa: TC001 (pydantic reads the annotation)


def _text_or_tokens(value: object) -> object:
    """Say plainly what is wrong with ``input``; a union's own errors would name each member."""
    if value == []:
        raise ValueError("the list is empty: send one text or more")
    entries = value if isinstance(value, list) and not _is_tokens(value) else [value]
    if not (all(isinstance(entry, str) for entry in entries) or all(map(_is_tokens, entries))):
        raise ValueError("send a string or a list of strings, or token ids: an array of them, or a list of arrays")
    if not all(entries):
        raise ValueError("a text is empty")
    return value


def _is_tokens(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(entry, int) and not isinstance(entry, bool) for entry in value)


def _texts_or_objects(value: object) -> object:
    """Say plainly what is wrong with ``documents``."""
    if value == []:
        raise ValueError("the list is empty: send one document or more")
    entries = value if isinstance(value, list) else [value]
    texts = [entry.get("text") if isinstance(entry, dict) else entry for entry in entries]
    if entries is not value or not all(isinstance(text, str) for text in texts):
        raise ValueError('send a list of strings, or of objects with a string "text"')
    if not all(texts):
        raise ValueError("a document is empty")
    return value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("the query is blank")
    return value


_Text = Annotated[str, Field(min_length=1)]
_Texts = Annotated[list[_Text], Field(min_length=1)]
_Tokens = Annotated[list[int], Field(min_length=1)]
_TokenLists = Annotated[list[_Tokens], Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True)

    @model_validator(mode="before")
    @classmethod
    def _valid_unicode(cls, value: object) -> object:
        """JSON can spell half a character; neither a tokenizer nor an answer can hold one."""
        if isinstance(value, bytes):  # not sent as JSON, which is refused as no object
            return value
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("the body is not valid Unicode: it has a lone surrogate") from None
        except RecursionError:
            raise ValueError("the body is nested too deeply") from None
        return value

    @model_validator(mode="before")
    @classmethod
    def _null_is_default(cls, value: object) -> object:
        """Clients that write all fields write ``null`` for those that nobody set."""
        if not isinstance(value, dict):
            return value
        optional = {name for name, field in cls.model_fields.items() if not field.is_required()}
        return {name: entry for name, entry in value.items() if entry is not None or name not in optional}


class EmbeddingRequest(_Strict):
    """OpenAI's request for embeddings: of texts, or of token ids of the model's own tokenizer."""

    input: Annotated[_Text | _Texts | _Tokens | _TokenLists, BeforeValidator(_text_or_tokens)]
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


class RerankDocument(BaseModel):
    """A document's text; other fields of it are not read."""

    text: _Text


class RerankRequest(_Strict):
    """Cohere's and Jina's request for documents in the order of their relevance to a query."""

    query: Annotated[_Text, AfterValidator(_not_blank)]
    documents: Annotated[list[_Text | RerankDocument], Field(min_length=1), BeforeValidator(_texts_or_objects)]
    model: str | None = None
    top_n: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool = False


class RerankResult(BaseModel):
    """The place of a document in the request, its similarity to the query, and itself where that was asked for."""

    index: int
    relevance_score: float
    document: RerankDocument | None = None


class RerankResponse(BaseModel):
    """Documents, most similar first."""

    model: str
    results: list[RerankResult]
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

    query: _Text
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
    """What is served.

    ``max_tokens`` is where the model cuts a text, ``fields`` what a filter may name, ``unique`` those of them whose
    values belong to one document each.
    """

    model: str
    dimension: int
    max_tokens: int | None
    version: str
    index: dict[str, Any] | None
    fields: dict[str, Any]
    unique: list[str]


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

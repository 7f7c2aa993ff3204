"""Semantic search: documents to passages, passages to vectors, vectors to a store, and queries to hits."""

from __future__ import annotations

from .filters import parse_filter
from .hits import Hit
from .index import SearchIndex
from .indexing import IndexSettings, RaySettings, delete_from_index, index_corpus

__all__ = ["Hit", "IndexSettings", "RaySettings", "SearchIndex", "delete_from_index", "index_corpus", "parse_filter"]

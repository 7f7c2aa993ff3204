"""Retrieval: how far up the right document comes when a query is searched among all documents."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from sentence_transformers.base.evaluation import BaseEvaluator

from ..errors import InputError
from .encoding import append_csv, encode_distinct

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .encoding import AnyEncoder

logger = logging.getLogger(__name__)

_QUERIES_AT_ONCE = 1024
_TIE = 1e-6
"""Float32 cosines that differ by less than this differ by rounding."""


def ranks_of_own(queries: np.ndarray, documents: np.ndarray, own: np.ndarray | None = None) -> np.ndarray:
    """The rank of each query's own document among all documents by dot product.

    A tie counts against the query: of documents equally similar, its own comes last. So a model that gives all texts
    the same embedding finds nothing.

    Args:
        queries: Rows of length 1, shape (n, d).
        documents: Rows of length 1, shape (m, d).
        own: Which document belongs to each query, shape (n,); by default the one of the same row.

    Returns:
        Ranks from 1 (best) to m, shape (n,). Memory is m similarities for 1,024 queries at a time.
    """
    own = np.arange(len(queries)) if own is None else own
    ranks = np.empty(len(queries), dtype=np.int64)
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        chunk = slice(start, start + _QUERIES_AT_ONCE)
        similarities = queries[chunk] @ documents.T
        of_own = np.take_along_axis(similarities, own[chunk, None], axis=1)
        ranks[chunk] = (similarities >= of_own - _TIE).sum(axis=1)
    return ranks


def scores_of_ranks(ranks: np.ndarray) -> dict[str, float]:
    """``mrr10``, ``recall1`` and ``recall10`` of ranks from 1, as :class:`RetrievalEvaluator` defines them."""
    return {
        "mrr10": float(np.where(ranks <= 10, 1 / ranks, 0).mean()),
        "recall1": float((ranks <= 1).mean()),
        "recall10": float((ranks <= 10).mean()),
    }


class RetrievalEvaluator(BaseEvaluator):
    """Searches each query among all documents, of which exactly one, that of the same position, is the right one.

    Metrics, all from 0 to 1: ``NAME_mrr10`` (the primary one), the mean of 1 / rank of the right document, 0 beyond
    rank 10; ``NAME_recall1`` and ``NAME_recall10``, the share of queries whose right document comes first or among the
    first ten. Similarity is cosine. Ties count against the query, see :func:`ranks_of_own`.

    Args:
        queries: Texts to search with.
        documents: Texts to find; the one at position i belongs to query i. Documents of equal text are one document.
        batch_size: Texts in one forward pass.
        name: Put before the metrics' names, with an underscore; ``""`` leaves them plain.
        write_csv: Whether to append the metrics to ``retrieval_evaluation_NAME_results.csv`` in the output folder.
        show_progress_bar: Whether the encoder shows its progress.

    Raises:
        InputError: No queries, or not as many documents.

    Example:
        ::

            evaluator = RetrievalEvaluator(["How are lists sorted?"], ["Lists are sorted by list.sort()."])
            evaluator(model)["retrieval_mrr10"]
    """

    def __init__(
        self,
        queries: Sequence[str],
        documents: Sequence[str],
        batch_size: int = 64,
        name: str = "retrieval",
        write_csv: bool = True,
        show_progress_bar: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if not queries or len(queries) != len(documents):
            raise InputError(
                f"Retrieval needs queries and one document each; these are {len(queries)} queries and "
                f"{len(documents)} documents."
            )
        self.queries = list(queries)
        self.documents = list(documents)
        self.batch_size = batch_size
        self.name = name
        self.write_csv = write_csv
        self.show_progress_bar = show_progress_bar
        self.csv_file = f"retrieval_evaluation{f'_{name}' if name else ''}_results.csv"
        self.primary_metric = f"{name}_mrr10" if name else "mrr10"

    def __call__(  # type: ignore[override]
        self, model: AnyEncoder, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        """Score the model, write the CSV and note the metrics in the model card.

        Args:
            model: The model.
            output_path: Folder of the CSV; ``None`` writes none.
            epoch: Epoch, for the CSV.
            steps: Step, for the CSV.

        Returns:
            The metrics.

        Raises:
            InputError: Zero or non-finite embeddings.
        """
        metrics = self.prefix_name_to_metrics(self.score(model), self.name)
        logger.info("Retrieval after epoch %s, step %s: %s", epoch, steps, metrics)
        if output_path is not None and self.write_csv:
            append_csv(Path(output_path) / self.csv_file, {"epoch": epoch, "steps": steps, **metrics})
        self.store_metrics_in_model_card_data(cast("Any", model), metrics, epoch, steps)
        return metrics

    def score(self, model: AnyEncoder) -> dict[str, float]:
        """``mrr10``, ``recall1`` and ``recall10`` of the model.

        Raises:
            InputError: Zero or non-finite embeddings.
        """
        query_rows, queries = encode_distinct(model, self.queries, self.batch_size, self.show_progress_bar)
        rows, documents = encode_distinct(model, self.documents, self.batch_size, self.show_progress_bar)
        queries = queries[[query_rows[text] for text in self.queries]]
        ranks = ranks_of_own(queries, documents, np.array([rows[text] for text in self.documents]))
        return scores_of_ranks(ranks)

    def get_config_dict(self) -> dict[str, Any]:
        """What the model card says of this evaluator."""
        return {"queries": len(self.queries), "documents": len(set(self.documents))}

    @property
    def description(self) -> str:
        """What the model card calls it."""
        return "Information Retrieval"

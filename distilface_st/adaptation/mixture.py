"""Weights between those before training and those after it (WiSE-FT, Wortsman et al., 2022)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..evaluation.retrieval import Answers, RetrievalEvaluator, scores_of_ranks

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from ..evaluation.base import MetricsEvaluator
    from .guard import Guard

SHARES = (1.0, 0.75, 0.5, 0.25)
"""Of the trained weights."""


def mix(
    model: SentenceTransformer,
    start: dict[str, torch.Tensor],
    before: Answers,
    test: RetrievalEvaluator,
    guard: Guard,
    labelled: MetricsEvaluator | None = None,
) -> tuple[list[dict[str, float]], float, Answers]:
    """Put the mixture of trained and first weights into the model that does best in the test, if the guard allows it.

    With ``labelled``, its primary metric decides, not the test's MRR@10. The search goes from the trained weights
    towards the first ones, and ends where it gets worse.

    Returns:
        The mixtures tried, the trained weights' share in the best one, 0 where nothing is better than the start, and
        its answers.
    """
    end = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    def use(share: float) -> None:
        mixed = {
            name: torch.lerp(start[name], tensor, share) if tensor.is_floating_point() else tensor
            for name, tensor in end.items()
        }
        model.load_state_dict(mixed)

    mixtures: list[dict[str, float]] = []

    def score(share: float, answers: Answers, kept: float) -> float:
        row = {"share": share, "mrr@10": scores_of_ranks(answers.ranks)["mrr@10"], "guard": kept}
        if labelled is not None:
            row["labelled"] = float(labelled(model)[str(labelled.primary_metric)])
        mixtures.append(row)
        return row.get("labelled", row["mrr@10"])

    use(0.0)
    best, answers, highest = 0.0, before, score(0.0, before, guard.start)
    for share in SHARES:
        use(share)
        found, kept = test.answers(model), guard.score(model)
        reached = score(share, found, kept)
        if kept >= guard.least:
            if reached <= highest:
                break
            best, answers, highest = share, found, reached
    use(best)
    return mixtures, best, answers

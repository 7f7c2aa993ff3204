"""Weights between those before training and those after it (WiSE-FT, Wortsman et al., 2022)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..evaluation.retrieval import Answers, RetrievalEvaluator, scores_of_ranks

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from .guard import Guard

SHARES = (1.0, 0.75, 0.5, 0.25)
"""Of the trained weights."""


def mix(
    model: SentenceTransformer,
    start: dict[str, torch.Tensor],
    before: Answers,
    test: RetrievalEvaluator,
    guard: Guard,
) -> tuple[list[dict[str, float]], float, Answers]:
    """Put the mixture of trained and first weights into the model that does best in the test, if the guard allows it.

    The search goes from the trained weights towards the first ones, and ends where it gets worse.

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

    def score(answers: Answers) -> float:
        return scores_of_ranks(answers.ranks)["mrr@10"]

    mixtures = [{"share": 0.0, "mrr@10": score(before), "guard": guard.start}]
    best, answers = 0.0, before
    for share in SHARES:
        use(share)
        found, kept = test.answers(model), guard.score(model)
        mixtures.append({"share": share, "mrr@10": score(found), "guard": kept})
        if kept >= guard.least:
            if score(found) <= score(answers):
                break
            best, answers = share, found
    use(best)
    return mixtures, best, answers

from __future__ import annotations

import numpy as np
import pytest

from distilface_st.adaptation.mixture import mix
from distilface_st.evaluation.retrieval import Answers
from distilface_st.models.build import build_model


@pytest.mark.parametrize(
    ("ranks", "guarded", "tried", "chosen"),
    [
        ({1.0: 1}, {}, [1.0, 0.75], 1.0),  # the trained weights are best; the next is worse, and ends the search
        ({1.0: 3, 0.75: 1, 0.5: 2}, {}, [1.0, 0.75, 0.5], 0.75),
        ({1.0: 1, 0.75: 1, 0.5: 2}, {1.0: 80, 0.75: 89}, [1.0, 0.75, 0.5, 0.25], 0.5),
        ({}, {}, [1.0], 0.0),
        ({1.0: 1, 0.75: 1, 0.5: 1, 0.25: 1}, dict.fromkeys((1.0, 0.75, 0.5, 0.25), 0), [1.0, 0.75, 0.5, 0.25], 0.0),
    ],
)
def test_the_best_mixture_that_the_guard_allows_is_kept(tiny_encoder, ranks, guarded, tried, chosen):
    model = build_model(tiny_encoder, layers="last", device="cpu")
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    name, weights = next(iter(model.named_parameters()))
    for tensor in model.parameters():
        tensor.data.add_(1.0)

    def share():
        return round(float((weights.detach() - start[name]).mean()), 3)

    class Test:
        def answers(self, model):
            return Answers(np.array([ranks.get(share(), 9)]), [""])

    class Guard:
        start, least = 100.0, 90.0

        def score(self, model):
            return guarded.get(share(), 95.0)

    before = Answers(np.array([4]), [""])
    mixtures, kept, answers = mix(model, start, before, Test(), Guard())
    assert [row["share"] for row in mixtures] == [0.0, *tried]
    assert kept == chosen
    assert answers.ranks.tolist() == ([ranks[chosen]] if chosen else [4])
    for name, tensor in model.named_parameters():
        np.testing.assert_allclose(tensor.detach(), start[name] + chosen, atol=1e-5)

from __future__ import annotations

import numpy as np

from distilface_st.graphs.smoothing import _error, best_scales

RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(16, 8)).astype(np.float32)


def activations(outlier: float) -> list[np.ndarray]:
    spread = np.ones(16, dtype=np.float32)
    spread[3] = outlier
    return [RNG.normal(size=(40, 16)).astype(np.float32) * spread for _ in range(3)]


def test_scales_take_an_outlying_channel_down_and_the_error_with_it():
    rows = activations(outlier=100)
    scales = best_scales(rows, WEIGHT)
    assert scales is not None
    assert scales.argmax() == 3
    np.testing.assert_allclose(np.exp(np.log(scales).mean()), 1, rtol=1e-4)
    expected = [part @ WEIGHT for part in rows]
    assert _error(rows, WEIGHT, expected, scales) < 0.5 * _error(rows, WEIGHT, expected, None)


def test_scales_never_make_it_worse():
    rows = activations(outlier=1)
    scales = best_scales(rows, WEIGHT)
    expected = [part @ WEIGHT for part in rows]
    assert scales is None or _error(rows, WEIGHT, expected, scales) < _error(rows, WEIGHT, expected, None)

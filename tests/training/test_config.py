from __future__ import annotations

import pytest

from distilface_st.errors import InputError
from distilface_st.training.config import PRESETS, TrainingConfig, resolve_precision


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_steps": 0}, "max_steps is 0: it must be at least 1"),
        ({"batch_size": 1}, "batch_size is 1"),
        ({"temperature": 0}, "temperature is 0: it must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"dropout": 0.0}, "both views of a sentence would be the same"),
        ({"views": "both"}, "allowed are dropout, neighbours, pairs"),
        ({"precision": "int8"}, "allowed are auto, fp32, bf16, fp16"),
    ],
)
def test_settings_that_no_run_could_use_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        TrainingConfig(**changes)


def test_presets_are_the_papers():
    default, best = PRESETS["paper-default"], PRESETS["paper-best"]
    common = {"temperature": 0.05, "max_length": 32, "layer_reduction": "mean", "encoder": "distilbert-base-uncased"}
    for name, value in common.items():
        assert getattr(default, name) == getattr(best, name) == value
    assert (default.batch_size, default.learning_rate, default.layers, default.max_steps) == (
        64,
        5e-5,
        "first_last",
        30_000,
    )
    assert (best.batch_size, best.learning_rate, best.layers, best.max_steps) == (128, 1e-5, "last_four", 20_000)
    with pytest.raises(InputError, match="choose from paper-default, paper-best"):
        TrainingConfig.preset("best")


def test_auto_precision_is_one_that_the_device_has():
    assert resolve_precision("auto", "mps") == "fp32"
    assert resolve_precision("auto", "cpu") in ("bf16", "fp32")

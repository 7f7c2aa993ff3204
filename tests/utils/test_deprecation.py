from __future__ import annotations

import pickle
from dataclasses import replace

import pytest

from distilface_st.distillation.config import DistillationConfig
from distilface_st.training.config import OLD_NAMES, TrainingConfig
from distilface_st.utils.deprecation import current_names


def test_old_names_of_settings_work_and_warn():
    with pytest.warns(DeprecationWarning, match="steps is now called max_steps") as warned:
        config = TrainingConfig(steps=5, evaluate_every=2)
    assert {warning.filename for warning in warned} == {__file__}
    assert config == TrainingConfig(max_steps=5, eval_steps=2)
    with pytest.warns(DeprecationWarning, match="schedule is now called lr_scheduler_type"):
        config = replace(config, schedule="cosine")
    assert (config.lr_scheduler_type, config.max_steps) == ("cosine", 5)
    with pytest.warns(DeprecationWarning, match="steps is now called"):
        assert config.steps == 5
    with pytest.warns(DeprecationWarning, match="widths is now called matryoshka_dims"):
        assert DistillationConfig(widths=(8,)).matryoshka_dims == (8,)


def test_an_old_name_is_checked_like_the_new_one():
    with (
        pytest.warns(DeprecationWarning, match="max_steps"),
        pytest.raises(ValueError, match="max_steps is 0: it must be at least 1"),
    ):
        TrainingConfig(steps=0)


def test_keys_of_a_dictionary_are_renamed():
    with pytest.warns(DeprecationWarning, match="max_steps"):
        assert current_names({"steps": 3, "seed": 1}, OLD_NAMES) == {"max_steps": 3, "seed": 1}


def test_new_names_do_not_warn(recwarn):
    config = TrainingConfig.preset("paper-best", max_steps=3)
    assert pickle.loads(pickle.dumps(config)) == replace(config) == config
    assert current_names({"max_steps": 3}, OLD_NAMES) == {"max_steps": 3}
    assert not recwarn.list

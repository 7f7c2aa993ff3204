from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer

from distilface_st.datasets.sts import STSSubset, STSTask
from distilface_st.errors import InputError
from distilface_st.evaluation.poolings import PoolingBank, PoolingStudy, plot_poolings, pooling_key, score_poolings
from distilface_st.models.build import build_model
from distilface_st.modules.multi_layer_pooling import LAYER_REDUCTIONS, LAYER_SELECTIONS, MultiLayerPooling
from tests.conftest import make_encoder

MODES = ("cls", "mean", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
WORDS = "the man ran to a big red house in town and ate fish with his small old cat by day".split()


def make_sentences(count: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=rng.integers(1, 25))) for _ in range(count)]


def make_task(name: str = "STS-B", pairs: int = 40, seed: int = 0) -> STSTask:
    scores = np.random.default_rng(seed).uniform(0, 5, pairs)
    subset = STSSubset(name, make_sentences(pairs, seed + 1), make_sentences(pairs, seed + 2), scores)
    return STSTask(name, (subset,))


@pytest.fixture(scope="module")
def study(tiny_distilbert: Path) -> PoolingStudy:
    return score_poolings(tiny_distilbert, make_task(), device="cpu", model_name="tiny")


@pytest.mark.parametrize("fixture", ["tiny_encoder", "tiny_distilbert"])
def test_every_combination_pools_as_its_own_module_does(fixture: str, request: pytest.FixtureRequest) -> None:
    model = build_model(request.getfixturevalue(fixture), layers="last", device="cpu")
    sentences, template = make_sentences(16, 7), model[1]
    combinations = list(product(LAYER_SELECTIONS, LAYER_REDUCTIONS, MODES))
    modules = [
        MultiLayerPooling(32, template.num_hidden_layers, layers=layers, layer_reduction=reduction, pooling_mode=mode)
        for layers, reduction, mode in combinations
    ]
    keys = [pooling_key(module.layer_indices, module.layer_reduction, module.pooling_mode) for module in modules]
    model[1] = bank = PoolingBank(template, keys)
    slots = torch.from_numpy(model.encode(sentences, batch_size=8)).view(16, -1, 32)
    for module, key in zip(modules, keys, strict=True):
        model[1] = module
        reference = model.encode(sentences, batch_size=8, convert_to_tensor=True)
        torch.testing.assert_close(bank.combine(slots, key), reference, atol=1e-5, rtol=0, msg=str(key))


def test_scores_are_spearman_of_each_combination(tiny_distilbert: Path, study: PoolingStudy) -> None:
    assert {(r.layers, r.layer_reduction, r.pooling_mode) for r in study.results} == set(
        product(LAYER_SELECTIONS, LAYER_REDUCTIONS, ("cls", "mean", "max"))
    )
    task = make_task()
    for result in study.results[::7]:
        model = build_model(
            tiny_distilbert, result.layers, result.layer_reduction, pooling_mode=result.pooling_mode, device="cpu"
        )
        first, second = (np.float64(model.encode(texts)) for texts in (task.sentences1, task.sentences2))
        cosines = (first * second).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)
        assert result.scores["STS-B"] == pytest.approx(spearmanr(cosines, task.scores).statistic * 100, abs=1e-6)


def test_each_distinct_sentence_is_encoded_once_and_chunks_change_nothing(
    tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [make_task("STS12", 30, seed=0), make_task("STS13", 30, seed=1)]
    whole = score_poolings(tiny_encoder, tasks, device="cpu")
    seen: list[str] = []
    encode = SentenceTransformer.encode

    def spy(self: SentenceTransformer, inputs: list[str], **kwargs: object) -> np.ndarray:
        seen.extend(inputs)
        return encode(self, inputs, **kwargs)

    monkeypatch.setattr(SentenceTransformer, "encode", spy)
    monkeypatch.setattr("distilface_st.evaluation.poolings._CHUNK_SENTENCES", 8)
    chunked = score_poolings(tiny_encoder, tasks, device="cpu")
    assert len(seen) == len(set(seen)) == len({text for t in tasks for text in t.sentences1 + t.sentences2})
    by_key = {(r.layers, r.layer_reduction, r.pooling_mode): r.scores for r in whole.results}
    for result in chunked.results:
        expected = by_key[result.layers, result.layer_reduction, result.pooling_mode]
        assert result.scores == pytest.approx(expected, abs=1)  # near-ties may change places


def test_results_are_ranked_and_averaged(study: PoolingStudy) -> None:
    averages = [result.average for result in study.results]
    assert averages == sorted(averages, reverse=True)
    assert study.best == study.results[0]
    assert study.best.average5 is None
    assert study.best.average == pytest.approx(study.best.scores["STS-B"])


def test_average5_ranks_where_its_sets_are_there(tiny_encoder: Path) -> None:
    names = ("STS12", "STS13", "STS14", "STS15", "STS-B", "SICK-R")
    tasks = [make_task(name, 12, seed=10 * i) for i, name in enumerate(names)]
    results = score_poolings(tiny_encoder, tasks, pooling_modes=("mean",), device="cpu").results
    assert [r.average5 for r in results] == sorted((r.average5 for r in results), reverse=True)
    assert results[0].average5 == pytest.approx(np.mean([results[0].scores[name] for name in names[:5]]))
    assert results[0].average6 is None


def test_distinct_results_hold_a_single_layer_once(study: PoolingStudy) -> None:
    assert len(study.results) == 6 * 3 * 3
    assert len(study.distinct()) == (2 + 4 * 3) * 3


def test_selections_deeper_than_the_encoder_are_left_out_and_named(tmp_path: Path) -> None:
    shallow = make_encoder(tmp_path / "shallow", "bert", 2)
    study = score_poolings(shallow, make_task(), device="cpu")
    assert study.left_out == ("last_four",)
    assert {result.layers for result in study.results} == set(LAYER_SELECTIONS) - {"last_four"}


def test_the_encoder_given_is_left_as_it_was(tiny_encoder: Path) -> None:
    model = SentenceTransformer(str(tiny_encoder), device="cpu")
    before, sentences = str(model), make_sentences(4, 3)
    embeddings = model.encode(sentences)
    score_poolings(model, make_task(), pooling_modes=("mean",))
    assert str(model) == before
    assert not model[0].config.output_hidden_states
    np.testing.assert_array_equal(model.encode(sentences), embeddings)


def test_a_study_is_plain_json(study: PoolingStudy) -> None:
    read = json.loads(json.dumps(study.to_dict(), allow_nan=False))
    assert read["model"] == "tiny"
    assert read["results"][0].keys() == {
        "layers",
        "layer_indices",
        "layer_reduction",
        "pooling_mode",
        "scores",
        "average",
        "average5",
        "average6",
    }
    assert {"versions", "command", "seed", "model_fingerprint", "data_fingerprint", "seconds", "pairs"} <= read.keys()


def test_a_plot_is_drawn_into_a_file_named_by_a_string(study: PoolingStudy, tmp_path: Path) -> None:
    plot_poolings(study, str(tmp_path / "poolings.svg"))
    assert "<svg" in (tmp_path / "poolings.svg").read_text(encoding="utf-8")
    with pytest.raises(InputError, match=r"chart\.xyz: a plot's name must end in one of"):
        plot_poolings(study, "chart.xyz")


def test_an_unknown_token_pooling_is_refused(tiny_encoder: Path) -> None:
    with pytest.raises(InputError, match="median: token poolings are cls"):
        score_poolings(tiny_encoder, make_task(), pooling_modes=("median",), device="cpu")


def test_embeddings_that_are_not_finite_are_an_error(tiny_encoder: Path) -> None:
    model = SentenceTransformer(str(tiny_encoder), device="cpu")
    with torch.no_grad():
        model[0].model.encoder.layer[-1].output.LayerNorm.weight.fill_(float("nan"))
    with pytest.raises(InputError, match="not finite"):
        score_poolings(model, make_task())

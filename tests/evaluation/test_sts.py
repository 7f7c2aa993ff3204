from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import pearsonr, spearmanr
from sentence_transformers import SentenceTransformer

from distilface_st.datasets.sts import STSSubset, STSTask, load_sts
from distilface_st.errors import InputError
from distilface_st.evaluation.sts import STSEvaluator, score_task, sts_suite
from distilface_st.inference.edge_encoder import EdgeEncoder


class Stub:
    """An encoder of fixed random embeddings, one a text, that remembers what it was asked to encode."""

    def __init__(self, seed: int = 0, dimension: int = 8) -> None:
        self.seed = seed
        self.dimension = dimension
        self.asked: list[list[str]] = []
        self.cards: list[tuple[dict[str, float], int, int]] = []
        self.model_card_data = self

    def vector(self, text: str) -> np.ndarray:
        seed = [self.seed, *text.encode()]
        return np.random.default_rng(seed).normal(size=self.dimension) * (1 + seed[-1])

    def encode(self, texts: list[str], **_: Any) -> np.ndarray:
        self.asked.append(texts)
        return np.stack([self.vector(text) for text in texts]).astype(np.float32)

    def set_evaluation_metrics(self, _: object, metrics: dict[str, float], epoch: int, step: int) -> None:
        self.cards.append((metrics, epoch, step))

    def cosines(self, subset: STSSubset) -> list[float]:
        pairs = zip(subset.sentences1, subset.sentences2, strict=True)
        vectors = [(self.vector(a), self.vector(b)) for a, b in pairs]
        return [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in vectors]


def make_subset(name: str, pairs: int, seed: int) -> STSSubset:
    rng = np.random.default_rng(seed)
    texts = [f"{name} {i % (pairs - 1)}" for i in range(pairs)]  # one sentence occurs twice
    return STSSubset(name, texts, [f"other {i}" for i in range(pairs)], rng.integers(0, 6, pairs).astype(float))


def make_task(name: str = "STS12", sizes: tuple[int, ...] = (12, 7, 30), split: str = "test", seed: int = 0) -> STSTask:
    return STSTask(name, tuple(make_subset(f"s{i}", n, seed + i) for i, n in enumerate(sizes)), split)


SIX = ("STS12", "STS13", "STS14", "STS15", "STS16", "STS-B")


def test_all_is_one_correlation_over_the_concatenated_subsets() -> None:
    task, stub = make_task(), Stub()
    cosines = [cosine for subset in task.subsets for cosine in stub.cosines(subset)]
    metrics = STSEvaluator(task)(stub)
    assert metrics["STS12_spearman_cosine"] == pytest.approx(spearmanr(task.scores, cosines).statistic, abs=1e-9)
    assert metrics["STS12_pearson_cosine"] == pytest.approx(pearsonr(task.scores, cosines).statistic, abs=1e-6)


@pytest.mark.parametrize(("aggregation", "weights"), [("mean", [1, 1, 1]), ("wmean", [12, 7, 30])])
def test_means_are_over_the_subsets_correlations(aggregation: Any, weights: list[int]) -> None:
    task, stub = make_task(), Stub()
    parts = [spearmanr(subset.scores, stub.cosines(subset)).statistic for subset in task.subsets]
    (score,) = STSEvaluator(task, aggregation).score(stub)
    assert [part.spearman for part in score.subsets.values()] == pytest.approx(parts, abs=1e-9)
    assert score.total.spearman == pytest.approx(np.average(parts, weights=weights), abs=1e-9)


def test_aggregations_agree_on_a_single_subset() -> None:
    task, stub = make_task(sizes=(20,)), Stub()
    scores = [STSEvaluator(task, aggregation).score(stub)[0].total for aggregation in ("all", "mean", "wmean")]
    assert scores[0].spearman == pytest.approx(scores[1].spearman, abs=1e-12) == scores[2].spearman


def task_of(golds: np.ndarray) -> STSTask:
    texts = [str(i) for i in range(len(golds))]
    return STSTask("x", (STSSubset("x", texts, texts, golds),))


values = st.integers(0, 20).map(lambda value: value / 4)
pairs = st.integers(3, 30).flatmap(lambda n: st.tuples(arrays(float, n, elements=values), st.permutations(range(n))))


@given(pairs)
def test_tied_scores_get_average_ranks_and_the_order_of_pairs_is_nothing(drawn: tuple[np.ndarray, list[int]]) -> None:
    golds, order = drawn
    similarities = np.roll(golds, 1) / 5
    if np.ptp(golds) == 0:
        return
    score = score_task(task_of(golds), similarities).total
    assert score.spearman == pytest.approx(spearmanr(golds, similarities).statistic, abs=1e-9)
    assert score.pearson == pytest.approx(pearsonr(golds, similarities).statistic, abs=1e-9)
    permuted = score_task(task_of(golds[order]), similarities[order]).total
    assert (permuted.spearman, permuted.pearson) == pytest.approx((score.spearman, score.pearson), abs=1e-12)
    assert score_task(task_of(golds * 7 - 3), similarities).total.spearman == pytest.approx(score.spearman, abs=1e-12)


def test_similarities_that_differ_by_float32_rounding_are_ties() -> None:
    golds = np.array([5.0, 3.0, 4.0, 1.0, 0.0])
    similarities = np.array([1.0, 1.0 - 1e-7, 1.0 + 1e-7, 0.4, 0.2])
    expected = spearmanr(golds, [1, 1, 1, 0.4, 0.2]).statistic
    assert score_task(task_of(golds), similarities).total.spearman == pytest.approx(expected, abs=1e-12)


def test_perfect_similarities_score_one() -> None:
    golds = np.array([0.0, 1.5, 5.0, 3.0])
    assert score_task(task_of(golds), golds / 5).total.spearman == pytest.approx(1, abs=1e-12)
    assert score_task(task_of(golds), -golds / 5).total.spearman == pytest.approx(-1, abs=1e-12)


def test_each_distinct_sentence_of_all_sets_is_encoded_once() -> None:
    stub, tasks = Stub(), [make_task("STS12"), make_task("STS-B", split="dev")]
    STSEvaluator(tasks)(stub)
    (asked,) = stub.asked
    assert len(asked) == len(set(asked))
    assert set(asked) == {text for task in tasks for text in (*task.sentences1, *task.sentences2)}


def test_a_set_scores_the_same_alone_and_among_others() -> None:
    stub, tasks = Stub(), [make_task("STS12"), make_task("STS13", seed=9)]
    together = STSEvaluator(tasks)(stub)
    for task in tasks:
        for key, value in STSEvaluator(task)(stub).items():
            assert together[key] == value


@pytest.mark.parametrize(
    ("tasks", "options", "primary", "keys"),
    [
        ([make_task("STS-B", split="dev")], {}, "STS-B-dev_spearman_cosine", {"STS-B-dev"}),
        ([make_task("STS-B", split="dev")], {"name": "sts-dev"}, "sts-dev_spearman_cosine", {"sts-dev"}),
        ([make_task("STS12"), make_task("STS-B")], {}, "STS-B_spearman_cosine", {"STS12", "STS-B", "average"}),
        (
            [make_task("STS-B"), make_task("STS-B", split="dev")],
            {},
            "STS-B-dev_spearman_cosine",
            {"STS-B", "STS-B-dev", "average"},
        ),
        ([make_task("STS12"), make_task("mine")], {}, "average_spearman_cosine", {"STS12", "mine", "average"}),
        (
            [make_task("STS12"), make_task("STS13")],
            {"name": "x", "primary": "STS13"},
            "x_STS13_spearman_cosine",
            {"x_STS12", "x_STS13", "x_average"},
        ),
        (
            [make_task(name) for name in SIX],
            {"primary": "average5"},
            "average5_spearman_cosine",
            {*SIX, "average", "average5", "average6"},
        ),
    ],
)
def test_keys_are_stable_and_the_primary_metric_is_known_beforehand(
    tasks: list[STSTask], options: dict[str, Any], primary: str, keys: set[str]
) -> None:
    evaluator = STSEvaluator(tasks, **options)
    assert evaluator.primary_metric == primary
    for _ in range(2):
        metrics = evaluator(Stub())
        assert evaluator.primary_metric == primary
        assert {key for key in metrics if key.endswith("_spearman_cosine")} == {f"{k}_spearman_cosine" for k in keys}


def test_averages_are_of_their_members() -> None:
    metrics = STSEvaluator([make_task(name, seed=i) for i, name in enumerate(SIX)])(Stub())
    scores = [metrics[f"{name}_spearman_cosine"] for name in SIX]
    assert metrics["average6_spearman_cosine"] == pytest.approx(np.mean(scores))
    assert metrics["average5_spearman_cosine"] == pytest.approx(np.mean([*scores[:4], scores[5]]))


def test_the_csv_grows_by_a_line_an_evaluation_with_subset_scores(tmp_path: Path) -> None:
    evaluator, stub = STSEvaluator(make_task(), name="dev"), Stub()
    metrics = evaluator(stub, str(tmp_path / "eval"), epoch=1, steps=20)
    evaluator(stub, str(tmp_path / "eval"), epoch=2, steps=40)
    with (tmp_path / "eval" / "sts_evaluation_dev_results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["epoch"], row["steps"]) for row in rows] == [("1", "20"), ("2", "40")]
    assert float(rows[0]["dev_spearman_cosine"]) == metrics["dev_spearman_cosine"]
    assert {"STS12/s0_spearman_cosine", "STS12/s2_pearson_cosine"} <= rows[0].keys()
    assert stub.cards[-1] == (metrics, 2, 40)


def test_the_csv_is_not_mixed_with_another_evaluation_s(tmp_path: Path) -> None:
    STSEvaluator(make_task("STS12"), name="dev")(Stub(), str(tmp_path))
    with pytest.raises(InputError, match="other columns"):
        STSEvaluator(make_task("STS12", sizes=(5,)), name="dev")(Stub(), str(tmp_path))


def test_no_csv_is_written_unasked(tmp_path: Path) -> None:
    STSEvaluator(make_task(), write_csv=False)(Stub(), str(tmp_path))
    assert not list(tmp_path.iterdir())


class Broken(Stub):
    """Embeddings of one kind of fault."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def encode(self, texts: list[str], **_: Any) -> np.ndarray:
        vectors = super().encode(texts)
        if self.kind == "constant":
            return np.ones_like(vectors) * np.arange(1, len(texts) + 1, dtype=np.float32)[:, None]
        vectors[3] = {"nan": np.nan, "inf": np.inf, "zero": 0}[self.kind]
        return vectors


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("nan", "embedding of 's0 3' is not finite"),
        ("inf", "embedding of 's0 3' is not finite"),
        ("zero", "embedding of 's0 3' is zero"),
        ("constant", "all similarities are 1.0"),
    ],
)
def test_useless_embeddings_are_an_error_and_not_a_score(kind: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        STSEvaluator(make_task())(Broken(kind))


def test_constant_gold_scores_are_an_error() -> None:
    subset = STSSubset("s", ["a", "b"], ["c", "d"], np.array([3.0, 3.0]))
    with pytest.raises(InputError, match=r"mine, s: all 2 gold score\(s\) are the same"):
        STSEvaluator(STSTask("mine", (subset,)))(Stub())


@pytest.mark.parametrize(
    ("tasks", "options", "problem"),
    [
        ([], {}, "one or more"),
        ([make_task(), make_task()], {}, "STS12, STS12"),
        ([make_task()], {"aggregation": "median"}, "'median' is no aggregation"),
        ([make_task()], {"primary": "average"}, "'average' is no metric"),
        ([make_task(), make_task("STS-B")], {"primary": "average5"}, "choose from STS12, STS-B, average"),
    ],
)
def test_impossible_evaluations_are_refused_at_once(
    tasks: list[STSTask], options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        STSEvaluator(tasks, **options)


def test_a_mean_over_subsets_needs_subsets() -> None:
    merged = STSTask("STS12", (make_subset("STS12", 9, 0),), merged=True)
    STSEvaluator(merged, "all")
    with pytest.raises(InputError, match="STS12 came without subsets"):
        STSEvaluator(merged, "mean")


def test_the_suite_reports_what_it_documents() -> None:
    tasks, stub = [make_task(name, seed=i) for i, name in enumerate(SIX)], Stub()
    report = sts_suite(stub, tasks=tasks, model_name="stub")
    assert json.loads(json.dumps(report, allow_nan=False)).keys() == {
        "model",
        "aggregation",
        "scores",
        "subsets",
        "average5",
        "average6",
        "pairs",
        "seconds",
        "versions",
        "pearson",
        "command",
        "seed",
        "model_fingerprint",
        "data_fingerprint",
    }
    metrics = STSEvaluator(tasks)(stub)
    assert report["scores"] == {name: 100 * metrics[f"{name}_spearman_cosine"] for name in SIX}
    assert report["pearson"]["STS-B"] == 100 * metrics["STS-B_pearson_cosine"]
    assert report["average6"] == pytest.approx(100 * metrics["average6_spearman_cosine"])
    assert report["pairs"] == dict.fromkeys(SIX, 49)
    assert set(report["subsets"]["STS12"]) == {"s0", "s1", "s2"}
    assert (report["model"], report["aggregation"]) == ("stub", "all")


def test_the_suite_averages_only_what_is_whole() -> None:
    report = sts_suite(Stub(), tasks=[make_task(name) for name in SIX if name != "STS16"])
    assert report["average5"] is not None
    assert report["average6"] is None
    report = sts_suite(Stub(), tasks=[make_task("STS-B", split="dev")])
    assert (list(report["scores"]), report["average5"]) == (["STS-B-dev"], None)


def test_a_real_model_is_scored_and_its_card_says_so(tiny_encoder: Path, tmp_path: Path) -> None:
    model = SentenceTransformer(str(tiny_encoder), device="cpu", similarity_fn_name="euclidean")
    evaluator = STSEvaluator([make_task("STS12"), make_task("STS-B", split="dev")])
    metrics = evaluator(model, epoch=1, steps=5)
    assert model.model_card_data.eval_results_dict[evaluator] == metrics
    model.save(str(tmp_path))
    assert "**STS-B-dev_spearman_cosine**" in (tmp_path / "README.md").read_text(encoding="utf-8")
    report = sts_suite(model, tasks=[make_task("STS12")])
    assert report["model_fingerprint"]
    assert report["scores"]["STS12"] == pytest.approx(100 * metrics["STS12_spearman_cosine"], abs=0.5)


def test_the_suite_opens_a_model_by_name_and_exported_ones_without_torch(packed: Path, tmp_path: Path) -> None:
    named, opened = (sts_suite(model, tasks=[make_task()]) for model in (str(packed), EdgeEncoder(packed)))
    assert (named["model"], opened["model"]) == (str(packed), "EdgeEncoder")
    assert named["scores"] == opened["scores"]
    assert named["model_fingerprint"] == opened["model_fingerprint"] is not None
    assert STSEvaluator(make_task())(EdgeEncoder(packed), str(tmp_path))["STS12_spearman_cosine"] == pytest.approx(
        named["scores"]["STS12"] / 100
    )


def test_the_former_name_of_the_folder_warns(tmp_path: Path) -> None:
    for call in (lambda: sts_suite(Stub(), source=tmp_path), lambda: load_sts("STS12", source=tmp_path)):
        with (
            pytest.warns(DeprecationWarning, match="source is now sts_dir"),
            pytest.raises(InputError, match="missing"),
        ):
            call()


@pytest.mark.slow
def test_minilm_scores_what_is_published(minilm: Path, data_dir: Path) -> None:
    published = {"STS12": 72.37, "STS13": 80.60, "STS14": 75.59, "STS15": 85.39, "STS16": 78.99, "STS-B": 82.03}
    report = sts_suite(SentenceTransformer(str(minilm)), data_dir / "sts")
    assert report["scores"] == pytest.approx(published, abs=0.01)
    assert report["average5"] == pytest.approx(79.20, abs=0.01)

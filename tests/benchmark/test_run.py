from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from distilface_st.benchmark import models
from distilface_st.benchmark.plot import plot_benchmark
from distilface_st.benchmark.process import Worker
from distilface_st.benchmark.quality import cosines_of_rows
from distilface_st.benchmark.report import BenchmarkReport, Turn, summarize
from distilface_st.benchmark.run import benchmark_models
from distilface_st.benchmark.texts import benchmark_texts
from distilface_st.benchmark.variants import KINDS, Arm, bytes_needed, forward_flops, labels, prepare_arms
from distilface_st.datasets.sts import STSSubset, STSTask
from distilface_st.errors import InputError
from distilface_st.models.build import build_model
from distilface_st.models.load import load_model
from distilface_st.models.save import save_model

WORDS = "the man ran to a big red house in town and ate fish with his small old cat by day".split()


def make_sentences(count: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=rng.integers(3, 25))) for _ in range(count)]


def make_task(name: str, pairs: int = 12) -> STSTask:
    scores = np.random.default_rng(0).uniform(0, 5, pairs)
    return STSTask(name, (STSSubset(name, make_sentences(pairs, 1), make_sentences(pairs, 2), scores),))


def make_arm(name: str, kind: str, fingerprint: str = "f") -> Arm:
    return Arm("model", name, kind, Path(), None, "fp32", 1000, 4000, fingerprint)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("text") / "lines.txt"
    file.write_text("\n".join(dict.fromkeys(make_sentences(60, 3))))
    return file


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield


@pytest.fixture(scope="module")
def model_folder(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(build_model(tiny_encoder, layers="last", device="cpu"), folder)
    return folder


@pytest.fixture(scope="module")
def report(model_folder: Path, text: Path) -> BenchmarkReport:
    """One run of both torch arms that the tests below look at."""
    return benchmark_models(
        [model_folder],
        tasks=[make_task("STS-B"), make_task("STS12")],
        text=text,
        sentences=20,
        passages=2,
        pairs=5,
        repeats=2,
        starts=1,
        threads=1,
    )


def test_a_packed_model_has_arms_in_torch_and_of_its_own_graph(packed: Path, tmp_path: Path) -> None:
    arms = prepare_arms([str(packed)], (), KINDS, make_sentences(3, 0), tmp_path, lambda step: None)
    assert [arm.name for arm in arms] == ["torch", "torch-bf16", "packed/st", "packed/edge"]
    assert len({arm.fingerprint for arm in arms}) == len({arm.parameters for arm in arms}) == 1


def test_arms_take_turns_in_every_repeat(report: BenchmarkReport) -> None:
    turns = report.turns
    assert [turn.order for turn in turns] == list(range(1, len(turns) + 1))
    assert [turn.arm for turn in turns if turn.figure == "load"] == ["torch", "torch-bf16"]
    for figure in ("one_by_one", "stsb_batch32", "sentences_batch32", "passages_best"):
        found = [(turn.repeat, turn.arm) for turn in turns if turn.figure == figure]
        assert found == [(1, "torch"), (1, "torch-bf16"), (2, "torch"), (2, "torch-bf16")]
    first, second = ([t.figure for t in turns if t.repeat == r and t.figure.endswith("batch32")] for r in (1, 2))
    assert first == second
    assert max(t.order for t in turns if t.repeat == 1 and "32" in t.figure) < min(
        t.order for t in turns if t.repeat == 2 and "32" in t.figure
    )


def test_every_arm_has_every_figure_with_its_count_batch_and_unit(report: BenchmarkReport) -> None:
    texts = ("stsb", "sentences", "passages")
    expected = ["load", "cold_start", "one_by_one", *(f"{t}_batch32" for t in texts), *(f"{t}_best" for t in texts)]
    for arm in report.arms:
        assert list(arm.figures) == expected
        assert arm.figures["one_by_one"].sentences == 2 * 5
        assert arm.figures["one_by_one"].batch is None
        assert arm.figures["sentences_batch32"].batch == 32
        assert arm.figures["sentences_best"].batch in (8, 16, 32, 64, 128)
        assert arm.figures["stsb_batch32"].sentences == 20
        assert arm.figures["passages_best"].sentences == 2
        assert {f.unit for f in arm.figures.values()} == {"s", "ms/sentence", "sentences/s"}
        assert all(len(f.values) == 2 for name, f in arm.figures.items() if name not in ("load", "cold_start"))
    assert report.texts["passages"]["words"] == 200


def test_what_an_arm_is_and_costs(report: BenchmarkReport, model_folder: Path) -> None:
    torch_arm, bf16 = report.arms
    model = load_model(model_folder, device="cpu")
    assert torch_arm.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert torch_arm.bytes_on_disk == sum(file.stat().st_size for file in model_folder.rglob("*") if file.is_file())
    assert torch_arm.peak_memory_bytes is None or torch_arm.peak_memory_bytes > 10**8
    assert (torch_arm.computes_in, bf16.computes_in) == ("fp32", "bf16")
    assert bf16.baseline == torch_arm.id == "tiny torch"
    assert torch_arm.weights == "trained"
    assert torch_arm.gflops is not None
    assert torch_arm.share_of_peak == pytest.approx(torch_arm.gflops / report.peaks["fp32"]["gflops"])


def test_quality_is_that_of_the_embeddings(report: BenchmarkReport) -> None:
    torch_arm, bf16 = (arm.quality for arm in report.arms)
    assert torch_arm.min_cosine == pytest.approx(1)
    assert torch_arm.loss == 0
    assert list(torch_arm.scores or {}) == ["STS-B", "STS12"]
    assert torch_arm.average5 is None
    assert torch_arm.average is not None
    assert bf16.average is not None
    assert bf16.loss == pytest.approx(torch_arm.average - bf16.average)
    assert bf16.mean_cosine is not None
    assert 0.99 < bf16.mean_cosine < 1


def test_a_report_is_json_and_its_rows_are_the_timings(report: BenchmarkReport) -> None:
    content = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert {"arms", "turns", "texts", "machine", "peaks", "versions", "command", "notes"} <= set(content)
    assert set(content["peaks"]) == {"fp32", "bf16", "int8"}
    rows = report.rows()
    assert len(rows) == 2 * (2 + 2 * 7)
    assert list(rows[0])[:5] == ["order", "model", "arm", "figure", "repeat"]
    assert {row["unit"] for row in rows if row["figure"] == "one_by_one"} == {"ms/sentence"}


def test_a_plot_takes_scores_or_else_cosines_and_says_where_there_are_none(
    report: BenchmarkReport, tmp_path: Path
) -> None:
    plot_benchmark(report, tmp_path / "scores.png")
    unscored = [replace(arm, quality=replace(arm.quality, scores={}, average=None)) for arm in report.arms]
    plot_benchmark(replace(report, arms=tuple(unscored)), tmp_path / "cosines.svg")
    assert (tmp_path / "scores.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "cosines.svg").read_text()
    nothing = [
        replace(arm, quality=replace(arm.quality, average=None, scores={}, mean_cosine=None)) for arm in unscored
    ]
    with pytest.raises(InputError, match="nothing to plot"):
        plot_benchmark(replace(report, arms=tuple(nothing)), tmp_path / "nothing.png")


@pytest.mark.slow
def test_exports_are_compared_with_the_torch_model_of_the_same_weights(
    model_folder: Path, text: Path, tmp_path: Path
) -> None:
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    from distilface_st.export.export_model import export_model

    export_model(model_folder, tmp_path / "exported")
    found = benchmark_models(
        [tmp_path / "exported", model_folder],
        exports=["onnx-int8"],
        arms=["torch", "edge"],
        text=text,
        sentences=16,
        passages=1,
        repeats=1,
        starts=1,
        threads=1,
    )
    assert [arm.id for arm in found.arms] == ["exported onnx-fp32/edge", "tiny torch", "tiny onnx-int8/edge"]
    given, torch_arm, made = found.arms
    assert given.baseline == made.baseline == torch_arm.id
    assert given.fingerprint == made.fingerprint == torch_arm.fingerprint
    assert given.quality.min_cosine == pytest.approx(1, abs=1e-4)
    assert (given.computes_in, made.computes_in) == ("fp32", "int8")
    assert given.gflops is not None
    assert made.figures["sentences_batch32"].batch == 1024
    assert made.figures["sentences_batch32"].speed_ratio is not None
    assert made.bytes_on_disk < given.bytes_on_disk
    assert given.peak_memory_bytes is None or given.peak_memory_bytes < torch_arm.peak_memory_bytes * 0.7
    assert "stsb" not in found.texts
    assert any("STS-B" in note for note in found.notes)


def test_figures_are_medians_with_spread_and_ratios_say_how_many_times_as_fast() -> None:
    base, fast = make_arm("torch", "torch"), make_arm("onnx-int8/edge", "edge")
    turns = [
        Turn(order, "model", arm.name, figure, repeat, seconds, 10)
        for arm, figure, times in (
            (base, "one_by_one", (0.4, 0.2, 0.3)),
            (fast, "one_by_one", (0.1, 0.1, 0.2)),
            (base, "sentences_batch32", (2.0, 2.0, 5.0)),
            (fast, "sentences_batch32", (0.5, 1.0, 0.4)),
        )
        for order, (repeat, seconds) in enumerate(enumerate(times, 1), 1)
    ]
    figures = summarize(turns, fast, base)
    one = figures["one_by_one"]
    assert (one.median, one.min, one.max) == pytest.approx((10, 10, 20))
    assert one.speed_ratio == pytest.approx(3)
    rate = figures["sentences_batch32"]
    assert (rate.median, rate.min, rate.max) == pytest.approx((20, 10, 25))
    assert rate.speed_ratio == pytest.approx(4)
    assert summarize(turns, base, base)["one_by_one"].speed_ratio == 1
    assert summarize(turns, fast, None)["one_by_one"].speed_ratio is None


def test_operations_of_linear_layers_and_attention_are_counted(model_folder: Path) -> None:
    assert forward_flops(10, layers=1, width=1, lengths=[3, 3]) == 2 * (2 * 10 * 3 + 4 * 9)
    from distilface_st.benchmark.variants import count_flops

    model = load_model(model_folder, device="cpu")
    tokens = len(model.tokenizer("the man ran")["input_ids"])
    weights = 4 * (4 * 32 * 32 + 2 * 32 * 64)  # four layers: query, key, value, output; two of the feed-forward part
    assert count_flops(model, ["the man ran"]) == 2 * weights * tokens + 4 * 4 * 32 * tokens**2


def test_the_other_runtimes_graph_is_not_counted(tmp_path: Path) -> None:
    for name, size in {"model.onnx": 100, "openvino.bin": 300, "tokenizer.json": 7}.items():
        (tmp_path / name).write_bytes(b"x" * size)
    assert bytes_needed(tmp_path, {"openvino.bin"}) == 107


def test_an_encoder_that_cannot_be_had_is_built_with_random_weights(
    tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import BertConfig, BertModel

    def build() -> BertModel:
        shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
        return BertModel(BertConfig(**shape))

    monkeypatch.setattr(models, "plain_encoders", lambda: {"no-such-encoder": build})
    monkeypatch.setattr(models, "bundled_encoder", lambda: tiny_encoder)
    model, folder, is_random = models.open_model("no-such-encoder", tmp_path / "model")
    assert is_random
    assert model.max_seq_length == 256
    again = load_model(folder, device="cpu")
    np.testing.assert_allclose(again.encode("the man ran"), model.encode("the man ran"), atol=1e-6)


def test_the_papers_encoders_have_their_public_size_and_the_same_weights_each_time() -> None:
    with torch.device("meta"):
        sizes = {name: build().num_parameters() for name, build in models.plain_encoders().items()}
    assert sizes == {"bert-base-uncased": 109_482_240, "distilbert-base-uncased": 66_362_880}


def test_texts_are_as_many_as_asked_for(text: Path) -> None:
    found = benchmark_texts([make_task("STS-B")], text, sentences=7, passages=3, pairs=4)
    assert {name: len(entry.sentences) for name, entry in found.items()} == {
        "one_by_one": 8,
        "stsb": 7,
        "sentences": 7,
        "passages": 3,
    }
    assert len(set(found["passages"].sentences)) == 3
    assert found["one_by_one"].sentences[:2] == [make_task("STS-B").sentences1[0], make_task("STS-B").sentences2[0]]
    without = benchmark_texts([make_task("STS12")], None, sentences=5, passages=1, pairs=2)
    assert {name: len(entry.sentences) for name, entry in without.items()} == {
        "one_by_one": 4,
        "sentences": 5,
        "passages": 1,
    }


def test_models_of_one_folder_name_keep_their_paths(tmp_path: Path) -> None:
    folders = [tmp_path / part / "model" for part in ("a", "b")]
    for folder in folders:
        folder.mkdir(parents=True)
    assert labels([str(folders[0]), "bundled"]) == ["model", "bundled"]
    assert labels([str(folder) for folder in folders]) == [str(folder) for folder in folders]
    with pytest.raises(InputError, match="each once"):
        labels(["bundled", "bundled"])


def test_a_worker_that_dies_says_why_in_one_line(tmp_path: Path) -> None:
    spec = {"kind": "edge", "folder": str(tmp_path / "gone"), "runtime": None, "threads": None}
    with pytest.raises(InputError, match=r"^gone edge ended early \(status 1\): InputError: .*gone: no such folder\.$"):
        Worker("gone edge", spec, tmp_path)


def test_embeddings_that_cannot_be_compared_are_refused() -> None:
    one = np.ones((2, 3), dtype=np.float32)
    assert cosines_of_rows("arm", one, 2 * one) == pytest.approx(1)
    with pytest.raises(InputError, match="shape"):
        cosines_of_rows("arm", one, one[:, :2])
    with pytest.raises(InputError, match="zero or not finite"):
        cosines_of_rows("arm", one * np.nan, one)

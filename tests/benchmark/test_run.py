from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distilface_st.benchmark import run
from distilface_st.benchmark.plot import plot_benchmark
from distilface_st.benchmark.report import BenchmarkReport, Timing, Variant, summarize
from distilface_st.benchmark.run import benchmark_models, cosines_of_rows
from distilface_st.benchmark.texts import benchmark_texts
from distilface_st.benchmark.variants import KINDS, bytes_needed, labels, prepare_variants
from distilface_st.benchmark.worker import VariantError, Worker
from distilface_st.datasets.sts import STSSubset, STSTask
from distilface_st.errors import InputError
from distilface_st.models.build import build_model
from distilface_st.models.load import load_model
from distilface_st.models.save import save_model
from distilface_st.pretrained import shipped_model

WORDS = "the man ran to a big red house in town and ate fish with his small old cat by day".split()


def make_sentences(count: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=rng.integers(3, 25))) for _ in range(count)]


def make_task(name: str, pairs: int = 12) -> STSTask:
    scores = np.random.default_rng(0).uniform(0, 5, pairs)
    return STSTask(name, (STSSubset(name, make_sentences(pairs, 1), make_sentences(pairs, 2), scores),))


def make_variant(name: str, kind: str, folder: Path = Path()) -> Variant:
    return Variant("model", name, kind, folder, "torch" if kind == "torch" else "onnxruntime", "fp32", "f", 1000, 4000)


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
    """One run of both torch variants that the tests below look at."""
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


def test_a_packed_model_has_variants_in_torch_and_of_its_own_graphs(tmp_path: Path) -> None:
    variants = prepare_variants(["distilface-micro"], (), KINDS, tmp_path, lambda step: None)
    assert [variant.variant for variant in variants] == [
        *("torch", "torch-bf16", "packed/st", "packed/edge", "packed-openvino/st", "packed-openvino/edge"),
    ]
    assert len({variant.fingerprint for variant in variants}) == len({variant.parameters for variant in variants}) == 1


def test_every_variant_is_timed_in_every_repeat(report: BenchmarkReport) -> None:
    timings = report.timings
    assert [timing.order for timing in timings] == list(range(1, len(timings) + 1))
    assert [timing.variant for timing in timings if timing.figure == "load"] == ["torch", "torch-bf16"]
    for figure in ("one_by_one", "stsb_batch32", "sentences_batch32", "passages_best"):
        found = [(timing.repeat, timing.variant) for timing in timings if timing.figure == figure]
        assert found == [(1, "torch"), (1, "torch-bf16"), (2, "torch"), (2, "torch-bf16")]
    first, second = ([t.figure for t in timings if t.repeat == r and t.figure.endswith("batch32")] for r in (1, 2))
    assert first == second
    assert max(t.order for t in timings if t.repeat == 1 and "32" in t.figure) < min(
        t.order for t in timings if t.repeat == 2 and "32" in t.figure
    )


def test_every_variant_has_every_figure_with_its_count_batch_and_unit(report: BenchmarkReport) -> None:
    texts = ("stsb", "sentences", "passages")
    expected = ["load", "cold_start", "one_by_one", *(f"{t}_batch32" for t in texts), *(f"{t}_best" for t in texts)]
    for variant in report.variants:
        assert list(variant.figures) == expected
        assert variant.figures["one_by_one"].sentences == 2 * 5
        assert variant.figures["one_by_one"].batch is None
        assert variant.figures["sentences_batch32"].batch == 32
        assert variant.figures["sentences_best"].batch in (8, 16, 32, 64, 128)
        assert variant.figures["stsb_batch32"].sentences == 20
        assert variant.figures["passages_best"].sentences == 2
        assert {f.unit for f in variant.figures.values()} == {"s", "ms/sentence", "sentences/s"}
        assert all(len(f.values) == 2 for name, f in variant.figures.items() if name not in ("load", "cold_start"))
    assert report.texts["passages"]["words"] == 200


def test_what_a_variant_is_and_costs(report: BenchmarkReport, model_folder: Path) -> None:
    in_torch, bf16 = report.variants
    model = load_model(model_folder, device="cpu")
    assert in_torch.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert in_torch.bytes_on_disk == sum(file.stat().st_size for file in model_folder.rglob("*") if file.is_file())
    assert in_torch.peak_memory_bytes is None or in_torch.peak_memory_bytes > 10**8
    assert (in_torch.computes_in, bf16.computes_in) == ("fp32", "bf16")
    assert bf16.baseline == in_torch.id == "tiny torch"


def test_quality_is_that_of_the_embeddings(report: BenchmarkReport) -> None:
    in_torch, bf16 = (variant.quality for variant in report.variants)
    assert in_torch.min_cosine == pytest.approx(1)
    assert in_torch.loss == 0
    assert list(in_torch.scores or {}) == ["STS-B", "STS12"]
    assert in_torch.average5 is None
    assert in_torch.average is not None
    assert bf16.average is not None
    assert bf16.loss == pytest.approx(in_torch.average - bf16.average)
    assert bf16.mean_cosine is not None
    assert 0.99 < bf16.mean_cosine < 1


def test_a_report_is_json_and_its_rows_are_the_timings(report: BenchmarkReport) -> None:
    content = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert {"variants", "timings", "texts", "machine", "versions", "command", "notes"} <= set(content)
    rows = report.rows()
    assert len(rows) == 2 * (2 + 2 * 7)
    assert list(rows[0])[:5] == ["order", "model", "variant", "figure", "repeat"]
    assert {row["unit"] for row in rows if row["figure"] == "one_by_one"} == {"ms/sentence"}


def test_a_plot_takes_scores_or_else_cosines_and_says_where_there_are_none(
    report: BenchmarkReport, tmp_path: Path
) -> None:
    plot_benchmark(report, tmp_path / "scores.png")
    unscored = [replace(one, quality=replace(one.quality, scores={}, average=None)) for one in report.variants]
    plot_benchmark(replace(report, variants=tuple(unscored)), tmp_path / "cosines.svg")
    assert (tmp_path / "scores.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "cosines.svg").read_text()
    nothing = [
        replace(variant, quality=replace(variant.quality, average=None, scores={}, mean_cosine=None))
        for variant in unscored
    ]
    with pytest.raises(InputError, match="nothing to plot"):
        plot_benchmark(replace(report, variants=tuple(nothing)), tmp_path / "nothing.png")


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
        variants=["torch", "edge"],
        text=text,
        sentences=16,
        passages=1,
        repeats=1,
        starts=1,
        threads=1,
    )
    assert [variant.id for variant in found.variants] == [
        "exported onnx-fp32/edge",
        "tiny torch",
        "tiny onnx-int8/edge",
    ]
    given, in_torch, made = found.variants
    assert given.baseline == made.baseline == in_torch.id
    assert given.fingerprint == made.fingerprint == in_torch.fingerprint
    assert given.quality.min_cosine == pytest.approx(1, abs=1e-4)
    assert (given.computes_in, made.computes_in) == ("fp32", "int8")
    assert made.figures["sentences_batch32"].batch == 1024
    assert made.figures["sentences_batch32"].speed_ratio is not None
    assert made.bytes_on_disk < given.bytes_on_disk
    assert given.peak_memory_bytes is None or given.peak_memory_bytes < in_torch.peak_memory_bytes * 0.7
    assert "stsb" not in found.texts
    assert any("STS-B" in note for note in found.notes)


def test_figures_are_medians_with_least_and_most_and_ratios_say_how_many_times_as_fast() -> None:
    base, fast = make_variant("torch", "torch"), make_variant("onnx-int8/edge", "edge")
    timings = [
        Timing(order, "model", variant.variant, figure, repeat, seconds, 10)
        for variant, figure, times in (
            (base, "one_by_one", (0.4, 0.2, 0.3)),
            (fast, "one_by_one", (0.1, 0.1, 0.2)),
            (base, "sentences_batch32", (2.0, 2.0, 5.0)),
            (fast, "sentences_batch32", (0.5, 1.0, 0.4)),
        )
        for order, (repeat, seconds) in enumerate(enumerate(times, 1), 1)
    ]
    figures = summarize(timings, fast, base)
    one = figures["one_by_one"]
    assert (one.median, one.min, one.max) == pytest.approx((10, 10, 20))
    assert one.speed_ratio == pytest.approx(3)
    rate = figures["sentences_batch32"]
    assert (rate.median, rate.min, rate.max) == pytest.approx((20, 10, 25))
    assert rate.speed_ratio == pytest.approx(4)
    assert summarize(timings, base, base)["one_by_one"].speed_ratio == 1
    assert summarize(timings, fast, None)["one_by_one"].speed_ratio is None


def test_the_other_runtimes_graph_is_not_counted(tmp_path: Path) -> None:
    for name, size in {"model.onnx": 100, "openvino.bin": 300, "tokenizer.json": 7}.items():
        (tmp_path / name).write_bytes(b"x" * size)
    assert bytes_needed(tmp_path, {"openvino.bin"}) == 107


def test_texts_are_as_many_as_asked_for(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = benchmark_texts([make_task("STS-B")], text, sentences=7, passages=3, pairs=4)
    assert {name: len(entry.sentences) for name, entry in found.items()} == {
        "one_by_one": 8,
        "stsb": 7,
        "sentences": 7,
        "passages": 3,
    }
    assert len(set(found["passages"].sentences)) == 3
    assert found["one_by_one"].sentences[:2] == [make_task("STS-B").sentences1[0], make_task("STS-B").sentences2[0]]
    monkeypatch.setattr("distilface_st.datasets.python_docs.python_sentences", lambda count: make_sentences(count, 4))
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


def test_a_process_that_dies_says_why_in_one_line(tmp_path: Path) -> None:
    reason = r"^model edge ended early \(status 1\): InputError: .*gone: no such folder\.$"
    with pytest.raises(VariantError, match=reason):
        Worker(make_variant("edge", "edge", tmp_path / "gone"), None)


def test_a_variant_that_fails_is_left_out_and_the_others_go_on(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare_three(*arguments: Any) -> list[Variant]:
        edge = next(variant for variant in prepare_variants(*arguments) if variant.runtime == "onnxruntime")
        gone = replace(edge, variant="gone/edge", folder=tmp_path / "gone")
        return [gone, edge, replace(edge, variant="killed/edge")]

    def progress(step: str) -> None:
        if step == "repeat 1, one_by_one: distilface-micro packed/edge":
            workers["distilface-micro killed/edge"]._process.kill()

    class KnownWorker(Worker):
        def __init__(self, variant: Variant, threads: int | None) -> None:
            super().__init__(variant, threads)
            workers[variant.id] = self

    workers: dict[str, Worker] = {}
    monkeypatch.setattr(run, "prepare_variants", prepare_three)
    monkeypatch.setattr(run, "Worker", KnownWorker)
    options = {"text": text, "sentences": 8, "passages": 1, "repeats": 1, "starts": 1, "threads": 1}
    with pytest.warns(DeprecationWarning, match="variants"):
        found = benchmark_models(["distilface-micro"], arms=["edge"], progress=progress, **options)
    with pytest.warns(DeprecationWarning, match="variants"):
        assert [one.variant for one in found.arms] == ["packed/edge"]
    gone, killed = found.notes[:2]
    assert gone.startswith("distilface-micro gone/edge ended early (status 1)")
    assert killed.startswith("distilface-micro killed/edge ended early (signal SIGKILL)")
    assert "enough memory" in killed
    assert {timing.variant for timing in found.timings} == {"packed/edge", "killed/edge"}


def test_a_variant_without_torch_imports_none() -> None:
    opening = f"""
from distilface_st.benchmark.worker import VariantProcess
VariantProcess().open("edge", {str(shipped_model("micro"))!r}, "onnxruntime", None, 0)
import sys
print({{"torch", "transformers", "sentence_transformers", "matplotlib"}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", opening], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_embeddings_that_cannot_be_compared_are_refused() -> None:
    one = np.ones((2, 3), dtype=np.float32)
    assert cosines_of_rows("variant", one, 2 * one) == pytest.approx(1)
    with pytest.raises(InputError, match="shape"):
        cosines_of_rows("variant", one, one[:, :2])
    with pytest.raises(InputError, match="zero or not finite"):
        cosines_of_rows("variant", one * np.nan, one)

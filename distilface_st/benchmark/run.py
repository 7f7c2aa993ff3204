"""Cost and quality of models and of the ways to run them, side by side in one run."""

from __future__ import annotations

import tempfile
import time
import warnings
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ..errors import InputError
from ..evaluation.sts import sts_suite
from ..utils.provenance import command, text_fingerprint, versions
from .report import BenchmarkReport, Quality, Timing, VariantReport, machine, summarize
from .texts import STSB, benchmark_texts
from .variants import EXPORTS, KINDS, labels, prepare_variants
from .worker import VariantError, Worker

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Sequence

    from ..datasets.sts import STSTask
    from .report import Variant
    from .texts import BenchmarkText

    T = TypeVar("T")


def benchmark_models(
    models: Sequence[str | os.PathLike[str]],
    *,
    exports: Sequence[str] = (),
    variants: Sequence[str] = KINDS,
    tasks: Sequence[STSTask] = (),
    text: str | os.PathLike[str] | None = None,
    sentences: int = 512,
    passages: int = 128,
    pairs: int | None = None,
    repeats: int = 3,
    starts: int = 3,
    threads: int | None = None,
    progress: Callable[[str], Any] = lambda step: None,
    arms: Sequence[str] | None = None,
) -> BenchmarkReport:
    """Measure what models cost and what they are worth.

    Every variant (a model in one way of running it) is a process of its own, which sleeps while others are timed: all
    variants do repeat 1, then all repeat 2, and so on, so that a change of the machine's speed meets all of them.
    Before each timing a variant encodes a tenth of the text untimed. All variants are in memory at once; one whose
    process ends is left out, and the report's notes say why.

    Args:
        models: Folders of models, plain, exported or packed; names of shipped models; ``bundled``; Hub names.
        exports: What to make of each plain model in a temporary folder: ``onnx`` or ``openvino`` with ``-fp32``,
            ``-fp16``, ``-int8`` or ``-int8-static``.
        variants: Which to run: ``torch`` (the fp32 baseline), ``torch-bf16``, ``st`` (an export as a
            SentenceTransformer) and ``edge`` (an export in an EdgeEncoder).
        tasks: STS sets to score, once a variant; STS-B's test split, where it is among them, is also timed.
        text: Sentences to time, see :func:`distilface_st.datasets.sentences.load_sentences`; by default what Python's
            own modules say of themselves.
        sentences: The most sentences of a text.
        passages: Passages of 200 words.
        pairs: The most pairs of STS-B that are encoded sentence by sentence, as in the paper's Table 2; by default all.
        repeats: Timings of each figure.
        starts: Processes started for each variant, to time loading.
        threads: Processor threads; by default each runtime's own choice.
        progress: Called with what is being done.
        arms: The former name of ``variants``.

    Returns:
        Every timing, its median, least and most, and its ratio to the same model's ``torch`` variant.

    Raises:
        InputError: An option, a model or a text that cannot be used; no variant's process lived to the end.
        MissingExtraError: An export needs packages that are not installed.

    Example:
        ::

            report = benchmark_models(["run/model"], exports=["onnx-int8"], tasks=[load_sts("STS-B", "data/sts")])
            report.variants[0].figures["one_by_one"].median  # milliseconds a sentence
    """
    if arms is not None:
        warnings.warn("arms is now called variants: the next release drops it.", DeprecationWarning, stacklevel=2)
        variants = arms
    began = time.perf_counter()
    names = [str(model) for model in models]
    labels(names)
    for what, given, known in (("export", exports, EXPORTS), ("variant", variants, KINDS)):
        if unknown := [name for name in given if name not in known]:
            raise InputError(f"There is no {what} {', '.join(map(repr, unknown))}: choose from {', '.join(known)}.")
    counts = {"sentences": sentences, "passages": passages, "pairs": pairs, "repeats": repeats, "starts": starts}
    for name, count in {**counts, "threads": threads}.items():
        if count is not None and count < 1:
            raise InputError(f"{name} is {count}: it must be at least 1.")
    progress("reading the text")
    texts = benchmark_texts(tasks, text, sentences, passages, pairs)
    with tempfile.TemporaryDirectory(prefix="distilface-benchmark-") as scratch, ExitStack() as stack:
        run = _Run(prepare_variants(names, exports, variants, Path(scratch), progress), texts, threads, stack, progress)
        reports = run.measure(starts, repeats, tasks)
    return BenchmarkReport(
        variants=tuple(reports),
        timings=tuple(run.timings),
        texts={name: text.describe() for name, text in texts.items()},
        repeats=repeats,
        starts=starts,
        threads=threads,
        machine=machine(),
        notes=(*run.failures, *_notes(reports, tasks)),
        seconds=round(time.perf_counter() - began, 3),
        versions=versions(),
        command=command(),
        seed=None,
        data_fingerprint=text_fingerprint(task.fingerprint for task in tasks) if tasks else None,
    )


@dataclass
class _Run:
    """The variants whose processes are alive, and every timing taken of them."""

    variants: list[Variant]
    texts: dict[str, BenchmarkText]
    threads: int | None
    stack: ExitStack
    progress: Callable[[str], Any]
    workers: dict[str, Worker] = field(default_factory=dict)
    timings: list[Timing] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def measure(self, starts: int, repeats: int, tasks: Sequence[STSTask]) -> list[VariantReport]:
        """Take all timings and scores: what is left at the end, in the order of the variants."""
        for number in range(1, starts + 1):
            self._each(f"start {number} of {starts}", self._start, number, number == starts)
        embeddings = self._each("first batches", self._first_batches)
        batched = [name for name in self.texts if name != "one_by_one"]
        default = {name: worker.default_batch for name, worker in self.workers.items()}
        for repeat in range(1, repeats + 1):
            self._each(f"repeat {repeat}, one_by_one", self._time, "one_by_one", "one_by_one", repeat, {})
            for text in batched:
                self._each(f"repeat {repeat}, {text}_batch32", self._time, text, f"{text}_batch32", repeat, default)
        memory = self._each("memory", lambda variant: self.workers[variant.id].ask("peak_memory"))
        # The best batch is found on half of each text, once, and then timed on all of it.
        best = {text: self._each(f"best batch, {text}", self._best_batch, text) for text in batched}
        for repeat in range(1, repeats + 1):
            for text in batched:
                self._each(f"repeat {repeat}, {text}_best", self._time, text, f"{text}_best", repeat, best[text])
        quality = self._each("scoring", self._score, tasks)
        return [self._report(variant, memory[variant.id], embeddings, quality) for variant in self.variants]

    def _each(self, step: str, do: Callable[..., T], *arguments: Any) -> dict[str, T]:
        """What ``do(variant, *arguments)`` gives, by the variant's id; a variant whose process ends is left out."""
        found = {}
        for variant in tuple(self.variants):
            self.progress(f"{step}: {variant.id}")
            try:
                found[variant.id] = do(variant, *arguments)
            except VariantError as failure:
                self.variants.remove(variant)
                self.failures.append(str(failure))
                if not self.variants:
                    raise
        return found

    def _start(self, variant: Variant, number: int, is_last: bool) -> None:
        """Start a process; that of the last round stays."""
        worker = Worker(variant, self.threads)
        self._note(variant, "load", number, worker.opened.load)
        self._note(variant, "cold_start", number, worker.opened.cold_start)
        if is_last:
            self.workers[variant.id] = worker
            self.stack.callback(worker.close)
        else:
            worker.close()

    def _first_batches(self, variant: Variant) -> np.ndarray:
        """Hand over the texts, and embed ``sentences`` once."""
        worker = self.workers[variant.id]
        worker.ask("keep", texts={name: text.sentences for name, text in self.texts.items()})
        return np.asarray(worker.ask("embed", sentences="sentences", batch=worker.default_batch))

    def _time(self, variant: Variant, text: str, figure: str, repeat: int, batches: dict[str, int]) -> None:
        """Time a variant on a text at its batch of ``batches``; without one, one call a sentence."""
        batch = batches.get(variant.id)
        seconds = self._seconds(variant, text, batch)
        self._note(variant, figure, repeat, seconds, sentences=len(self.texts[text].sentences), batch=batch)

    def _best_batch(self, variant: Variant, text: str) -> int:
        sizes = (256, 512, 1024, 2048, 4096) if variant.kind == "edge" else (8, 16, 32, 64, 128)
        return min(sizes, key=lambda size: self._seconds(variant, text, size, step=2))

    def _seconds(self, variant: Variant, text: str, batch: int | None, step: int = 1) -> float:
        time.sleep(0.05)  # engines' threads spin for a while after their last call
        return float(self.workers[variant.id].ask("time", text=text, batch=batch, step=step))

    def _note(self, variant: Variant, figure: str, repeat: int, seconds: float, **more: Any) -> None:
        order = len(self.timings) + 1
        self.timings.append(Timing(order, variant.model, variant.variant, figure, repeat, seconds, **more))

    def _score(self, variant: Variant, tasks: Sequence[STSTask]) -> Quality:
        if not tasks:
            return Quality(scores={})
        report = sts_suite(self.workers[variant.id], tasks=list(tasks), model_name=variant.id)
        scores = report["scores"]
        average = float(np.mean(list(scores.values())))
        return Quality(scores=scores, average=average, average5=report["average5"], average6=report["average6"])

    def _report(
        self, variant: Variant, memory: int | None, embeddings: dict[str, np.ndarray], quality: dict[str, Quality]
    ) -> VariantReport:
        baseline = next((v for v in self.variants if v.kind == "torch" and v.fingerprint == variant.fingerprint), None)
        worth = quality[variant.id]
        if baseline is not None:
            cosines = cosines_of_rows(variant.id, embeddings[variant.id], embeddings[baseline.id])
            reference = quality[baseline.id].score
            loss = None if reference is None or worth.score is None else reference - worth.score
            worth = replace(worth, mean_cosine=float(cosines.mean()), min_cosine=float(cosines.min()), loss=loss)
        return VariantReport(
            **vars(variant),
            computes_in=self.workers[variant.id].opened.computes_in,
            baseline=baseline.id if baseline else None,
            peak_memory_bytes=memory,
            figures=summarize(self.timings, variant, baseline),
            quality=worth,
        )


def cosines_of_rows(name: str, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosine of each row of ``first`` with the same row of ``second``, shape (rows,); zero rows are refused."""
    if first.shape != second.shape:
        raise InputError(f"{name} gives embeddings of shape {first.shape}, its torch variant of shape {second.shape}.")
    first, second = first.astype(np.float64), second.astype(np.float64)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise InputError(f"{name} gives an embedding that is zero or not finite, or its torch variant does.")
    return np.asarray((first * second).sum(axis=1) / lengths)


def _notes(reports: Sequence[VariantReport], tasks: Sequence[STSTask]) -> Iterator[str]:
    if not any(task.label == STSB for task in tasks):
        yield f"Without {STSB} there is no timing on it; one sentence at a time is timed on the text."
    if not tasks:
        yield "Without STS sets nothing is scored."
    for model in dict.fromkeys(report.model for report in reports if report.baseline is None):
        yield f"{model} has no torch variant here: no ratios and no cosines."

"""Cost and quality of models and of the ways to run them, side by side in one run."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..utils.provenance import command, text_fingerprint, versions
from .machine import machine
from .process import Worker
from .quality import measure_quality
from .report import ArmReport, BenchmarkReport, Turn, baseline_of, summarize
from .texts import STSB, benchmark_texts
from .variants import EXPORTS, KINDS, RANDOM_WEIGHTS, check_choice, labels, prepare_arms

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np

    from ..datasets.sts import STSTask
    from .report import Quality
    from .texts import BenchmarkText
    from .variants import Arm

BATCH_SIZE = 32
"""Sentences in a batch of a SentenceTransformer, its own default."""

BATCH_TOKENS = 1024
"""Tokens in a batch of an EdgeEncoder, its own default: what stands for a batch of 32 there."""

_BATCHES = {"edge": (256, 512, 1024, 2048, 4096), "other": (8, 16, 32, 64, 128)}
_SETTLE_SECONDS = 0.05
_SEED = 0


def benchmark_models(
    models: Sequence[str | os.PathLike[str]],
    *,
    exports: Sequence[str] = (),
    arms: Sequence[str] = KINDS,
    tasks: Sequence[STSTask] = (),
    text: str | os.PathLike[str] | None = None,
    sentences: int = 512,
    passages: int = 128,
    pairs: int | None = None,
    repeats: int = 3,
    starts: int = 3,
    threads: int | None = None,
    progress: Callable[[str], Any] = lambda step: None,
) -> BenchmarkReport:
    """Measure what models cost and what they are worth.

    Every arm (a model in one way of running it) is a process of its own, which sleeps while others have their turn: all
    arms do repeat 1, then all repeat 2, and so on, so that a change of the machine's speed meets all of them. Before
    each timing an arm encodes a tenth of the text untimed. All arms are in memory at once.

    Args:
        models: Folders of models, plain, exported or packed; ``distilface-mini`` and ``distilface-micro``;
            ``bundled``; Hub names. Of ``bert-base-uncased`` and ``distilbert-base-uncased``, where they cannot be had,
            a model of the same size with random weights is measured, for its cost only.
        exports: What to make of each plain model in a temporary folder: ``onnx`` or ``openvino`` with ``-fp32``,
            ``-fp16``, ``-int8`` or ``-int8-static``.
        arms: Which arms to run: ``torch`` (the fp32 baseline), ``torch-bf16``, ``st`` (an export as a
            SentenceTransformer) and ``edge`` (an export in an EdgeEncoder).
        tasks: STS sets to score, once an arm; STS-B's test split, where it is among them, is also timed.
        text: Sentences to time, see :func:`distilface_st.datasets.sentences.load_sentences`; by default what Python's
            own modules say of themselves.
        sentences: The most sentences of a text.
        passages: Passages of 200 words.
        pairs: The most pairs of STS-B that are encoded sentence by sentence, as in the paper's Table 2; ``None`` for
            all.
        repeats: Timings of each figure.
        starts: Processes started for each arm, to time loading.
        threads: Processor threads; by default each runtime's own choice.
        progress: Called with what is being done.

    Returns:
        Every timing, its median, least and most, and its ratio to the same model's ``torch`` arm.

    Raises:
        InputError: An option, a model or a text that cannot be used; an arm whose process ended.
        MissingExtraError: An export needs packages that are not installed.

    Example:
        ::

            report = benchmark_models(["run/model"], exports=["onnx-int8"], tasks=[load_sts("STS-B", "data/sts")])
            report.arms[0].figures["one_by_one"].median  # milliseconds a sentence
    """
    began = time.perf_counter()
    names = [str(model) for model in models]
    labels(names)
    check_choice("export", exports, EXPORTS)
    check_choice("arm", arms, KINDS)
    counts = {"sentences": sentences, "passages": passages, "pairs": pairs, "repeats": repeats, "starts": starts}
    for name, count in {**counts, "threads": threads}.items():
        if count is not None and count < 1:
            raise InputError(f"{name} is {count}: it must be at least 1.")
    progress("reading the text")
    texts = benchmark_texts(tasks, text, sentences, passages, pairs)
    with tempfile.TemporaryDirectory(prefix="distilface-benchmark-") as folder:
        scratch = Path(folder)
        prepared = prepare_arms(names, exports, arms, texts["sentences"].sentences, scratch, progress)
        progress("measuring the machine")
        with Worker("The machine's peak", {"kind": "peak", "threads": threads}, scratch) as worker:
            peaks = worker.opened
        with ExitStack() as stack:
            run = _Run(prepared, texts, threads, scratch, stack, progress)
            run.start(starts)
            run.batch_32(repeats)
            memory = {arm.id: worker.ask("memory")["bytes"] for arm, worker in run.at_work()}
            run.best_batch(repeats)
            quality = measure_quality(run.at_work(), run.embeddings, tasks, progress)
    return BenchmarkReport(
        arms=tuple(_arm_report(arm, run, memory[arm.id], peaks, quality[arm.id]) for arm in prepared),
        turns=tuple(run.turns),
        texts={text.name: text.describe() for text in texts.values()},
        repeats=repeats,
        starts=starts,
        threads=threads,
        machine=machine(),
        peaks=peaks,
        notes=tuple(_notes(prepared, tasks)),
        seconds=round(time.perf_counter() - began, 3),
        versions=versions(),
        command=command(),
        seed=_SEED,
        data_fingerprint=text_fingerprint(task.fingerprint for task in tasks) if tasks else None,
    )


class _Run:
    """The arms' processes, and every timing taken of them."""

    def __init__(
        self,
        arms: Sequence[Arm],
        texts: dict[str, BenchmarkText],
        threads: int | None,
        scratch: Path,
        stack: ExitStack,
        progress: Callable[[str], Any],
    ) -> None:
        self.arms, self.texts, self.threads = arms, texts, threads
        self.scratch, self.stack, self.progress = scratch, stack, progress
        self.workers: dict[str, Worker] = {}
        self.embeddings: dict[str, np.ndarray] = {}
        self.turns: list[Turn] = []

    def at_work(self) -> list[tuple[Arm, Worker]]:
        """Every arm with its process."""
        return [(arm, self.workers[arm.id]) for arm in self.arms]

    def start(self, starts: int) -> None:
        """Start every arm ``starts`` times; the processes of the last round stay, and embed ``sentences`` once."""
        for number in range(1, starts + 1):
            for arm in self.arms:
                self.progress(f"start {number} of {starts}: {arm.id}")
                worker = self._open(arm)
                self._note(arm, "load", number, worker.opened["load"], 1)
                self._note(arm, "cold_start", number, worker.opened["cold_start"], 1)
                if number < starts:
                    worker.close()
                else:
                    self.workers[arm.id] = self.stack.enter_context(worker)
        texts = {text.name: text.sentences for text in self.texts.values()}
        for arm, worker in self.at_work():
            self.progress(f"first batches: {arm.id}")
            worker.ask("texts", texts=texts)
            self.embeddings[arm.id] = worker.embed(text="sentences")

    def batch_32(self, repeats: int) -> None:
        """Time one call a sentence, and every text at the default batch."""
        batched = [name for name in self.texts if name != "one_by_one"]
        for repeat in range(1, repeats + 1):
            self._time_all("one_by_one", "one_by_one", repeat, {})
            for name in batched:
                self._time_all(name, f"{name}_batch32", repeat, {arm.id: _default_batch(arm) for arm in self.arms})

    def best_batch(self, repeats: int) -> None:
        """Find each arm's best batch on half of each text, once, and time all of it at that batch."""
        batched = [name for name in self.texts if name != "one_by_one"]
        best = {name: {arm.id: self._best_batch(arm, name) for arm in self.arms} for name in batched}
        for repeat in range(1, repeats + 1):
            for name in batched:
                self._time_all(name, f"{name}_best", repeat, best[name])

    def _open(self, arm: Arm) -> Worker:
        spec = {"kind": arm.kind, "folder": str(arm.folder), "runtime": arm.runtime, "threads": self.threads}
        return Worker(arm.id, spec, self.scratch, _default_batch(arm))

    def _time_all(self, text: str, figure: str, repeat: int, batches: dict[str, int]) -> None:
        for arm in self.arms:
            self.progress(f"repeat {repeat}, {figure}: {arm.id}")
            batch = batches.get(arm.id)
            found = self._time(arm, text, batch)
            self._note(arm, figure, repeat, found["seconds"], found["sentences"], batch)

    def _time(self, arm: Arm, text: str, batch: int | None, step: int = 1) -> dict[str, Any]:
        time.sleep(_SETTLE_SECONDS)  # engines' threads spin for a while after their last call
        return self.workers[arm.id].ask("time", text=text, batch=batch, step=step)

    def _best_batch(self, arm: Arm, text: str) -> int:
        self.progress(f"best batch, {text}: {arm.id}")
        sizes = _BATCHES.get(arm.kind, _BATCHES["other"])
        seconds = {size: self._time(arm, text, size, step=2)["seconds"] for size in sizes}
        return min(seconds, key=seconds.__getitem__)

    def _note(
        self, arm: Arm, figure: str, repeat: int, seconds: float, sentences: int, batch: int | None = None
    ) -> None:
        order = len(self.turns) + 1
        self.turns.append(Turn(order, arm.model, arm.name, figure, repeat, seconds, sentences, batch))


def _default_batch(arm: Arm) -> int:
    return BATCH_TOKENS if arm.kind == "edge" else BATCH_SIZE


def _arm_report(arm: Arm, run: _Run, memory: int | None, peaks: dict[str, Any], quality: Quality) -> ArmReport:
    baseline = baseline_of(arm, run.arms)
    figures = summarize(run.turns, arm, baseline)
    timed = figures["sentences_batch32"]
    gflops = arm.flops * timed.median / timed.sentences / 1e9 if arm.flops is not None else None
    computes_in = run.workers[arm.id].opened["computes_in"]
    peak = peaks[computes_in]["gflops"]
    return ArmReport(
        model=arm.model,
        arm=arm.name,
        kind=arm.kind,
        runtime=arm.runtime or "torch",
        precision=arm.precision,
        computes_in=computes_in,
        baseline=baseline.id if baseline else None,
        weights=RANDOM_WEIGHTS if arm.random_weights else "trained",
        fingerprint=arm.fingerprint,
        parameters=arm.parameters,
        bytes_on_disk=arm.bytes_on_disk,
        peak_memory_bytes=memory,
        figures=figures,
        gflops=gflops,
        share_of_peak=gflops / peak if gflops is not None and peak else None,
        quality=quality,
    )


def _notes(arms: Sequence[Arm], tasks: Sequence[STSTask]) -> Iterator[str]:
    if not any(task.label == STSB for task in tasks):
        yield f"Without {STSB} there is no timing on it; one sentence at a time is timed on the text."
    if not tasks:
        yield "Without STS sets nothing is scored."
    for model in dict.fromkeys(arm.model for arm in arms if arm.random_weights):
        yield f"{model} could not be had: its weights are random and say what it costs, not what it is worth."
    for model in dict.fromkeys(arm.model for arm in arms if baseline_of(arm, arms) is None):
        yield f"{model} has no torch arm here: no ratios and no cosines."

"""What a benchmark compares and reports: variants, every timing, and their medians, ratios and quality."""

from __future__ import annotations

import os
import platform
import warnings
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

SECONDS, MILLISECONDS, RATE = "s", "ms/sentence", "sentences/s"

UNITS = {"load": SECONDS, "cold_start": SECONDS, "one_by_one": MILLISECONDS}
"""Units of the figures that are no rates."""


@dataclass(frozen=True)
class Variant:
    """One model, run one way.

    Args:
        model: What the model is called.
        variant: ``torch``, ``torch-bf16``, or an export and what opens it: ``onnx-int8/st``, ``onnx-int8/edge``; of a
            packed model, ``packed/st`` and ``packed/edge``.
        kind: ``torch``, ``torch-bf16``, ``st`` (a SentenceTransformer) or ``edge`` (an EdgeEncoder).
        folder: Where it lies.
        runtime: ``torch``, ``onnxruntime`` or ``openvino``.
        precision: ``fp32``, ``bf16``, ``fp16`` or ``int8``.
        fingerprint: Of the torch model's weights.
        parameters: Of the torch model.
        bytes_on_disk: The files it needs: the model's folder, without the graph of another runtime.
    """

    model: str
    variant: str
    kind: str
    folder: Path
    runtime: str
    precision: str
    fingerprint: str
    parameters: int
    bytes_on_disk: int

    @property
    def id(self) -> str:
        """Model and variant: ``bundled torch``."""
        return f"{self.model} {self.variant}"


@dataclass(frozen=True)
class Timing:
    """One timing of one variant.

    Args:
        order: Its place among all timings of the run, from 1.
        model: The variant's model.
        variant: The variant's name.
        figure: ``load``, ``cold_start``, ``one_by_one``, or a text with its batch: ``sentences_batch32``,
            ``sentences_best``.
        repeat: From 1.
        seconds: How long it took.
        sentences: How many were encoded.
        batch: Sentences, or for an ``edge`` variant tokens, in a batch; ``None`` for one call a sentence.
    """

    order: int
    model: str
    variant: str
    figure: str
    repeat: int
    seconds: float
    sentences: int = 1
    batch: int | None = None

    @property
    def unit(self) -> str:
        """``s``, ``ms/sentence`` or ``sentences/s``."""
        return UNITS.get(self.figure, RATE)

    @property
    def value(self) -> float:
        """The timing in its figure's unit."""
        if self.unit == SECONDS:
            return self.seconds
        return 1000 * self.seconds / self.sentences if self.unit == MILLISECONDS else self.sentences / self.seconds


@dataclass(frozen=True)
class Figure:
    """What the repeats of one figure of a variant amount to.

    Args:
        unit: ``s``, ``ms/sentence`` or ``sentences/s``.
        median: Of all repeats.
        min: The least.
        max: The most.
        values: Each repeat's value, in order.
        seconds: Each repeat's seconds, in order.
        sentences: Encoded in one repeat.
        batch: As in :class:`Timing`.
        speed_ratio: How many times as fast as the model's ``torch`` variant, by medians; ``None`` without that one.
    """

    unit: str
    median: float
    min: float
    max: float
    values: tuple[float, ...]
    seconds: tuple[float, ...]
    sentences: int
    batch: int | None
    speed_ratio: float | None = None


@dataclass(frozen=True)
class Quality:
    """What a variant's embeddings are worth.

    Args:
        mean_cosine: Between its embeddings of the text ``sentences`` and those of the model's ``torch`` variant.
        min_cosine: The lowest of these.
        scores: Spearman x 100 of each STS set; empty without sets.
        average: Mean over all sets scored.
        average5: The paper's average, ``None`` where one of its five sets is not scored.
        average6: The same with STS16.
        loss: How far the average (``average5`` where there is one, else ``average``) lies below that of ``torch``.
    """

    mean_cosine: float | None = None
    min_cosine: float | None = None
    scores: dict[str, float] | None = None
    average: float | None = None
    average5: float | None = None
    average6: float | None = None
    loss: float | None = None

    @property
    def score(self) -> float | None:
        """``average5`` where there is one, else ``average``."""
        return self.average if self.average5 is None else self.average5


@dataclass(frozen=True)
class VariantReport(Variant):
    """A variant and all that was measured of it.

    Args:
        computes_in: What most of its products are computed in: ``fp32``, ``bf16`` or ``int8``.
        baseline: The ``torch`` variant of the same weights that it is compared with, ``None`` without one.
        peak_memory_bytes: Most resident memory of the process up to the end of the timings at batch 1 and 32.
        figures: The timings, by figure, in the order in which they were taken.
        quality: What the embeddings are worth.
    """

    computes_in: str
    baseline: str | None
    peak_memory_bytes: int | None
    figures: dict[str, Figure]
    quality: Quality


@dataclass(frozen=True)
class BenchmarkReport:
    """A benchmark; ``to_dict`` of it is what ``distilface benchmark --json`` writes.

    Args:
        variants: What was measured of each variant; those that failed are left out, and ``notes`` say why.
        timings: Every timing, in the order in which they were taken.
        texts: What each text is, by name.
        repeats: Timings of each figure.
        starts: Processes started for each variant.
        threads: Processor threads asked for; ``None`` leaves it to each runtime.
        machine: The machine, see :func:`machine`.
        notes: What the reader should know of this run.
        seconds: How long all took.
        versions: Package versions.
        command: The command line.
        seed: ``None``: nothing here is random.
        data_fingerprint: Hash of the scored pairs; ``None`` without any.
    """

    variants: tuple[VariantReport, ...]
    timings: tuple[Timing, ...]
    texts: dict[str, dict[str, Any]]
    repeats: int
    starts: int
    threads: int | None
    machine: dict[str, Any]
    notes: tuple[str, ...]
    seconds: float
    versions: dict[str, str]
    command: str
    seed: int | None
    data_fingerprint: str | None

    @property
    def arms(self) -> tuple[VariantReport, ...]:
        """The former name of ``variants``."""
        warnings.warn("arms is now called variants: the next release drops the name.", DeprecationWarning, stacklevel=2)
        return self.variants

    def to_dict(self) -> dict[str, Any]:
        """As plain dictionaries, for JSON."""
        content = asdict(self)
        for variant in content["variants"]:
            del variant["folder"]  # an export made for this run is gone by now
        return content

    def rows(self) -> list[dict[str, Any]]:
        """Every timing as a row of the CSV: its fields, ``value`` and ``unit``."""
        return [{**asdict(timing), "value": timing.value, "unit": timing.unit} for timing in self.timings]


def baseline_of(variant: Variant, variants: Sequence[Variant]) -> Variant | None:
    """The variant that runs the same weights in torch, in fp32."""
    return next((one for one in variants if one.kind == "torch" and one.fingerprint == variant.fingerprint), None)


def summarize(timings: Sequence[Timing], variant: Variant, baseline: Variant | None) -> dict[str, Figure]:
    """The figures of one variant, compared with another's; by name, in the order in which they were taken."""
    compared = _figures(timings, baseline) if baseline else {}
    found = _figures(timings, variant)
    for name in found.keys() & compared.keys():
        own, other = found[name].median, compared[name].median
        found[name] = replace(found[name], speed_ratio=own / other if found[name].unit == RATE else other / own)
    return found


def _figures(timings: Sequence[Timing], variant: Variant) -> dict[str, Figure]:
    own = [timing for timing in timings if (timing.model, timing.variant) == (variant.model, variant.variant)]
    found = {}
    for name in dict.fromkeys(timing.figure for timing in own):
        repeats = [timing for timing in own if timing.figure == name]
        values = tuple(timing.value for timing in repeats)
        found[name] = Figure(
            unit=repeats[0].unit,
            median=median(values),
            min=min(values),
            max=max(values),
            values=values,
            seconds=tuple(timing.seconds for timing in repeats),
            sentences=repeats[0].sentences,
            batch=repeats[0].batch,
        )
    return found


def machine() -> dict[str, Any]:
    """``processor``, ``cores`` (that this process may use), ``memory_bytes`` (``None`` where unknown), ``system``."""
    usable = getattr(os, "sched_getaffinity", None)
    memory = None
    with suppress(AttributeError, ValueError, OSError):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    processor = platform.processor() or platform.machine()
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next(line for line in lines if line.startswith("model name")).split(":", 1)[1].strip()
    return {
        "processor": processor,
        "cores": len(usable(0)) if usable else os.cpu_count(),
        "memory_bytes": memory,
        "system": f"{platform.system()} {platform.machine()}",
    }

"""What a benchmark compares and reports: variants, every timing, and their medians, ratios and quality."""

from __future__ import annotations

import os
import platform
import warnings
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

_RATE = "sentences/s"
_UNITS = {"load": "s", "cold_start": "s", "one_by_one": "ms/sentence"}
"""Units of the figures that are no rates."""


@dataclass(frozen=True)
class Variant:
    """One model, run one way.

    Args:
        variant: ``torch``, ``torch-bf16``, or an export and what opens it: ``onnx-int8/st``, ``onnx-int8/edge``; of a
            packed model, ``packed/st`` and ``packed/edge``.
        kind: ``torch``, ``torch-bf16``, ``st`` (a SentenceTransformer) or ``edge`` (an EdgeEncoder).
        runtime: ``torch``, ``onnxruntime`` or ``openvino``.
        precision: ``fp32``, ``bf16``, ``fp16`` or ``int8``.
        fingerprint: Of the torch model's weights.
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
        figure: ``load``, ``cold_start``, ``one_by_one``, or a text with its batch: ``sentences_batch32``,
            ``sentences_best``.
        repeat: From 1.
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
        return _UNITS.get(self.figure, _RATE)

    @property
    def value(self) -> float:
        """The timing in its figure's unit."""
        if self.unit == _RATE:
            return self.sentences / self.seconds
        return self.seconds if self.unit == "s" else 1000 * self.seconds / self.sentences


@dataclass(frozen=True)
class Figure:
    """What the repeats of one figure of a variant amount to; ``unit``, ``sentences`` and ``batch`` as in a timing.

    Args:
        values: Each repeat's value, in order; ``seconds``, likewise.
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
        baseline: The id of the ``torch`` variant of the same weights, which it is compared with.
        peak_memory_bytes: Most resident memory of the process up to the end of the timings at batch 1 and 32.
        figures: The timings, by figure, in the order in which they were taken.
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
        texts: What :meth:`BenchmarkText.describe` says of each text, by name.
        repeats: Timings of each figure.
        starts: Processes started for each variant.
        threads: Processor threads asked for; ``None`` leaves it to each runtime.
        machine: What :func:`machine` says.
        notes: What the reader should know of this run.
        seconds: How long all took.
        versions: Of packages.
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


def summarize(timings: Sequence[Timing], variant: Variant, baseline: Variant | None) -> dict[str, Figure]:
    """The figures of one variant, compared with another's; by name, in the order in which they were taken."""
    own, compared = (
        [timing for timing in timings if one and (timing.model, timing.variant) == (one.model, one.variant)]
        for one in (variant, baseline)
    )
    found = {}
    for name in dict.fromkeys(timing.figure for timing in own):
        repeats = [timing for timing in own if timing.figure == name]
        values = tuple(timing.value for timing in repeats)
        unit, middle, ratio = repeats[0].unit, median(values), None
        if others := [timing.value for timing in compared if timing.figure == name]:
            ratio = middle / median(others) if unit == _RATE else median(others) / middle
        found[name] = Figure(
            unit=unit,
            median=middle,
            min=min(values),
            max=max(values),
            values=values,
            seconds=tuple(timing.seconds for timing in repeats),
            sentences=repeats[0].sentences,
            batch=repeats[0].batch,
            speed_ratio=ratio,
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

"""What a benchmark reports: every timing, and their medians, ratios and shares of the machine's peak."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .variants import Arm

SECONDS, MILLISECONDS, RATE = "s", "ms/sentence", "sentences/s"

UNITS = {"load": SECONDS, "cold_start": SECONDS, "one_by_one": MILLISECONDS}
"""Units of the figures that are no rates."""


@dataclass(frozen=True)
class Turn:
    """One timing of one arm.

    Args:
        order: Its place among all timings of the run, from 1.
        model: The arm's model.
        arm: The arm's name.
        figure: ``load``, ``cold_start``, ``one_by_one``, or a text with its batch: ``sentences_batch32``,
            ``sentences_best``.
        repeat: From 1.
        seconds: How long it took.
        sentences: How many were encoded.
        batch: Sentences, or for an ``edge`` arm tokens, in a batch; ``None`` for one call a sentence.
    """

    order: int
    model: str
    arm: str
    figure: str
    repeat: int
    seconds: float
    sentences: int
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

    def to_row(self) -> dict[str, Any]:
        """As a row of the CSV: all fields, ``value`` and ``unit``."""
        return {**asdict(self), "value": self.value, "unit": self.unit}


@dataclass(frozen=True)
class Figure:
    """What one arm's repeats of one figure amount to.

    Args:
        unit: ``s``, ``ms/sentence`` or ``sentences/s``.
        median: Of all repeats.
        min: The least.
        max: The most.
        values: Each repeat's value, in order.
        seconds: Each repeat's seconds, in order.
        sentences: Encoded in one repeat.
        batch: See :class:`Turn`.
        speed_ratio: How many times as fast as the model's ``torch`` arm, by medians; ``None`` without that arm.
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
    """What an arm's embeddings are worth.

    Args:
        mean_cosine: Between its embeddings of the text ``sentences`` and those of the model's ``torch`` arm.
        min_cosine: The lowest of these.
        scores: Spearman x 100 of each STS set; empty without sets and for random weights.
        average: Mean over all sets scored.
        average5: The paper's average, ``None`` where one of its five sets is not scored.
        average6: The same with STS16.
        loss: How much the average (the first there is of ``average5`` and ``average``) lies below the ``torch`` arm's.
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
class ArmReport:
    """All that was measured of one arm.

    Args:
        model: What the model is called.
        arm: The arm's name: ``torch``, ``onnx-int8/edge``, ...
        kind: ``torch``, ``torch-bf16``, ``st`` or ``edge``.
        runtime: ``torch``, ``onnxruntime`` or ``openvino``.
        precision: ``fp32``, ``bf16``, ``fp16`` or ``int8``.
        computes_in: What most of its products are computed in: ``fp32``, ``bf16`` or ``int8``.
        baseline: The ``torch`` arm of the same weights that it is compared with, ``None`` without one.
        weights: ``trained``, or ``random weights: cost only``.
        fingerprint: Of the torch model's weights.
        parameters: Of the torch model.
        bytes_on_disk: The model's folder, without the graph of another runtime.
        peak_memory_bytes: Most resident memory of the process up to the end of the timings at batch 1 and 32.
        figures: The timings, by figure.
        gflops: 10^9 operations a second at ``sentences_batch32``, padding not counted as work.
        share_of_peak: ``gflops`` as a share of the machine's measured peak in ``computes_in``.
        quality: What the embeddings are worth.
    """

    model: str
    arm: str
    kind: str
    runtime: str
    precision: str
    computes_in: str
    baseline: str | None
    weights: str
    fingerprint: str
    parameters: int
    bytes_on_disk: int
    peak_memory_bytes: int | None
    figures: dict[str, Figure]
    gflops: float | None
    share_of_peak: float | None
    quality: Quality

    @property
    def id(self) -> str:
        """Model and arm: ``bundled torch``."""
        return f"{self.model} {self.arm}"


@dataclass(frozen=True)
class BenchmarkReport:
    """A benchmark; ``to_dict`` of it is what ``distilface benchmark --json`` writes.

    Args:
        arms: What was measured of each arm.
        turns: Every timing, in the order in which they were taken.
        texts: What each text is, by name.
        repeats: Timings of each figure.
        starts: Processes started for each arm.
        threads: Processor threads asked for; ``None`` leaves it to each runtime.
        machine: The machine.
        peaks: The most it computes a second, by precision, and how that was measured.
        notes: What the reader should know of this run.
        seconds: How long all took.
        versions: Package versions.
        command: The command line.
        seed: Of random weights.
        data_fingerprint: Hash of the scored pairs; ``None`` without any.
    """

    arms: tuple[ArmReport, ...]
    turns: tuple[Turn, ...]
    texts: dict[str, dict[str, Any]]
    repeats: int
    starts: int
    threads: int | None
    machine: dict[str, Any]
    peaks: dict[str, Any]
    notes: tuple[str, ...]
    seconds: float
    versions: dict[str, str]
    command: str
    seed: int
    data_fingerprint: str | None

    def to_dict(self) -> dict[str, Any]:
        """As plain dictionaries, for JSON."""
        return asdict(self)

    def rows(self) -> list[dict[str, Any]]:
        """Every timing as a row of the CSV."""
        return [turn.to_row() for turn in self.turns]


def baseline_of(arm: Arm, arms: Sequence[Arm]) -> Arm | None:
    """The arm that runs the same weights in torch, in fp32."""
    return next((other for other in arms if other.kind == "torch" and other.fingerprint == arm.fingerprint), None)


def summarize(turns: Sequence[Turn], arm: Arm, baseline: Arm | None) -> dict[str, Figure]:
    """The figures of one arm, compared with another's.

    Args:
        turns: All timings.
        arm: Whose figures.
        baseline: The arm to compare with.

    Returns:
        By name, in the order in which they were measured.
    """
    compared = _figures(turns, baseline) if baseline else {}
    found = {}
    for name, figure in _figures(turns, arm).items():
        ratio = None
        if name in compared:
            mine, other = figure.median, compared[name].median
            ratio = mine / other if figure.unit == RATE else other / mine
        found[name] = replace(figure, speed_ratio=ratio)
    return found


def _figures(turns: Sequence[Turn], arm: Arm) -> dict[str, Figure]:
    mine: dict[str, list[Turn]] = {}
    for turn in turns:
        if (turn.model, turn.arm) == (arm.model, arm.name):
            mine.setdefault(turn.figure, []).append(turn)
    return {name: _figure(group) for name, group in mine.items()}


def _figure(turns: Sequence[Turn]) -> Figure:
    values = tuple(turn.value for turn in turns)
    return Figure(
        unit=turns[0].unit,
        median=median(values),
        min=min(values),
        max=max(values),
        values=values,
        seconds=tuple(turn.seconds for turn in turns),
        sentences=turns[0].sentences,
        batch=turns[0].batch,
    )

"""The settings of a distillation run."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InputError
from ..training.config import RunSettings


@dataclass(frozen=True)
class DistillationConfig(RunSettings):
    """Everything that decides a distillation run but student, teachers and data.

    The objectives and their sources are those of :class:`distilface_st.losses.DistillationLoss`; temperatures
    are their authors', and some of the other values were compared on STS-B dev, see ``results/distilface-mini``.

    Attributes:
        regression: Weight of the objective; 0 leaves it out. The next three likewise.
        contrastive: In-batch negatives against teacher embeddings.
        relational: The matrix of similarities, mean squared difference.
        ranking: The matrix of similarities, row by row as distributions.
        temperature: Of ``contrastive``.
        student_temperature: Of ``ranking``.
        teacher_temperature: Of ``ranking``.
        teacher_weights: Of several teachers; alike by default.
        widths: Smaller embedding sizes that must do alone (Matryoshka).
        topical: Whether a batch holds sentences that the first teacher finds alike.
        dropout: Probability in every dropout of the student. None by default: the teacher has the answer for every
            sentence, so there is little to overfit to.

    The others are those of :class:`distilface_st.training.config.RunSettings`.

    Raises:
        InputError: A value that no run could use.

    Example:
        >>> DistillationConfig(steps=100, ranking=1.0).batch_size
        128
    """

    regression: float = 1.0
    contrastive: float = 1.0
    relational: float = 1.0
    ranking: float = 0.0
    temperature: float = 0.05
    student_temperature: float = 0.05
    teacher_temperature: float = 0.025
    teacher_weights: tuple[float, ...] | None = None
    widths: tuple[int, ...] = ()
    topical: bool = True
    steps: int = 2000
    batch_size: int = 128
    learning_rate: float = 3e-4
    warmup_steps: int = 100
    max_length: int = 64
    dropout: float | None = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        objectives = (self.regression, self.contrastive, self.relational, self.ranking)
        if min(objectives) < 0 or not any(objectives):
            raise InputError("The objectives' weights must not be below 0, and one of them must be above.")
        for name in ("temperature", "student_temperature", "teacher_temperature"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}: it must be above 0.")
        if any(width < 1 for width in self.widths):
            raise InputError(f"widths are {self.widths}: each must be at least 1.")
        if self.teacher_weights is not None and (not self.teacher_weights or min(self.teacher_weights) <= 0):
            raise InputError(f"teacher_weights are {self.teacher_weights}: each must be above 0.")

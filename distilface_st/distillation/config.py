"""The settings of a distillation run."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InputError
from ..training.config import OLD_NAMES, RunSettings
from ..utils.deprecation import renamed
from ..utils.settings import setting

OBJECTIVES = (
    *("regression", "contrastive", "relational", "ranking", "temperature", "student_temperature"),
    *("teacher_temperature", "teacher_weights", "matryoshka_dims"),
)
"""The settings that a :class:`distilface_st.losses.DistillationLoss` takes."""


@renamed(**OLD_NAMES, widths="matryoshka_dims")
@dataclass(frozen=True)
class DistillationConfig(RunSettings):
    """Everything that decides a distillation run but student, teachers and data.

    The objectives and their sources are those of :class:`distilface_st.losses.DistillationLoss`; temperatures
    are their authors', and some of the other values were compared on STS-B dev, see ``results/distilface-mini``.

    Attributes:
        regression: Weight of the teacher's embedding itself; 0 leaves the objective out, also of the next three.
        contrastive: Weight of in-batch negatives against teacher embeddings.
        relational: Weight of the mean squared difference of the matrices of similarities.
        ranking: Weight of the similarities' ranking, row by row as distributions.
        temperature: Temperature of the contrastive objective.
        student_temperature: The student's temperature in the ranking objective.
        teacher_temperature: The teachers' temperature in the ranking objective.
        teacher_weights: Weight of each of several teachers; by default all count alike.
        matryoshka_dims: Smaller embedding sizes that must do alone (Matryoshka).
        topical: Whether a batch holds sentences that the first teacher finds alike.
        dropout: Probability in every dropout of the student. None is needed by default: the teacher has the answer for
            every sentence, so there is little to overfit to.

    The others are those of :class:`distilface_st.training.config.RunSettings`.

    Raises:
        InputError: A value that no run could use.

    Example:
        >>> DistillationConfig(max_steps=100, ranking=1.0).batch_size
        128
    """

    regression: float = setting(1.0, minimum=0)
    contrastive: float = setting(1.0, minimum=0)
    relational: float = setting(1.0, minimum=0)
    ranking: float = setting(0.0, minimum=0)
    temperature: float = setting(0.05, above=0)
    student_temperature: float = setting(0.05, above=0)
    teacher_temperature: float = setting(0.025, above=0)
    teacher_weights: tuple[float, ...] | None = None
    matryoshka_dims: tuple[int, ...] = ()
    topical: bool = True
    max_steps: int = setting(2000, minimum=1)
    batch_size: int = setting(128, minimum=2)
    learning_rate: float = setting(3e-4, above=0)
    warmup_steps: int = setting(100, minimum=0)
    max_length: int = setting(64, minimum=3)
    dropout: float | None = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not any((self.regression, self.contrastive, self.relational, self.ranking)):
            raise InputError("The weights of all objectives are 0: one of them must be above.")
        if any(dims < 1 for dims in self.matryoshka_dims):
            raise InputError(f"matryoshka_dims are {self.matryoshka_dims}: each must be at least 1.")
        if self.teacher_weights is not None and (not self.teacher_weights or min(self.teacher_weights) <= 0):
            raise InputError(f"teacher_weights are {self.teacher_weights}: each must be above 0.")

"""A loss that draws a student's embeddings to its teachers': regression, contrast, relations, in several sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sentence_transformers import SentenceTransformer

_FITTED_ON = 2048
"""Sentences that the projections are fitted on before the first step."""


class DistillationLoss(nn.Module):
    """A weighted sum of objectives between student and teachers, all on embeddings of length 1.

    Objectives, for a batch of student embeddings s and teacher embeddings t, b rows each:

    - ``regression``: mean of ``1 - cos(P s_i, t_i)``: the teacher's embedding itself (Reimers and Gurevych, 2020, who
      take the squared distance; on vectors of length 1 that is twice this).
    - ``contrastive``: in-batch negatives with a temperature, ``P s_i`` against all ``t_j`` with ``t_i`` as the positive
      (the loss of SimCSE, Gao et al., 2021; with teacher embeddings as keys as in SEED, Fang et al., 2021).
    - ``relational``: mean squared difference of the similarities ``cos(s_i, s_j)`` and ``cos(t_i, t_j)``, times
      ``RELATIONAL_SCALE`` (relational knowledge distillation, Park et al., 2019, with cosines for distances).
    - ``ranking``: Kullback-Leibler divergence of each row's softmax over similarities, each side with a temperature
      (ranking distillation as ListNet in RankCSE, Liu et al., 2023).

    P is a linear projection, one for each teacher, owned by the loss and thrown away with it. Relations are compared
    with the weighted mean of the teachers' similarities, which are those of their embeddings laid side by side. With
    ``matryoshka_dims`` every objective is also asked of the first dimensions alone (Matryoshka, Kusupati et al., 2022).

    The data has the column ``sentence``, and as label the sentence's row in the teachers' embeddings.

    Args:
        model: The student.
        teachers: Embeddings of each teacher, shape (rows, d of the teacher), of length 1; memory-mapped arrays are read
            a batch at a time.
        regression: Weight of the objective; 0 leaves it out.
        contrastive: Likewise.
        relational: Likewise.
        ranking: Likewise.
        temperature: Of ``contrastive``. SimCSE: 0.05.
        student_temperature: Of ``ranking``. RankCSE: 0.05.
        teacher_temperature: Of ``ranking``, half the student's as in RankCSE.
        teacher_weights: Weight of each teacher; alike by default.
        matryoshka_dims: Further embedding sizes that must do alone, each smaller than the model's.

    Raises:
        ValueError: No teacher, teachers of different lengths, a weight or temperature that cannot be, or an
            embedding size that does not fit.

    Example:
        ::

            loss = DistillationLoss(student, [teacher_embeddings(teacher, data)], relational=1.0)
            trainer = SentenceTransformerTrainer(model=student, train_dataset=rows, loss=loss)
    """

    RELATIONAL_SCALE = 20.0
    """Brings the relational objective, a mean of small squares, to the size of the others."""

    def __init__(
        self,
        model: SentenceTransformer,
        teachers: Sequence[np.ndarray],
        regression: float = 1.0,
        contrastive: float = 1.0,
        relational: float = 1.0,
        ranking: float = 0.0,
        temperature: float = 0.05,
        student_temperature: float = 0.05,
        teacher_temperature: float = 0.025,
        teacher_weights: Sequence[float] | None = None,
        matryoshka_dims: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.model = model
        self.teachers = list(teachers)
        self.teacher_weights = [float(weight) for weight in teacher_weights or [1.0] * len(teachers)]
        self.objectives = {
            "regression": regression,
            "contrastive": contrastive,
            "relational": relational,
            "ranking": ranking,
        }
        self.temperatures = {
            "temperature": temperature,
            "student_temperature": student_temperature,
            "teacher_temperature": teacher_temperature,
        }
        dimension = model.get_embedding_dimension() or 0
        self.matryoshka_dims = (*matryoshka_dims, dimension)
        if not teachers or len({len(teacher) for teacher in teachers}) != 1:
            raise ValueError("Give the embeddings of at least one teacher, and as many rows of each.")
        if len(self.teacher_weights) != len(teachers) or min(self.teacher_weights) <= 0:
            found = f"teacher_weights are {self.teacher_weights}"
            raise ValueError(f"{found}: give one above 0 for each of the {len(teachers)} teachers.")
        if min(self.objectives.values()) < 0 or not any(self.objectives.values()):
            raise ValueError(f"The objectives' weights are {self.objectives}: none below 0, and at least one above.")
        if min(self.temperatures.values()) <= 0:
            raise ValueError(f"temperatures are {list(self.temperatures.values())}: they must be above 0.")
        if not all(0 < dim < dimension for dim in matryoshka_dims) or len(set(matryoshka_dims)) < len(matryoshka_dims):
            raise ValueError(
                f"matryoshka_dims are {list(matryoshka_dims)}: each must be smaller than the model's {dimension}, "
                "and none be there twice."
            )
        # One list, first by dimension and then by teacher: its order is that of the weights in checkpoints.
        self.projections = nn.ModuleList(
            nn.Linear(dim, teacher.shape[1], bias=False) for dim in self.matryoshka_dims for teacher in teachers
        ).to(model.device)
        self._statistics: list[Tensor] = []

    @torch.no_grad()
    def fit_projections(self, sentences: Sequence[str]) -> None:
        """Begin with the projections that are best for the student as it is, by ridge regression.

        Args:
            sentences: Those of all rows of the teachers' embeddings, of which some are taken. It takes more of them
                than the student has dimensions.
        """
        rows = np.linspace(0, len(sentences) - 1, min(_FITTED_ON, len(sentences))).astype(int)
        chosen = [sentences[row] for row in rows.tolist()]
        embeddings = self.model.encode(chosen, normalize_embeddings=True, convert_to_tensor=True).double()
        for dim, projections in self._projections():
            student = F.normalize(embeddings[:, :dim], dim=1)
            gram = student.T @ student
            gram += 1e-3 * len(student) / dim * torch.eye(dim, device=student.device, dtype=student.dtype)
            for teacher, projection in zip(self.teachers, projections, strict=True):
                target = torch.from_numpy(teacher[rows]).to(student)
                projection.weight.copy_(torch.linalg.solve(gram, student.T @ target).T)

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        """The loss, a scalar, of one dict of tokenized features and labels of shape (batch,)."""
        assert labels is not None
        (features,) = sentence_features
        embeddings = self.model(features)["sentence_embedding"]
        rows = labels.cpu().numpy()
        targets = [torch.from_numpy(teacher[rows]).to(embeddings.device) for teacher in self.teachers]
        return self.compute_loss_from_embeddings(embeddings, targets)

    def compute_loss_from_embeddings(self, embeddings: Tensor, targets: Sequence[Tensor]) -> Tensor:
        """The loss from the student's embeddings, shape (batch, d), and each teacher's, shape (batch, its d).

        It is computed in float32, also under autocast.
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings = embeddings.float()
            normalized = [F.normalize(target.float(), dim=1) for target in targets]
            relations = _mean([target @ target.T for target in normalized], self.teacher_weights)
            losses = [
                self._loss_of(F.normalize(embeddings[:, :dim], dim=1), projections, normalized, relations)
                for dim, projections in self._projections()
            ]
        return torch.stack(losses).mean()

    def _loss_of(
        self, student: Tensor, projections: list[nn.Linear], targets: list[Tensor], relations: Tensor
    ) -> Tensor:
        """The objectives of one embedding size, with the teachers' mean similarities, shape (batch, batch)."""
        wanted, temperatures = self.objectives, self.temperatures
        loss = student.new_zeros(())
        if wanted["regression"] or wanted["contrastive"]:
            projected = [F.normalize(projection(student), dim=1) for projection in projections]
            pairs = list(zip(projected, targets, strict=True))
            cosine = _mean([(mine * target).sum(dim=1).mean() for mine, target in pairs], self.teacher_weights)
            if self.model.training:
                self._statistics.append(cosine.detach())
            loss = loss + wanted["regression"] * (1 - cosine)
            if wanted["contrastive"]:
                own = torch.arange(len(student), device=student.device)
                contrasts = [
                    F.cross_entropy(mine @ target.T / temperatures["temperature"], own) for mine, target in pairs
                ]
                loss = loss + wanted["contrastive"] * _mean(contrasts, self.teacher_weights)
        if wanted["relational"] or wanted["ranking"]:
            others = ~torch.eye(len(student), dtype=torch.bool, device=student.device)
            mine, theirs = (rows[others].view(len(student), -1) for rows in (student @ student.T, relations))
            loss = loss + wanted["relational"] * self.RELATIONAL_SCALE * F.mse_loss(mine, theirs)
            if wanted["ranking"]:
                loss = loss + wanted["ranking"] * F.kl_div(
                    F.log_softmax(mine / temperatures["student_temperature"], dim=1),
                    F.log_softmax(theirs / temperatures["teacher_temperature"], dim=1),
                    reduction="batchmean",
                    log_target=True,
                )
        return loss

    def _projections(self) -> Iterator[tuple[int, list[nn.Linear]]]:
        """Each embedding size with its projections, one for each teacher."""
        projections = cast("list[nn.Linear]", list(self.projections))
        for index, dim in enumerate(self.matryoshka_dims):
            yield dim, projections[index * len(self.teachers) :][: len(self.teachers)]

    def pop_statistics(self) -> dict[str, float]:
        """Mean ``teacher_similarity``, the cosine of projected student and teacher, since the last call."""
        if not self._statistics:
            return {}
        mean = torch.stack(self._statistics).mean().item()
        self._statistics.clear()
        return {"teacher_similarity": mean}

    def get_config_dict(self) -> dict[str, Any]:
        """The settings, as sentence-transformers lists them in a model card."""
        return {
            **self.objectives,
            **self.temperatures,
            "teacher_weights": self.teacher_weights,
            "matryoshka_dims": list(self.matryoshka_dims),
        }

    @property
    def citation(self) -> str:
        """BibTeX of the loss's source."""
        return """
@inproceedings{reimers2020making,
    title = {Making Monolingual Sentence Embeddings Multilingual using Knowledge Distillation},
    author = {Reimers, Nils and Gurevych, Iryna},
    booktitle = {Empirical Methods in Natural Language Processing (EMNLP)},
    year = {2020}
}
@inproceedings{park2019relational,
    title = {Relational Knowledge Distillation},
    author = {Park, Wonpyo and Kim, Dongju and Lu, Yan and Cho, Minsu},
    booktitle = {Computer Vision and Pattern Recognition (CVPR)},
    year = {2019}
}
"""


def _mean(values: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    total = sum(weights)
    return torch.stack([value * (weight / total) for value, weight in zip(values, weights, strict=True)]).sum(dim=0)

"""DistilFACE for sentence-transformers: small sentence encoders, trained on your own unlabelled text.

A DistilFACE model is a plain ``SentenceTransformer``. This package adds the parts it is composed of
(``MultiLayerPooling``, ``SimCSELoss``), the evaluators of the literature, and one function or command a capability.
Names are imported when first used, so ``import distilface_st`` is quick.
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .benchmark import benchmark_models
    from .datasets.pairs import load_neighbours, load_pairs
    from .datasets.sentences import load_sentences
    from .datasets.sts import STSSubset, STSTask, load_scored_pairs, load_sts
    from .datasets.text_data import TextData
    from .distillation.config import DistillationConfig
    from .distillation.student import make_student
    from .distillation.teachers import open_teacher
    from .distillation.training import distill
    from .distillation.vocabulary import trim_vocabulary
    from .edge import EdgeEncoder
    from .encoding import encode_file
    from .errors import InputError, MissingExtraError
    from .evaluation.alignment_uniformity import AlignmentUniformityEvaluator
    from .evaluation.retrieval import RetrievalEvaluator
    from .evaluation.sts import STSEvaluator, sts_suite
    from .export import export_model
    from .fitting import TrainingInterrupted, TrainingResult
    from .history import plot_history
    from .losses import DistillationLoss, SimCSELoss
    from .model import build_model, load_model, portable_model, push_to_hub, save_model
    from .modules import MultiLayerPooling, OnnxEncoder
    from .offline import bundled_encoder
    from .packing import pack_model
    from .poolings import score_poolings
    from .shipped import shipped_model
    from .sweep.local import run_sweep
    from .sweep.plan import SweepPlan
    from .training import model_from_config, train
    from .training_config import TrainingConfig

_HOMES = {
    "AlignmentUniformityEvaluator": "evaluation.alignment_uniformity",
    "DistillationConfig": "distillation.config",
    "DistillationLoss": "losses",
    "EdgeEncoder": "edge",
    "InputError": "errors",
    "MissingExtraError": "errors",
    "MultiLayerPooling": "modules",
    "OnnxEncoder": "modules",
    "RetrievalEvaluator": "evaluation.retrieval",
    "STSEvaluator": "evaluation.sts",
    "STSSubset": "datasets.sts",
    "STSTask": "datasets.sts",
    "SimCSELoss": "losses",
    "SweepPlan": "sweep.plan",
    "TextData": "datasets.text_data",
    "TrainingConfig": "training_config",
    "TrainingInterrupted": "fitting",
    "TrainingResult": "fitting",
    "benchmark_models": "benchmark",
    "build_model": "model",
    "bundled_encoder": "offline",
    "distill": "distillation.training",
    "encode_file": "encoding",
    "export_model": "export",
    "load_model": "model",
    "load_neighbours": "datasets.pairs",
    "load_pairs": "datasets.pairs",
    "load_scored_pairs": "datasets.sts",
    "load_sentences": "datasets.sentences",
    "load_sts": "datasets.sts",
    "make_student": "distillation.student",
    "model_from_config": "training",
    "open_teacher": "distillation.teachers",
    "pack_model": "packing",
    "plot_history": "history",
    "portable_model": "model",
    "push_to_hub": "model",
    "run_sweep": "sweep.local",
    "save_model": "model",
    "score_poolings": "poolings",
    "shipped_model": "shipped",
    "sts_suite": "evaluation.sts",
    "train": "training",
    "trim_vocabulary": "distillation.vocabulary",
}

__all__ = [
    "AlignmentUniformityEvaluator",
    "DistillationConfig",
    "DistillationLoss",
    "EdgeEncoder",
    "InputError",
    "MissingExtraError",
    "MultiLayerPooling",
    "OnnxEncoder",
    "RetrievalEvaluator",
    "STSEvaluator",
    "STSSubset",
    "STSTask",
    "SimCSELoss",
    "SweepPlan",
    "TextData",
    "TrainingConfig",
    "TrainingInterrupted",
    "TrainingResult",
    "benchmark_models",
    "build_model",
    "bundled_encoder",
    "distill",
    "encode_file",
    "export_model",
    "load_model",
    "load_neighbours",
    "load_pairs",
    "load_scored_pairs",
    "load_sentences",
    "load_sts",
    "make_student",
    "model_from_config",
    "open_teacher",
    "pack_model",
    "plot_history",
    "portable_model",
    "push_to_hub",
    "run_sweep",
    "save_model",
    "score_poolings",
    "shipped_model",
    "sts_suite",
    "train",
    "trim_vocabulary",
]

__version__ = metadata.version("distilface-st")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

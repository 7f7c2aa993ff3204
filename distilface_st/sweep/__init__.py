"""Hyperparameter search around our own training function: a space in, ranked configurations and a report out.

Example:
    ::

        plan = SweepPlan(
            space=Space((Choice("layers", ("last", "last_four")), Range("temperature", 0.01, 0.1, log=True))),
            base=TrainingConfig(encoder="distilbert-base-uncased", max_steps=1000),
            data=load_sentences("sentences.txt"),
            evaluator=STSEvaluator(load_sts("STS-B", "sts", split="dev")),
            output=Path("my-sweep"),
            sampler="tpe",
            pruner="median",
        )
        best = run_sweep(plan)[0]
        print(best.configuration, best.mean, write_report(plan.output))
"""

from __future__ import annotations

from .plan import Problems, SweepPlan, checked
from .report import write_report
from .run import SweepWatcher, run_sweep, run_sweep_on_ray
from .space import Choice, Range, Space, paper_space, read_space
from .store import read_results

__all__ = [
    "Choice",
    "Problems",
    "Range",
    "Space",
    "SweepPlan",
    "SweepWatcher",
    "checked",
    "paper_space",
    "read_results",
    "read_space",
    "run_sweep",
    "run_sweep_on_ray",
    "write_report",
]

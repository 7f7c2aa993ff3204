"""Hyperparameter search around our own training function: a space and a plan in, ranked points and a report out.

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
        print(best.point, best.mean, write_report(plan.output))
"""

from __future__ import annotations

from .checks import checked
from .local import run_sweep
from .plan import SweepPlan
from .ray_runner import run_sweep_on_ray
from .report import write_report
from .results import read_results
from .space import Choice, Range, Space
from .space_file import paper_space, read_space
from .watching import SweepWatcher

__all__ = [
    "Choice",
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

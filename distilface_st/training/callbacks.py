"""What happens around the stock trainer's steps: the history, the loss's own weights, and stopping on a signal."""

from __future__ import annotations

import math
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback
from typing_extensions import override

from ..errors import InputError
from .history import as_scores

if TYPE_CHECKING:
    from types import FrameType

    from transformers import TrainerControl, TrainerState

    from ..losses import DistillationLoss, SimCSELoss
    from .history import History

_NOT_SCORES = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second", "eval_loss")
_LOSS_STATE = "loss.safetensors"


@dataclass(eq=False)
class HistoryCallback(TrainerCallback):
    """Writes the loss, similarities, learning rate, speed and scores of a run into its history."""

    history: History
    loss: SimCSELoss | DistillationLoss
    rows_per_step: int
    begun: float = 0.0
    seconds: float = 0.0

    @override
    def on_step_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self.begun = time.perf_counter()

    @override
    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self.seconds = time.perf_counter() - self.begun

    @override
    def on_log(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        logs = kwargs["logs"]
        if "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise InputError(
                f"The loss is {logs['loss']} at step {state.global_step}: training diverged. "
                "Lower the learning rate, or raise the temperature."
            )
        if not state.is_world_process_zero:
            return
        values = {"loss": float(logs["loss"]), "learning_rate": float(logs["learning_rate"])}
        values |= self.loss.pop_statistics()
        values["sentences_per_second"] = round(self.rows_per_step / self.seconds, 2)
        self.history.add(state.global_step, values)

    @override
    def on_evaluate(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        scores = {
            key.removeprefix("eval_"): value
            for key, value in kwargs["metrics"].items()
            if key.startswith("eval_") and key not in _NOT_SCORES
        }
        self.history.add(state.global_step, as_scores(scores))
        self.history.write()

    @override
    def on_save(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        # A resumed run needs the rows up to its checkpoint on disk.
        if state.is_world_process_zero:
            self.history.write()

    on_train_end = on_save


@dataclass(eq=False)
class LossCheckpoint(TrainerCallback):
    """Saves the loss's own weights (the projections of distillation) in each checkpoint, and loads them on resuming.

    The trainer trains them but saves the model's weights alone. ``checkpoint`` is the one from which the run goes on.
    """

    loss: SimCSELoss | DistillationLoss
    checkpoint: Path | None

    @override
    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        own = self._own_weights()
        if not own or self.checkpoint is None:
            return
        path = self.checkpoint / _LOSS_STATE
        if not path.is_file():
            raise InputError(f"{path} is missing: the checkpoint is not whole; begin the run again.")
        saved = load_file(str(path))
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(saved[name])

    @override
    def on_save(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        own = self._own_weights()
        if own and state.is_world_process_zero:
            folder = Path(str(args.output_dir), f"checkpoint-{state.global_step}")
            save_file({name: tensor.detach().contiguous() for name, tensor in own.items()}, str(folder / _LOSS_STATE))

    def _own_weights(self) -> dict[str, torch.Tensor]:
        return {name: tensor for name, tensor in self.loss.state_dict().items() if not name.startswith("model.")}


class StopOnSignal(TrainerCallback):
    """On SIGINT or SIGTERM, finishes the step, saves a checkpoint and stops; on the second one, stops at once.

    ``stopped`` says whether a signal came. Where one runs inside another (a trial of a sweep), a signal reaches both.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopOnSignal:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    @override
    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        # The last step ends the run anyhow, with its evaluation.
        if self.stopped and state.global_step < state.max_steps:
            control.should_save = True
            control.should_training_stop = True
            control.should_evaluate = False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.stopped = True
        outer = getattr(self._before.get(number), "__self__", None)
        self._restore()
        if isinstance(outer, StopOnSignal):
            outer._on_signal(number, frame)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

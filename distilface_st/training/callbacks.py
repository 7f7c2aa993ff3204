"""What happens around the stock trainer's steps: the history, and stopping in good order on a signal."""

from __future__ import annotations

import math
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from ..errors import InputError
from .history import as_scores

if TYPE_CHECKING:
    from types import FrameType

    from transformers import TrainerControl, TrainerState, TrainingArguments

    from ..losses import DistillationLoss, SimCSELoss
    from .history import History

_NOT_SCORES = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second", "eval_loss")


class HistoryCallback(TrainerCallback):
    """Writes the loss, similarities, learning rate, speed and scores of a run into its history.

    Args:
        history: Where to.
        loss: The loss, for its similarities.
        sentences_a_step: Rows of data in one optimizer step, over all devices.
    """

    def __init__(self, history: History, loss: SimCSELoss | DistillationLoss, sentences_a_step: int) -> None:
        self._history = history
        self._loss = loss
        self._sentences_a_step = sentences_a_step
        self._begun = self._seconds = 0.0

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock."""
        self._begun = time.perf_counter()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Stop the clock."""
        self._seconds = time.perf_counter() - self._begun

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Add a row; raise InputError if training diverged."""
        if not logs or "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise InputError(
                f"The loss is {logs['loss']} at step {state.global_step}: training diverged. "
                "Lower the learning rate, or raise the temperature."
            )
        if not state.is_world_process_zero:
            return
        values = {"loss": float(logs["loss"]), "learning_rate": float(logs["learning_rate"])}
        values |= self._loss.pop_statistics()
        values["sentences_per_second"] = round(self._sentences_a_step / self._seconds, 2)
        self._history.add(state.global_step, values)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Add the scores to the step's row."""
        if not metrics or not state.is_world_process_zero:
            return
        scores = {
            key.removeprefix("eval_"): value
            for key, value in metrics.items()
            if key.startswith("eval_") and key not in _NOT_SCORES
        }
        self._history.add(state.global_step, as_scores(scores))
        self._history.write()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Have the rows up to the checkpoint on disk before it counts."""
        if state.is_world_process_zero:
            self._history.write()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write what is left."""
        if state.is_world_process_zero:
            self._history.write()


class StopOnSignal(TrainerCallback):
    """On SIGINT or SIGTERM, finishes the step, saves a checkpoint and stops; on the second one, stops at once.

    Of two, one within the other, both take note.

    Attributes:
        stopped: Whether a signal came.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopOnSignal:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save and stop if a signal came; the last step ends as it would anyhow."""
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

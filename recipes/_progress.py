"""Progress on a terminal; silence in a pipe."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from ._common import progress_bar

__all__ = ["TrainingProgress", "progress_bar", "quiet_libraries"]


def quiet_libraries() -> None:
    """Silence other libraries' progress bars and chatter; ours is the only one, and only on a terminal."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]


class TrainingProgress(TrainerCallback):
    """A bar over steps with the latest loss and score."""

    def __init__(self, metric: str | None) -> None:
        self._metric = metric
        self._bar = progress_bar("[dim]loss[/] {task.fields[loss]}  [dim]score[/] {task.fields[score]}")
        self._task: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Show the bar."""
        self._bar.start()
        self._task = self._bar.add_task(
            "training", total=state.max_steps, completed=state.global_step, loss="...", score="..."
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move on."""
        self._bar.update(self._task, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Show the loss."""
        if logs and "loss" in logs:
            self._bar.update(self._task, loss=f"{float(logs['loss']):.3f}")

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Show the score."""
        if self._task is not None and metrics and f"eval_{self._metric}" in metrics:
            self._bar.update(self._task, score=f"{metrics[f'eval_{self._metric}']:.4f}")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the bar away."""
        self._bar.stop()

"""Progress on a terminal; silence in a pipe."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback
from typing_extensions import override

from ._common import progress_bar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def quiet_libraries() -> None:
    """Silence other libraries' progress bars and chatter; ours is the only one, and only on a terminal."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]


@contextmanager
def embedding_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function that shows how many texts a model has embedded: its name, those done, and their number."""
    bar, tasks = progress_bar(), {}

    def show(name: str, done: int, total: int) -> None:
        if name not in tasks:
            bar.start()
            tasks[name] = bar.add_task(f"{name} embeds the text", total=total)
        bar.update(tasks[name], completed=done)
        if done >= total:
            bar.stop()  # the next bar, another model's or that of training, starts anew

    try:
        yield show
    finally:
        bar.stop()


class TrainingProgress(TrainerCallback):
    """A bar over steps with the latest loss and score."""

    def __init__(self, metric: str | None) -> None:
        self._metric = f"eval_{metric}"
        self._bar = progress_bar("[dim]loss[/] {task.fields[loss]}  [dim]score[/] {task.fields[score]}")
        self._task: Any = None

    @override
    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._bar.start()
        self._task = self._bar.add_task(
            "training", total=state.max_steps, completed=state.global_step, loss="...", score="..."
        )

    @override
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._bar.update(self._task, completed=state.global_step)

    @override
    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if "loss" in kwargs["logs"]:
            self._bar.update(self._task, loss=f"{float(kwargs['logs']['loss']):.3f}")

    @override
    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._task is not None and self._metric in kwargs["metrics"]:
            self._bar.update(self._task, score=f"{kwargs['metrics'][self._metric]:.4f}")

    @override
    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._bar.stop()

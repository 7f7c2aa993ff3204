"""One run: what it is made of, and its record ``run.json``, with which a resumed run is compared."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..models.fingerprint import model_fingerprint
from ..utils.deprecation import current_names
from ..utils.files import FolderKind, check_output, read_json, write_json
from ..utils.provenance import provenance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.evaluation import BaseEvaluator
    from transformers import TrainerCallback

    from ..datasets.text_data import TextData
    from .config import RunSettings


_OF_ADAPTATION = ("model", "plan.json", "linear_map.safetensors")
RUN_FOLDER = FolderKind("a run", "run.json", early=frozenset({"lock", "starts.json", *_OF_ADAPTATION}))
"""A run's folder; a sweep or an adaptation has put things into it before the run begins."""


def check_run_folder(output: str | os.PathLike[str], resume: bool) -> None:
    """Refuse a folder for a run that holds something else, another run or, to resume, none, before any work."""
    check_output(output, RUN_FOLDER)
    if not is_first_process():
        return  # the first may have begun already
    file = Path(output, RUN_FOLDER.mark)
    if resume and not file.exists():
        raise InputError(f"{output} holds no run to resume.")
    # A run that failed, that diverged say, may be begun anew in its folder.
    if not resume and file.exists() and read_json(file).get("status") != "failed":
        raise InputError(f"{output} holds a run already: go on with --resume, or choose another --output.")


@dataclass(frozen=True)
class TrainingRun:
    """What a run is made of, whatever its loss: the arguments of :func:`distilface_st.train`."""

    model: SentenceTransformer
    data: TextData
    config: RunSettings
    output: Path
    evaluator: BaseEvaluator | None = None
    resume: bool = False
    device: str | None = None
    callbacks: Sequence[TrainerCallback] = ()

    def begin_record(self) -> dict[str, Any]:
        """The run's record: written when it begins, read and compared when it goes on, by the first process alone."""
        record = {
            **provenance(seed=self.config.seed),
            "status": "running",
            "config": self.config.to_dict(),
            "data": {
                "source": self.data.source,
                "rows": len(self.data.dataset),
                "blank": self.data.blank,
                "duplicates": self.data.duplicates,
                "fingerprint": self.data.fingerprint,
            },
            "fingerprint_before": model_fingerprint(self.model),
        }
        check_run_folder(self.output, self.resume)
        if not is_first_process():
            return record
        file = self.output / RUN_FOLDER.mark
        if not self.resume:
            shutil.rmtree(self.output / "checkpoints", ignore_errors=True)  # of a run that failed
            write_json(file, record)
            return record
        before = read_json(file)
        try:
            _ = before["status"], before["data"]["fingerprint"], before["fingerprint_before"]
            before["config"] = current_names(before["config"], getattr(self.config, "RENAMED", {}))
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{file} is damaged: {error!r}") from error
        self._check_same(before, json.loads(json.dumps(record)))
        return before

    def _check_same(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        if before["status"] == "finished":
            raise InputError(f"The run in {self.output} is finished; there is nothing to resume.")
        other_weights = before["fingerprint_before"] != now["fingerprint_before"]
        changed = [
            f"{name} ({before['config'].get(name)} -> {value})"
            for name, value in now["config"].items()
            # The same encoder may have another name: version 0.1 wrote down the folder that a name stands for.
            if before["config"].get(name) != value and (name != "encoder" or other_weights)
        ]
        if before["data"]["fingerprint"] != now["data"]["fingerprint"]:
            changed.append("the training text")
        if not changed and other_weights:
            changed.append("the weights it began with")
        if changed:
            raise InputError(f"Cannot resume {self.output}: it was begun with other settings: {', '.join(changed)}.")


def is_first_process() -> bool:
    """Whether this process is the only one, or the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint; the trainer writes trainer_state.json last. Broken ones are removed."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True)
    for checkpoint in found:
        try:
            read_json(checkpoint / "trainer_state.json")
            return checkpoint
        except (OSError, InputError):
            if is_first_process():
                shutil.rmtree(checkpoint)
    return None

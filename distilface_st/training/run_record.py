"""A run's record, ``run.json``: everything needed to repeat the run, and what a resumed one is compared with."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..models.fingerprint import model_fingerprint
from ..utils.deprecation import current_names
from ..utils.files import write_json
from ..utils.provenance import provenance
from .config import OLD_NAMES

if TYPE_CHECKING:
    from pathlib import Path

    from sentence_transformers import SentenceTransformer

    from ..datasets.text_data import TextData


def begin_run(
    model: SentenceTransformer, data: TextData, config: dict[str, Any], seed: int, output: Path, resume: bool
) -> dict[str, Any]:
    """The run's record: written when it begins, read and compared when it goes on, by the first process alone."""
    run = {
        **provenance(seed=seed),
        "status": "running",
        "config": config,
        "data": {
            "source": data.source,
            "rows": len(data.dataset),
            "blank": data.blank,
            "duplicates": data.duplicates,
            "fingerprint": data.fingerprint,
        },
        "fingerprint_before": model_fingerprint(model),
    }
    if not is_first_process():
        return run
    file = output / "run.json"
    before = _read_run(file) if file.exists() else None
    if before and not resume:
        raise InputError(f"{output} holds a run already: go on with --resume, or choose another --output.")
    if resume and before is None:
        raise InputError(f"{output} holds no run to resume.")
    if before:
        _check_same(before, json.loads(json.dumps(run)), output)
        return before
    write_json(file, run)
    return run


def is_first_process() -> bool:
    """Whether this process is the only one, or the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def _read_run(file: Path) -> dict[str, Any]:
    try:
        run: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        _ = run["status"], run["data"]["fingerprint"], run["fingerprint_before"]
        run["config"] = current_names(run["config"], {**OLD_NAMES, "widths": "matryoshka_dims"})
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise InputError(f"{file} is damaged: {error!r}") from error
    return run


def _check_same(before: dict[str, Any], now: dict[str, Any], output: Path) -> None:
    if before["status"] == "finished":
        raise InputError(f"The run in {output} is finished; there is nothing to resume.")
    changed = [
        f"{name} ({before['config'].get(name)} -> {value})"
        for name, value in now["config"].items()
        if before["config"].get(name) != value
    ]
    if before["data"]["fingerprint"] != now["data"]["fingerprint"]:
        changed.append("the training text")
    if not changed and before["fingerprint_before"] != now["fingerprint_before"]:
        changed.append("the weights it began with")
    if changed:
        raise InputError(f"Cannot resume {output}: it was begun with other settings: {', '.join(changed)}.")


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint; the trainer writes trainer_state.json last. Broken ones are removed."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True)
    for checkpoint in found:
        try:
            json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError, UnicodeDecodeError):
            if is_first_process():
                shutil.rmtree(checkpoint)
        else:
            return checkpoint
    return None

"""What tests of several rooms need."""

from __future__ import annotations

import random
from pathlib import Path

from .conftest import COMMON_WORDS

SCORED_PAIRS = "a cat\ta dog\t4\na cat\tthe war\t1\na king\ta queen\t5\na king\ta car\t0\n"


def random_sentences(count, words=7, seed=0):
    """Different sentences of common words."""
    chance = random.Random(seed)
    return list(dict.fromkeys(" ".join(chance.choices(COMMON_WORDS, k=words)) for _ in range(count)))


def ray_workers(*words):
    """Process numbers of Ray's workers that are at work on something, by the words in what they call themselves."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue  # it has just ended
            if line.startswith("ray::") and "IDLE" not in line and any(word in line.lower() for word in words):
                found.append(int(entry.name))
    return found

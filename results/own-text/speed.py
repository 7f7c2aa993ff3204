"""Sentences a second of a training step, as ``distilface train`` makes it: forward, backward and optimizer.

    python results/own-text/speed.py results/own-text/speed.csv

A step has 32 pairs of sentences of one length, all of it tokens and none padding; models take turns, five rounds, and
the median counts.
"""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

from distilface_st import GuidedLoss, build_model

MODELS = ("distilface-micro", "distilface-mini", "bundled")
LENGTHS = (32, 128)
PAIRS, ROUNDS = 32, 5


def main(output: Path) -> None:
    models = {name: build_model(name, layers=None, device="cpu").train() for name in MODELS}
    rows = np.arange(2 * PAIRS).reshape(PAIRS, 2)
    found = []
    for length in LENGTHS:
        words = torch.randint(1_000, 10_000, (2, PAIRS, length), generator=torch.Generator().manual_seed(0))
        sides = [{"input_ids": side, "attention_mask": torch.ones_like(side)} for side in words]
        steps = {}
        for name, model in models.items():
            guide = torch.nn.functional.normalize(torch.randn(2 * PAIRS, 384), dim=1).numpy()
            loss = GuidedLoss(model, guide, rows)
            steps[name] = (loss, torch.optim.AdamW(loss.parameters(), lr=0.0))
        seconds: dict[str, list[float]] = {name: [] for name in MODELS}
        for _ in range(ROUNDS + 1):
            for name, (loss, optimizer) in steps.items():
                begun = time.perf_counter()
                loss([dict(side) for side in sides], torch.arange(PAIRS)).backward()
                optimizer.step()
                optimizer.zero_grad()
                seconds[name].append(time.perf_counter() - begun)
        base = median(seconds["bundled"][1:])
        for name in MODELS:
            step = median(seconds[name][1:])
            row = {
                "model": name,
                "length": length,
                "seconds": round(step, 3),
                "sentences/s": round(2 * PAIRS / step, 1),
            }
            found.append(row | {"times MiniLM": round(base / step, 2)})
            print(found[-1])
    with output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, found[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

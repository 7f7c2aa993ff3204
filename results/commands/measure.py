"""Seconds of ``distilface similarity`` and ``distilface encode`` from start to end, beside a bare EdgeEncoder.

    python results/commands/measure.py sentences.txt results/commands/times.csv

Takes the first 5,000 lines. Each round runs everything once, in turn, so that the machine's moods fall on all alike.
"""

from __future__ import annotations

import csv
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

ROUNDS, SENTENCES = 5, 5_000
BARE = """
import sys
import numpy as np
from distilface_st import EdgeEncoder
lines = open(sys.argv[1], encoding="utf-8").read().splitlines()
np.save(sys.argv[2], EdgeEncoder().encode(lines))
"""


def main() -> None:
    source, output = Path(sys.argv[1]), Path(sys.argv[2])
    command = str(Path(sys.executable).with_name("distilface"))
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        text = Path(scratch, "text.txt")
        with source.open(encoding="utf-8") as lines:
            text.write_text("".join(islice(lines, SENTENCES)), encoding="utf-8")
        runs = {
            "similarity": [command, "similarity", "A man is playing a guitar.", "Someone plays guitar."],
            "similarity, torch": [command, "similarity", "--runtime", "torch", "A man plays.", "Someone plays guitar."],
            "encode": [command, "encode", str(text), str(Path(scratch, "a.npy"))],
            "bare EdgeEncoder": [sys.executable, "-c", BARE, str(text), str(Path(scratch, "b.npy"))],
        }
        for round_ in range(ROUNDS):
            for name, run in runs.items():
                start = time.perf_counter()
                subprocess.run(run, check=True, capture_output=True)
                rows.append({"round": round_, "run": name, "seconds": round(time.perf_counter() - start, 3)})
    with output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["round", "run", "seconds"])
        writer.writeheader()
        writer.writerows(rows)
    for name in runs:
        seconds = [row["seconds"] for row in rows if row["run"] == name]
        print(f"{name:20} median {statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})")


if __name__ == "__main__":
    main()

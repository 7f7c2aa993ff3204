"""From a benchmark's JSON to the summary CSV beside it and the Markdown tables of the README.

distilface benchmark ... --json minilm.json
python results/efficiency/flops.py minilm.json TEXT MODEL
python results/efficiency/table.py minilm.json results/efficiency/minilm-summary.csv

The second adds the columns of GFLOP/s and may be left out.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

TEXTS = ("stsb", "sentences", "passages")


def main() -> None:
    report = json.loads(Path(sys.argv[1]).read_text())
    rows = [row(variant) for variant in report["variants"]]
    with Path(sys.argv[2]).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"{report['machine']['processor']}, {report['machine']['cores']} cores")
    if "peaks" in report:
        print("peaks in GFLOP/s: " + ", ".join(f"{name} {peak['gflops']}" for name, peak in report["peaks"].items()))
    print()
    cost = ("disk MB", "peak MB", "load s", "cold start s", "STS-B one by one s", "ms/sentence", "x torch")
    show(rows, (*cost, "average5", "loss", "mean cosine"))
    speed = [f"{text} {at}{what}" for text in TEXTS for at in ("batch32", "best") for what in ("", " x")]
    show(rows, (*speed, "GFLOP/s", "of peak"))


def row(variant: dict) -> dict:
    figures, quality = variant["figures"], variant["quality"]
    single = figures["one_by_one"]
    found = {
        "model": variant["model"],
        "variant": variant["variant"],
        "parameters": variant["parameters"],
        "disk MB": round(variant["bytes_on_disk"] / 1e6, 1),
        "peak MB": round((variant["peak_memory_bytes"] or 0) / 1e6),
        "load s": round(figures["load"]["median"], 2),
        "cold start s": round(figures["cold_start"]["median"], 2),
        "STS-B one by one s": round(single["median"] * single["sentences"] / 1000, 1),
        "ms/sentence": round(single["median"], 2),
        "x torch": rounded(single["speed_ratio"], 2),
        "average5": rounded(quality["average5"], 2),
        "loss": rounded(quality["loss"], 3),
        "mean cosine": rounded(quality["mean_cosine"], 5),
        "min cosine": rounded(quality["min_cosine"], 5),
    }
    for text in TEXTS:
        for at in ("batch32", "best"):
            if f"{text}_{at}" in figures:
                figure = figures[f"{text}_{at}"]
                found[f"{text} {at}"] = round(figure["median"], 1)
                found[f"{text} {at} x"] = rounded(figure["speed_ratio"], 2)
    if "gflops" in variant:
        found |= {"GFLOP/s": rounded(variant["gflops"], 0), "of peak": rounded(variant["share_of_peak"], 2)}
    return found


def rounded(value: float | None, digits: int) -> float | str:
    return "" if value is None else round(value, digits)


def show(rows: list[dict], columns: tuple[str, ...]) -> None:
    columns = tuple(name for name in columns if name in rows[0])
    print("| model | variant | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 2) + "|")
    for found in rows:
        print("| " + " | ".join(str(found[name]) for name in ("model", "variant", *columns)) + " |")
    print()


if __name__ == "__main__":
    main()

"""What int8 costs in quality for each pooling, engine and kind of activations, in STS scores.

    python results/efficiency/quality.py STS_DIR results/efficiency/quality.csv [last_four ...]

Exports the bundled encoder with each layer pooling and scores every graph as a SentenceTransformer (batches of 64).
Activation scales are fit to Python's own docstrings, no STS text.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from pathlib import Path

from distilface_st import build_model, export_model, load_model, load_sts, sts_suite


def main() -> None:
    sts_dir, output, *poolings = sys.argv[1:]
    dev = load_sts("STS-B", sts_dir, split="dev")
    rows = []
    for layers in poolings or ["last", "last_four"]:
        model = build_model("bundled", layers=layers, device="cpu")
        variants = [("torch", "fp32", "", model)]
        with tempfile.TemporaryDirectory() as folder:
            for activations in ("dynamic", "static"):
                path = Path(folder, activations)
                export_model(model, path, formats=["onnx", "openvino"], precision="int8", activations=activations)
                variants += [
                    (name, "int8", activations, load_model(path, runtime=name)) for name in ("onnxruntime", "openvino")
                ]
            for runtime, precision, activations, variant in variants:
                test, scored_dev = sts_suite(variant, sts_dir), sts_suite(variant, tasks=[dev])
                known = {"layers": layers, "runtime": runtime, "precision": precision, "activations": activations}
                scores = {**test["scores"], "average5": test["average5"], "average6": test["average6"]}
                scores["STS-B-dev"] = scored_dev["scores"]["STS-B-dev"]
                rows.append({**known, **{name: round(score, 3) for name, score in scores.items()}})
                print(rows[-1], flush=True)
    with Path(output).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()

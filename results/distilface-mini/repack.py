"""Writes the graphs of the shipped models anew from the same weights, and scores them.

    python results/distilface-mini/repack.py distilface_st/assets STS

For a change in how graphs are written: weights, tokenizer and card stay; ``model.onnx`` and ``export.json`` are new.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from distilface_st import EdgeEncoder, load_model, pack_model, sts_suite

WEIGHTS = "model.safetensors"


def main(assets: Path, sts: Path) -> None:
    for folder in sorted(path.parent for path in assets.glob(f"*/{WEIGHTS}")):
        with tempfile.TemporaryDirectory() as scratch:
            packed = Path(scratch, "packed")
            pack_model(load_model(folder, device="cpu"), packed, name=f"distilface-{folder.name}")
            if (packed / WEIGHTS).read_bytes() != (folder / WEIGHTS).read_bytes():
                raise SystemExit(f"{folder}: its weights are not those that packing gives now.")
            for name in ("model.onnx", "export.json"):
                shutil.copyfile(packed / name, folder / name)
        scores = sts_suite(EdgeEncoder(folder), sts)
        print(folder.name, {name: round(score, 2) for name, score in scores.items() if isinstance(score, float)})


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

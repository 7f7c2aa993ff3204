"""Writes the graphs of the shipped models anew from the same weights, and scores them.

    python results/distilface-mini/repack.py distilface_st/assets STS

For a change in how graphs are written: weights, tokenizer and card stay; ``model.onnx`` and ``export.json``
are new, and the latter keeps the checksum of the graph before.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from distilface_st import EdgeEncoder, load_model, pack_model, sts_suite
from distilface_st.inference.manifest import MANIFEST, PACKED_FILES, read_manifest

GRAPH, WEIGHTS = PACKED_FILES


def _keep_sums(old: Path, new: Path) -> None:
    """Name the old graph's checksum in the new manifest, so that indexes made with it still open."""
    manifest, former = read_manifest(new), read_manifest(old).graphs["onnxruntime"].files[GRAPH]
    entry = manifest.graphs["onnxruntime"].files[GRAPH]
    sums = [*former.get("formerly", ()), former["sha256"]]
    entry["formerly"] = [known for known in dict.fromkeys(sums) if known != entry["sha256"]]
    manifest.write(new)


def main(assets: Path, sts: Path) -> None:
    for folder in sorted(path.parent for path in assets.glob(f"*/{WEIGHTS}")):
        with tempfile.TemporaryDirectory() as scratch:
            packed = Path(scratch, "packed")
            pack_model(load_model(folder, device="cpu"), packed, name=f"distilface-{folder.name}")
            if (packed / WEIGHTS).read_bytes() != (folder / WEIGHTS).read_bytes():
                raise SystemExit(f"{folder}: its weights are not those that packing gives now.")
            _keep_sums(folder, packed)
            for name in (GRAPH, MANIFEST):
                shutil.copyfile(packed / name, folder / name)
        scores = sts_suite(EdgeEncoder(folder), sts)
        print(folder.name, {name: round(score, 2) for name, score in scores.items() if isinstance(score, float)})


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

"""Writes the graphs of the shipped models anew from the same weights, and scores them.

    python results/distilface-mini/repack.py distilface_st/assets STS

For a change in how graphs are written: weights, tokenizer and card stay; the graphs and ``export.json`` are new, and
the latter keeps the checksums of the graph before. Vocabularies stay in 8 bits: 4 would be other weights.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from distilface_st import EdgeEncoder, load_model, pack_model, sts_suite
from distilface_st.inference.manifest import MANIFEST, PACKED_FILES, WEIGHTS, read_manifest

GRAPH = PACKED_FILES["onnxruntime"][0]


def _keep_sums(old: Path, new: Path) -> None:
    """Name the old graph's checksum in the new manifest, and no other, so that indexes made with it still open."""
    manifest, former = read_manifest(new), read_manifest(old).graphs["onnxruntime"].files[GRAPH]
    entry = manifest.graphs["onnxruntime"].files[GRAPH]
    sums = [*former.get("formerly", ()), former["sha256"]]
    entry["formerly"] = [known for known in dict.fromkeys(sums) if known != entry["sha256"]]
    for added in manifest.graphs["openvino"].files.values():
        added["formerly"] = []
    manifest.made_with["command"] = "repack.py distilface_st/assets STS"
    manifest.write(new)


def main(assets: Path, sts: Path) -> None:
    for folder in sorted(path.parent for path in assets.glob(f"*/{WEIGHTS}")):
        with tempfile.TemporaryDirectory() as scratch:
            packed = Path(scratch, "packed")
            model = load_model(folder, device="cpu")
            pack_model(model, packed, runtimes=tuple(PACKED_FILES), table_bits=8, name=f"distilface-{folder.name}")
            if (packed / WEIGHTS).read_bytes() != (folder / WEIGHTS).read_bytes():
                raise SystemExit(f"{folder}: its weights are not those that packing gives now.")
            _keep_sums(folder, packed)
            for name in {MANIFEST, *(file for files in PACKED_FILES.values() for file in files)} - {WEIGHTS}:
                shutil.copyfile(packed / name, folder / name)
        for runtime in PACKED_FILES:
            scores = sts_suite(EdgeEncoder(folder, runtime), sts)
            found = {name: round(score, 2) for name, score in scores.items() if isinstance(score, float)}
            print(folder.name, runtime, found)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

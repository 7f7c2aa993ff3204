"""What a packed model costs and keeps, by the bits of its vocabulary and by runtime.

    python results/efficiency/packing.py STS DOMAINS results/efficiency/packing.csv mini micro bundled

``DOMAINS`` is what results/own-text/domains.py wrote; MRR@10 is of titles and texts in the training halves, of which
the models named have seen nothing. Rows that are there already are not measured again.
"""

from __future__ import annotations

import csv
import json
import sys
import tempfile
from pathlib import Path

from distilface_st import EdgeEncoder, RetrievalEvaluator, load_model, pack_model, sts_suite

FIELDS = ("model", "table_bits", "runtime", "bytes", "average5", "postgres", "man")
DOMAINS = FIELDS[5:]


def main(sts: Path, domains: Path, output: Path, *names: str) -> None:
    known = set()
    if output.exists():
        with output.open(newline="", encoding="utf-8") as file:
            known = {tuple(row[field] for field in FIELDS[:3]) for row in csv.DictReader(file)}
    tests = {}
    for domain in DOMAINS:
        lines = (domains / domain / "train.jsonl").read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        tests[domain] = RetrievalEvaluator([r["title"] for r in records], [r["text"] for r in records], write_csv=False)
    for name in names:
        for bits in (8, 4):
            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch, "packed")
                wanted = [each for each in ("onnxruntime", "openvino") if (name, str(bits), each) not in known]
                if not wanted:
                    continue
                manifest = pack_model(load_model(name, device="cpu"), folder, runtimes=wanted, table_bits=bits)
                rest = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
                rest -= sum(
                    {file: e["bytes"] for g in manifest.graphs.values() for file, e in g.files.items()}.values()
                )
                for runtime in wanted:
                    encoder = EdgeEncoder(folder, runtime)
                    row = {"model": name, "table_bits": bits, "runtime": runtime}
                    row["bytes"] = rest + manifest.graphs[runtime].size
                    row["average5"] = round(float(sts_suite(encoder, sts)["average5"]), 2)
                    row |= {domain: round(test.score(encoder)["mrr@10"], 4) for domain, test in tests.items()}
                    is_new = not output.exists()
                    with output.open("a", newline="", encoding="utf-8") as file:
                        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
                        if is_new:
                            writer.writeheader()
                        writer.writerow(row)
                    print(row, flush=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), *sys.argv[4:])

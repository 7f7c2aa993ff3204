"""Where the time goes: OpenVINO's own clock of each kind of node, the tokenizer, and what Python adds.

    python results/efficiency/where_time_goes.py EXPORT TEXT [--sentences 512]

EXPORT is a folder with an OpenVINO graph; TEXT holds a sentence a line. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter

from distilface_st import EdgeEncoder, load_sentences
from distilface_st.inference.engines import batch_feeds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("export")
    parser.add_argument("text")
    parser.add_argument("--sentences", type=int, default=512)
    arguments = parser.parse_args()
    sentences = list(load_sentences(arguments.text, limit=arguments.sentences).dataset["sentence"][:])
    encoder = EdgeEncoder(arguments.export, "openvino", options={"PERF_COUNT": True})
    batches = list(encoder._batches(sentences, "", None, 1024))
    feeds = [batch_feeds(*encoder._tokenizer.pad(ids), encoder.manifest, 0) for _, ids in batches]
    kinds: Counter[str] = Counter()
    for counted in (False, True):  # the first pass warms up
        for batch in feeds:
            encoder._engine.run(batch)
            if counted:
                for node in encoder._engine._local.request.profiling_info:
                    kinds[f"{node.node_type} ({node.exec_type})"] += node.real_time.total_seconds()
    inside = sum(kinds.values())
    plain = EdgeEncoder(arguments.export, "openvino")
    plain.encode(sentences)
    graph = _best(lambda: [plain._engine.run(batch) for batch in feeds])
    tokenizer = _best(lambda: plain._tokenizer.ids(sentences))
    whole = _best(lambda: plain.encode(sentences))
    print(f"{len(sentences)} sentences, {sum(len(row) for _, ids in batches for row in ids)} tokens\n")
    print("| what | ms | of the nodes' time |\n|---|---|---|")
    for kind, seconds in kinds.most_common(12):
        print(f"| {kind} | {seconds * 1e3:.1f} | {seconds / inside:.0%} |")
    print(f"| all nodes | {inside * 1e3:.1f} | 100% |")
    print(f"\nGraph {graph * 1e3:.1f} ms, tokenizer alone {tokenizer * 1e3:.1f} ms, `encode` {whole * 1e3:.1f} ms.")
    one = feeds[-1] | {name: values[:1] for name, values in feeds[-1].items() if values.ndim}
    text = sentences[batches[-1][0][0]]
    alone, through = (_best(call, 200) for call in (lambda: plain._engine.run(one), lambda: plain.encode(text)))
    print(f"One short sentence: graph {alone * 1e3:.3f} ms, `encode` {through * 1e3:.3f} ms.")


def _best(call, repeats: int = 7) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    main()

"""The text of the second stage: the rest of ``text.py``'s sentences, and passages of up to about 250 tokens.

    python results/distilface-mini/passages.py ../shared/data exports/paraphrase-l3 text.txt passages.txt

The Wikipedia data has sentences and pairs of neighbours, no paragraphs. A passage is a pair that ``text.py`` did not
use with those that a teacher finds most alike among some thousands of others: not one author's paragraph, but about one
thing, as long as one, and the teachers embed it as they find it.
"""

from __future__ import annotations

import gzip
import random
import sys
from pathlib import Path

import numpy as np
from text import NEIGHBOURS, bare, sts_sentences

from distilface_st import load_model
from distilface_st.utils.files import atomic_file

FIRST_STAGE, PASSAGES, AMONG, MOST = 397_312, 24_000, 8_000, 5
"""Lines of the first stage; passages; pairs among which to look for a passage's others; most pairs of a passage."""


def passages(data: Path, teacher: Path, rng: random.Random) -> list[str]:
    with gzip.open(data / "wiki" / "neighbours.tsv.gz", "rt", encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t")[:2] for line in file][NEIGHBOURS:]
    left_out = sts_sentences(data / "sts")
    pairs = [" ".join(row) for row in rows if not left_out & {bare(sentence) for sentence in row}]
    embeddings = np.asarray(load_model(teacher).encode(pairs, normalize_embeddings=True), dtype=np.float32)
    found = []
    for start in range(0, len(pairs) - AMONG + 1, AMONG):
        part = embeddings[start : start + AMONG]
        for seed in rng.sample(range(AMONG), PASSAGES * AMONG // (len(pairs) // AMONG * AMONG)):
            nearest = np.argsort(-(part @ part[seed]))[: rng.randint(1, MOST)]
            found.append(" ".join(pairs[start + index] for index in nearest))
    return found


def main() -> None:
    data, teacher, text, output = map(Path, sys.argv[1:5])
    rng = random.Random(2)
    made = passages(data, teacher, rng)
    lines = [*text.read_text(encoding="utf-8").splitlines()[FIRST_STAGE:], *made]
    rng.shuffle(lines)
    with atomic_file(output) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines) - len(made):,} sentences, {len(made):,} passages")


if __name__ == "__main__":
    main()

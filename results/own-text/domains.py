"""Six domains of documents with titles, each split by document: what a user would train on, and a test held out.

    python results/own-text/domains.py OUT --packages DIR --articles articles.jsonl.gz

``DIR`` holds Debian packages, fetched there with

    apt-get download manpages manpages-dev git-man postgresql-doc-15 dict-foldoc

Each domain becomes ``OUT/NAME/train.jsonl`` and ``OUT/NAME/test.jsonl``, records with ``title`` and ``text``. In the
test titles are the queries, texts the documents. A fifth of the documents is the test (at most 2,000), chosen by a hash
of the title; documents of the training half that share more than half of their 8-grams of words with the test are
dropped.
"""

from __future__ import annotations

import argparse
import ast
import gzip
import hashlib
import json
import re
import subprocess
import sysconfig
import tempfile
import warnings
from html.parser import HTMLParser
from pathlib import Path

from distilface_st.datasets.python_docs import gather_python_docs
from distilface_st.datasets.segmentation import split_sentences

LONGEST, SHORTEST, TEST = 2_000, 60, 2_000  # characters, characters, documents


def man_pages(packages: Path):
    """The summary line of NAME, and DESCRIPTION."""
    for package in ("manpages_", "manpages-dev_", "git-man_"):
        for page in sorted((unpacked(packages, package) / "usr/share/man").glob("man*/*.gz")):
            source = gzip.decompress(page.read_bytes()).decode("utf-8", "replace")
            if source.startswith(".so "):
                continue
            command = ["groff", "-man", "-Tutf8", "-P-cbou", "-rLL=10000n", "-ww"]
            plain = subprocess.run(command, input=source, capture_output=True, text=True, check=False).stdout
            sections = dict(re.findall(r"^([A-Z][A-Z ]+)\n((?:\n|[ \t].*\n)+)", plain, re.MULTILINE))
            _, _, summary = sections.get("NAME", "").strip().partition(" - ")
            yield summary, "\n".join(line.strip() for line in sections.get("DESCRIPTION", "").splitlines())


class Sections(HTMLParser):
    """Headings of a DocBook page, each with the paragraphs up to the next heading."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[list[str]] = []
        self.inside = ""

    def handle_starttag(self, tag, attrs) -> None:
        if re.fullmatch("h[1-6]", tag):
            self.inside = "heading"
            self.found.append(["", ""])
        elif tag in ("p", "dt"):
            self.inside = "text"
            self.end()
        elif tag in ("pre", "table", "script", "title"):
            self.inside = ""

    def handle_endtag(self, tag) -> None:
        if re.fullmatch("h[1-6]", tag) or tag in ("p", "dt"):
            self.inside = ""

    def handle_data(self, data) -> None:
        if self.inside and self.found:
            self.found[-1][self.inside == "text"] += data

    def end(self) -> None:
        if self.found:
            self.found[-1][1] += "\n"


def postgres(packages: Path):
    """The headings of the PostgreSQL manual, and what stands below each."""
    for page in sorted(unpacked(packages, "postgresql-doc-15_").rglob("*.html")):
        parser = Sections()
        parser.feed(page.read_text(encoding="utf-8"))
        for heading, text in parser.found:
            yield re.sub(r"^[\dA-Z]*[\d.]+\.\s*|^(Chapter|Part|Appendix)\s+\w+\.\s*", "", squeezed(heading)), text


def foldoc(packages: Path):
    """The entries of the Free On-line Dictionary of Computing: from headword to definition."""
    data = gzip.decompress((unpacked(packages, "dict-foldoc_") / "usr/share/dictd/foldoc.dict.dz").read_bytes())
    entries = re.findall(r"^(\S.*)\n((?:\S.*\n)*)\n((?:\n|[ ]{3}.*\n)+)", data.decode("utf-8", "replace"), re.MULTILINE)
    for headword, _, definition in entries:
        text = re.sub(r"\(\d{4}-\d\d-\d\d\)", "", re.sub(r"[{}]", "", definition))
        yield headword, re.sub(r"^\s*(<[^>]*>\s*)+", "", text)


def wikipedia(articles: Path):
    """The last sentence of articles' leads, and the leads without it: documents that have no titles."""
    with gzip.open(articles, "rt", encoding="utf-8") as lines:
        for line in lines:
            *paragraphs, last = json.loads(line)["text"].splitlines()
            sentences = split_sentences(last)
            yield sentences[-1], "\n".join([*paragraphs, " ".join(sentences[:-1])])


def python_docs():
    """Summaries of documented objects of the standard library and of installed packages, and what follows them."""
    docs = gather_python_docs()
    for entry in [*docs.train, *docs.test]:
        yield entry.summary, entry.body


def python_code():
    """First sentences of docstrings of the standard library's functions, and their code without the docstring."""
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        if {"site-packages", "test", "tests", "idlelib"} & set(path.parts):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                tree = ast.parse(path.read_text(encoding="utf-8"))
            except (SyntaxError, UnicodeDecodeError):
                continue
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and (doc := ast.get_docstring(node)):
                node.body = node.body[1:]
                if node.body:
                    yield re.split(r"(?<=[.!?])\s|\n\n", doc, maxsplit=1)[0], ast.unparse(node)


def unpacked(packages: Path, prefix: str) -> Path:
    """The files of a package."""
    (package,) = sorted(packages.glob(f"{prefix}*.deb"))
    folder = Path(tempfile.gettempdir(), "distilface-domains", package.stem)
    if not folder.exists():
        folder.parent.mkdir(exist_ok=True)
        subprocess.run(["dpkg-deb", "-x", str(package), str(folder)], check=True)
    return folder


def squeezed(text: str) -> str:
    return " ".join(text.split())


def grams(text: str) -> set[int]:
    words = re.findall(r"\w+", text.lower())
    return {hash(tuple(words[i : i + 8])) for i in range(max(1, len(words) - 7))}


def split(pairs, folder: Path, has_titles: bool) -> None:
    """Write the two halves of a domain; without titles, a title goes back into the text of the training half."""
    documents: dict[str, str] = {}
    seen: set[str] = set()
    for title, text in pairs:
        title = squeezed(title).rstrip(".").strip()  # noqa: PLW2901
        text = "\n".join(filter(None, map(squeezed, text.splitlines())))[:LONGEST]  # noqa: PLW2901
        if len(text) >= SHORTEST and len(title) >= 2 and title not in documents and text not in seen:
            documents[title] = text
            seen.add(text)
    order = sorted(documents, key=lambda title: hashlib.sha256(title.encode()).digest())
    test = order[: min(TEST, len(order) // 5)]
    held_out = set().union(*(grams(documents[title]) for title in test))
    train = []
    for title in order[len(test) :]:
        own = grams(documents[title])
        if len(own & held_out) <= len(own) / 2:
            train.append(title)
    folder.mkdir(parents=True, exist_ok=True)
    for name, titles in (("train", train), ("test", test)):
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for title in titles:
                record = {"title": title, "text": documents[title]}
                if name == "train" and not has_titles:
                    record = {"text": f"{documents[title]}\n{title}."}
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
    print(f"{folder.name}: {len(train):,} to train on, {len(test):,} held out")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--packages", type=Path, required=True)
    parser.add_argument("--articles", type=Path, required=True)
    given = parser.parse_args()
    domains = {
        "man": man_pages(given.packages),
        "postgres": postgres(given.packages),
        "foldoc": foldoc(given.packages),
        "wikipedia": wikipedia(given.articles),
        "python-docs": python_docs(),
        "python-code": python_code(),
    }
    for name, pairs in domains.items():
        split(pairs, given.output / name, has_titles=name != "wikipedia")


if __name__ == "__main__":
    main()

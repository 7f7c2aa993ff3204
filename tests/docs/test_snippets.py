"""The README and the pages of ``docs`` do what they say.

Python blocks of a page run in order in one namespace, as they stand but for what ``run`` replaces: tiny encoders take
the place of those from the Hub, two steps that of a thousand. Command lines go through the commands' own parsers, and
are not run. ``<!-- not run: reason -->`` before a block sets it aside.
"""

from __future__ import annotations

import json
import random
import re
import shlex
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from datasets import Dataset, DatasetDict
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

import distilface_st
from distilface_st.datasets.sts import load_sts
from distilface_st.evaluation.sts import sts_suite
from distilface_st.models.build import build_model
from distilface_st.models.load import load_model
from distilface_st.models.save import save_model
from distilface_st.recipes.app import app

from ..conftest import COMMON_WORDS

ROOT = Path(__file__).parents[2]
PAGES = {path.stem.lower(): path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")]}
API = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("docs/api/*.md"))
BLOCK = re.compile(r"(<!-- not run: .+? -->\n)?^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
KINDS = {"python", "toml", "bash", "text"}


def blocks(page: str, kind: str) -> list[str]:
    found = BLOCK.findall(PAGES[page])
    return [code for not_run, language, code in found if language == kind and not not_run]


def pages_with(kind: str) -> list[str]:
    return [page for page in PAGES if blocks(page, kind)]


def command_lines(page: str) -> list[list[str]]:
    lines = "".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    inline = re.findall(r"`(distilface [^`]+? [^`]+)`", PAGES[page])
    return [words for line in [*lines, *inline] if (words := shlex.split(line, comments=True))]


@pytest.fixture
def workplace(tmp_path, monkeypatch, tiny_model):
    """A folder with the files that pages speak of."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    random.seed(0)
    sentences = [" ".join(random.choices(COMMON_WORDS, k=7)) for _ in range(80)]
    Path("sentences.txt").write_text("\n".join(sentences), encoding="utf-8")
    scored = [f"{a}\t{b}\t{i % 6}" for i, (a, b) in enumerate(zip(sentences[:12], sentences[12:24], strict=True))]
    Path("notes").mkdir()
    notes = [" ".join(random.choices(COMMON_WORDS, k=12)) for _ in range(210)]
    Path("notes/lines.txt").write_text("\n".join(notes), encoding="utf-8")
    Path("mine.tsv").write_text("\n".join(scored), encoding="utf-8")
    records = [
        {"id": "a", "text": "It was rebuilt. The bridge collapsed in a storm.", "year": 1994},
        {"id": "b", "text": "The bridge fell into the river.", "year": 1890},
        {"id": "c", "text": "A recipe for soup.", "year": 2001},
    ]
    Path("articles.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    Path("sts/STSBenchmark").mkdir(parents=True)
    rows = [("a man ran", "the man ran", 4), ("a red car", "an old house", 1), ("she ate", "he ate fish", 2)]
    lines = [f"news\tx\ty\t{i}\t{score}\t{a}\t{b}\n" for i, (a, b, score) in enumerate(rows)]
    Path("sts/STSBenchmark/sts-test.csv").write_text("".join(lines), encoding="utf-8")
    save_model(tiny_model, "run/model")


@pytest.fixture
def run(workplace, tiny_distilbert):
    """Run the Python blocks of a page, or of it those that hold a word; what they define comes back."""
    changes = {
        "distilbert-base-uncased": str(tiny_distilbert),
        "sentence-transformers/all-MiniLM-L6-v2": "teacher",
        "MultiLayerPooling(768": "MultiLayerPooling(32",
        'adapt("distilface-mini"': f'adapt("{tiny_distilbert}"',
        "minutes=15": "max_steps=2, batch_size=8, teacher='none'",
        "max_steps=1000": "max_steps=2",
        "embedding_size=128": "embedding_size=16",
        "batch_size=128": "batch_size=8",
        "batch_size=64": "batch_size=8",
    }

    def run_blocks(page: str, only: str = "", without: str = "\0") -> dict[str, Any]:
        names: dict[str, Any] = {}
        for written in blocks(page, "python"):
            code = re.sub("|".join(map(re.escape, changes)), lambda found: changes[found[0]], written)
            if only in code and without not in code:
                exec(compile(code, f"{page}.md", "exec"), names)
        return names

    return run_blocks


def test_every_block_is_of_a_kind_that_is_tested():
    for page, text in PAGES.items():
        found = BLOCK.findall(text)
        assert {language for _, language, _ in found} <= KINDS, page
        assert text.count("```") == 2 * len(found), page


def test_pages_that_are_not_named_below_have_nothing_to_run():
    named = {"readme", "index", "encode", "train", "evaluate", "poolings", "sweep", "distil", "export", "search"}
    assert set(pages_with("python")) == named | {"integrations"}


@pytest.mark.parametrize("page", ["readme", "index"])
def test_the_shipped_model(page, run, capsys):
    names = run(page)
    printed = [float(number) for number in re.findall(r"\d\.\d+", capsys.readouterr().out)]
    assert 0.7 < printed[1] < 1
    assert names["embeddings"].shape[1] == 384


def test_encode(run):
    names = run("encode")
    assert names["documents"].shape == (2, 128)
    assert np.load("vectors.npy").shape == (80, 384)


def test_train(run, tiny_distilbert):
    names = run("train")
    assert names["result"].run["scores_after"]
    opened = SentenceTransformer("my-encoder", device="cpu")
    built = build_model(tiny_distilbert, layers="last_four", device="cpu")
    sentence = "A man is eating food."
    assert opened.encode(sentence).shape == (32,)
    np.testing.assert_allclose(opened.encode(sentence), built.encode(sentence), atol=1e-5)
    names["trainer"].args.report_to = []
    names["trainer"].args.num_train_epochs = 1
    assert np.isfinite(names["trainer"].train().training_loss)


def test_evaluate(run):
    assert set(run("evaluate")["report"]["scores"]) == {"STS-B", "mine"}


def test_poolings(run):
    pytest.importorskip("matplotlib")
    names = run("poolings")
    assert names["model"].encode("a cat").shape[0] in (32, 64, 128, 192)
    assert Path("poolings.png").exists()


@pytest.mark.slow
def test_sweep(run):
    pytest.importorskip("optuna")
    assert set(run("sweep")["best"].configuration) == {"layers", "temperature"}
    assert Path("my-sweep/report.html").exists()


def test_distil(run, tiny_encoder):
    pytest.importorskip("onnxscript")
    SentenceTransformer(modules=[Transformer(str(tiny_encoder)), Pooling(32, "mean")], device="cpu").save("teacher")
    run("distil")
    assert Path("packed/model.onnx").exists()


def test_an_export_without_torch(run, exported):
    Path("light").symlink_to(exported)
    names = run("export", only='EdgeEncoder("light")')
    assert names["embeddings"].shape == (2, 32)
    np.testing.assert_allclose(load_model("light").encode("It is sunny."), names["embeddings"][0], atol=1e-2)


@pytest.mark.slow
def test_an_export_in_python(run):
    pytest.importorskip("onnxscript")
    assert run("export", only="export_model")["manifest"].precision == "int8"


def test_search(run, capsys):
    pytest.importorskip("faiss")
    run("search")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(maxsplit=2)[1:] for line in lines] == [
        ["a", "The bridge collapsed in a storm."],
        ["c", "A recipe for soup."],
    ]


def test_langchain_llama_index_and_stock_evaluators(run, capsys):
    pytest.importorskip("langchain_core")
    pytest.importorskip("llama_index.core")
    run("integrations", without="import mteb")
    printed = capsys.readouterr().out
    assert printed.count("The cat sleeps.") == 2
    assert "spearman_cosine" in printed


@pytest.mark.slow
def test_mteb_agrees_with_our_own_evaluation(tiny_encoder, data_dir, tmp_path, monkeypatch):
    pytest.importorskip("mteb")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MTEB_CACHE", str(tmp_path / "mteb"))
    task = load_sts("STS12", data_dir / "sts")
    columns = {
        "sentence1": [text for subset in task.subsets for text in subset.sentences1],
        "sentence2": [text for subset in task.subsets for text in subset.sentences2],
        "score": [float(score) for subset in task.subsets for score in subset.scores],
    }
    monkeypatch.setattr(
        "mteb.abstasks.abstask.load_dataset", lambda **_: DatasetDict({"test": Dataset.from_dict(columns)})
    )
    save_model(build_model(tiny_encoder, device="cpu"), tmp_path / "run" / "model")
    names: dict = {}
    (code,) = (code for code in blocks("integrations", "python") if "import mteb" in code)
    exec(code, names)
    (scores,) = names["result"].task_results[0].scores["test"]
    ours = sts_suite(load_model(tmp_path / "run" / "model", device="cpu"), data_dir / "sts", tasks=["STS12"])
    assert 100 * scores["cosine_spearman"] == pytest.approx(ours["scores"]["STS12"], abs=0.01)


def test_the_space_of_a_sweep(tmp_path):
    from distilface_st.sweep import Problems, read_space

    (code,) = (code for page in PAGES for code in blocks(page, "toml"))
    (tmp_path / "space.toml").write_text(code, encoding="utf-8")
    problems = Problems()
    space, base, seeds = read_space(tmp_path / "space.toml", problems)
    assert problems.found == []
    assert space.names == ("temperature", "learning_rate", "layers")
    assert (base, seeds) == ({"batch_size": 128}, (1, 2, 3))


@pytest.mark.parametrize("page", pages_with("bash"))
def test_command_lines_are_taken(page, workplace):
    commands: Any = typer.main.get_command(app).commands
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    extras = set(metadata("distilface-st").get_all("Provides-Extra") or ())
    for program, *words in command_lines(page):
        if program == "distilface":
            commands[words[0]].make_context(words[0], words[1:])
        elif program == "make":
            assert words[0] in targets
        else:
            assert program == "pip"
            assert set(",".join(re.findall(r"\[(.*?)\]", " ".join(words))).split(",")) <= {*extras, ""}


@pytest.mark.parametrize("page", PAGES)
def test_options_that_a_page_mentions_exist(page):
    commands: Any = typer.main.get_command(app).commands
    parameters = [parameter for command in commands.values() for parameter in command.params]
    options = {name for parameter in parameters for name in (*parameter.opts, *parameter.secondary_opts)}
    mentioned = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGES[page]))
    assert mentioned <= options | {"--help", "--no-deps", "--strict"}


def test_links_of_the_readme_lead_somewhere():
    for target in re.findall(r"\]\(([^)]+)\)", PAGES["readme"]):
        path, _, anchor = target.partition("#")
        if not path.startswith("http"):
            assert (ROOT / path).is_file(), target
            text = (ROOT / path).read_text(encoding="utf-8")
            headings = [heading.lower().replace(" ", "-") for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)]
            assert not anchor or anchor in headings, target


def test_the_readme_is_short_and_its_numbers_are_measured():
    assert len(PAGES["readme"].splitlines()) <= 130
    table = (ROOT / "results/distilface-mini/table.md").read_text(encoding="utf-8").splitlines()
    measured = [[cell.strip() for cell in line.split("|")] for line in table]
    row = r"^\| (?:\*\*)?([\w-]+)(?:\*\*)? \| .* \| ([\d.]+) \| ([\d.]+) \| ([\d,]+) \|$"
    rows = re.findall(row, PAGES["readme"], re.MULTILINE)
    assert len(rows) == 6
    for name, *numbers in rows:
        assert any(cells[1].startswith(name) and {*numbers} <= {*cells} for cells in measured), name


@pytest.mark.parametrize("name", distilface_st.__all__)
def test_every_public_name_is_in_the_reference(name):
    assert f"\n::: distilface_st.{name}\n" in API

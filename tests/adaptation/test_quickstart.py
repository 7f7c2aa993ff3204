from __future__ import annotations

import json
from dataclasses import replace

import pytest

from distilface_st.datasets.python_docs import DocEntry, PythonDocs
from distilface_st.errors import InputError

pytestmark = pytest.mark.usefixtures("quick_runs")

ANIMALS = ("dog", "cat", "horse", "bird", "fish", "cow", "goat", "mouse", "duck", "bear", "wolf", "frog")


@pytest.fixture(scope="module")
def library():
    from distilface_st.adaptation import quickstart

    return quickstart


@pytest.fixture
def few_docs(monkeypatch, library):
    """Some hundred entries in place of this machine's documentation."""
    verbs = ("eats", "sings", "runs", "plays")
    entries = [
        DocEntry(
            f"{module}.{animal}_{verb}_{place}",
            module,
            f"The {animal} {verb} in the {place}.",
            f"It is the {animal} of the {place} that {verb} there.",
        )
        for animal in ANIMALS
        for place in ("house", "school", "river", "city", "war", "film")
        for verb, module in zip(verbs, ("os", "shutil", "json", "csv"), strict=True)
    ]
    test = [entry for entry in entries if entry.module == "csv"]
    train = [entry for entry in entries if entry.module != "csv"]
    docs = PythonDocs(train=train, test=test, entries=entries, counts={"stdlib": len(entries)})
    monkeypatch.setattr(library, "gather_python_docs", lambda packages: docs)
    return docs


@pytest.fixture
def run(library, few_docs, tiny_encoder, tmp_path, monkeypatch):
    monkeypatch.setattr("distilface_st.adaptation.guard.LEAST_AGREEMENT", -100.0)  # a random encoder has no judgement

    def run(output=tmp_path / "out", steps=3, learning_rate=5e-3, **options):
        changes = {"max_steps": steps, "learning_rate": learning_rate, "batch_size": 8, "teacher": "none"}
        changes |= {"warmup_steps": 1, "max_length": 32, "eval_steps": steps}
        config = replace(library.CONFIG, **changes)
        return library.quickstart(output, config, encoder=tiny_encoder, device="cpu", **options)

    return run


def test_it_trains_scores_saves_and_answers(run, library, few_docs, tmp_path):
    stages = []
    result = run(steps=30, announce=stages.append)
    assert (
        set(result["before"]) == {"mrr@10", "recall@1", "recall@10", "alignment", "uniformity"} == set(result["after"])
    )
    assert result["after"]["mrr@10"] > result["before"]["mrr@10"]
    assert result["text"]["training_pairs"] == 216
    assert result["text"]["test_queries"] == 72
    assert [stage for stage in stages if stage in result["seconds_of"]] == list(result["seconds_of"])
    assert result["seconds"] == pytest.approx(sum(result["seconds_of"].values()), abs=0.1)
    assert [answer["question"] for answer in result["answers"]] == list(library.QUESTIONS)
    names = {entry.name for entry in few_docs.entries}
    assert all(
        len(answer["hits"]) == 3 and {hit["name"] for hit in answer["hits"]} <= names for answer in result["answers"]
    )
    assert json.loads((tmp_path / "out" / "quickstart.json").read_text()) == result
    assert (tmp_path / "out" / "history.csv").is_file()


def test_the_scores_are_those_of_the_saved_model(run, few_docs, tmp_path):
    from sentence_transformers import SentenceTransformer

    from distilface_st.evaluation.retrieval import RetrievalEvaluator

    after = run(learning_rate=1e-5)["after"]
    model = SentenceTransformer(str(tmp_path / "out" / "model"), device="cpu")
    test = few_docs.test
    score = RetrievalEvaluator([entry.summary for entry in test], [entry.body for entry in test]).score(model)
    assert [*score.values()] == pytest.approx([after[name] for name in ("mrr@10", "recall@1", "recall@10")], abs=1e-4)


def test_the_same_seed_gives_the_same_result(run, tmp_path):
    first, second = (run(tmp_path / name) for name in ("a", "b"))
    for part in ("before", "after", "answers", "model_fingerprints"):
        assert first[part] == second[part]


def test_an_earlier_quickstart_is_replaced_and_nothing_else_is(run, tmp_path):
    run()
    assert run(steps=2)["config"]["max_steps"] == 2
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("dear")
    with pytest.raises(InputError, match="not a quickstart's"):
        run(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter1.txt").read_text() == "dear"


def test_nothing_is_left_of_a_run_that_fails(run, library, monkeypatch, tmp_path):
    monkeypatch.setattr(library, "search", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run()
    assert list(tmp_path.iterdir()) == []


def test_search_finds_the_entry_that_a_question_repeats(library, tiny_encoder, few_docs):
    from distilface_st.models.build import build_model

    model = build_model(tiny_encoder, layers="last", device="cpu")
    wanted = few_docs.entries[17]
    (answer,) = library.search(model, [f"{wanted.name}: {wanted.summary}"], few_docs.entries)
    assert answer["hits"][0] == {"name": wanted.name, "summary": wanted.summary, "similarity": 1.0}


def test_only_public_objects_of_the_standard_library_and_topics_are_searched(library, few_docs):
    others = [DocEntry(name, name.split(".")[0], "Do it.", "") for name in ("numpy.sum", "os._exit", "topics.for")]
    docs = replace(few_docs, entries=[*few_docs.entries, *others])
    assert library._searchable(docs) == [*few_docs.entries, others[2]]


@pytest.mark.slow
def test_training_on_this_machines_documentation_helps(library, minilm, tmp_path):
    """The claim of the README, at a fraction of the default's steps."""
    config = replace(library.CONFIG, max_steps=30, eval_steps=30)
    result = library.quickstart(tmp_path / "out", config, packages=(), device="cpu")
    scores = result["adaptation"]["scores"]
    assert scores["after"]["mrr@10"] > scores["before"]["mrr@10"] + 0.015  # documents held out: 0.597 to 0.626
    assert result["after"]["mrr@10"] > result["before"]["mrr@10"] + 0.01  # modules held out: 0.342 to 0.366

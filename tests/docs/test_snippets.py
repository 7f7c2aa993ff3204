"""The README's Python runs as it stands, but for the name of the encoder, which is a tiny one of the same layout."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from sentence_transformers import SentenceTransformer

from distilface_st.datasets.sts import load_sts
from distilface_st.evaluation.sts import sts_suite
from distilface_st.models.build import build_model
from distilface_st.models.load import load_model
from distilface_st.models.save import save_model
from distilface_st.sweep import Problems, read_space

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def block(word: str) -> str:
    (found,) = (code for code in BLOCKS if word in code)
    return found


def test_the_shipped_model(capsys):
    exec(block("model = load_model()"), {})
    assert 0.7 < float(re.search(r"\d\.\d+", capsys.readouterr().out)[0]) < 1


def test_use(tiny_distilbert, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(block("save_model").replace("distilbert-base-uncased", str(tiny_distilbert)), names)
    assert names["embeddings"].shape == (3, 32)
    opened = SentenceTransformer("my-encoder", device="cpu")
    np.testing.assert_allclose(opened.encode("A man is eating food."), names["embeddings"][0], atol=1e-5)


def test_the_parts_in_a_stock_trainer(tiny_distilbert, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset = Dataset.from_dict({"sentence": ["a cat", "the war", "a king", "the house"]})
    code = block("SentenceTransformerTrainer").replace("distilbert-base-uncased", str(tiny_distilbert))
    names: dict = {"dataset": dataset}
    exec(code.replace("768", "32"), names)
    names["trainer"].args.report_to = []
    assert np.isfinite(names["trainer"].train().training_loss)


def test_an_export_without_torch(exported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "light").symlink_to(exported)
    names: dict = {}
    exec(block('EdgeEncoder("light")'), names)
    assert names["embeddings"].shape == (2, 32)
    np.testing.assert_allclose(load_model("light").encode("It is sunny."), names["embeddings"][0], atol=1e-2)


def test_search(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    records = [
        {"id": "a", "text": "It was rebuilt. The bridge collapsed in a storm.", "year": 1994},
        {"id": "b", "text": "The bridge fell into the river.", "year": 1890},
        {"id": "c", "text": "A recipe for soup.", "year": 2001},
    ]
    Path("articles.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    exec(block("index_corpus"), {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(maxsplit=2)[1:] for line in lines] == [
        ["a", "The bridge collapsed in a storm."],
        ["c", "A recipe for soup."],
    ]


def test_langchain():
    names: dict = {}
    exec(block("langchain_core"), names)
    from langchain_core.vectorstores import InMemoryVectorStore

    store = InMemoryVectorStore.from_texts(["The cat sleeps.", "Profits rose."], names["DistilfaceEmbeddings"]())
    assert store.similarity_search("a sleeping animal", k=1)[0].page_content == "The cat sleeps."


def test_llama_index():
    names: dict = {}
    exec(block("llama_index"), names)
    from llama_index.core import Document, VectorStoreIndex

    documents = [Document(text="The cat sleeps."), Document(text="Profits rose.")]
    index = VectorStoreIndex.from_documents(documents, embed_model=names["DistilfaceEmbedding"]())
    assert index.as_retriever(similarity_top_k=1).retrieve("a sleeping animal")[0].text == "The cat sleeps."


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
    exec(block("mteb"), names)
    (scores,) = names["result"].task_results[0].scores["test"]
    ours = sts_suite(load_model(tmp_path / "run" / "model", device="cpu"), data_dir / "sts", tasks=["STS12"])
    assert 100 * scores["cosine_spearman"] == pytest.approx(ours["scores"]["STS12"], abs=0.01)


def test_the_space_of_a_sweep(tmp_path):
    (code,) = re.findall(r"```toml\n(.*?)```", README, flags=re.DOTALL)
    (tmp_path / "space.toml").write_text(code, encoding="utf-8")
    problems = Problems()
    space, base, seeds = read_space(tmp_path / "space.toml", problems)
    assert problems.found == []
    assert space.names == ("temperature", "learning_rate", "layers")
    assert (base, seeds) == ({"batch_size": 128}, (1, 2, 3))

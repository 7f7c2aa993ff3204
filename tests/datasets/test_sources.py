"""A source is a file, a folder or a Hub dataset; what is none of them is refused with a reason."""

from __future__ import annotations

import datasets
import huggingface_hub.constants
import pytest

from distilface_st import InputError
from distilface_st.datasets.pairs import load_pairs
from distilface_st.datasets.sentences import load_sentences
from distilface_st.datasets.sources import _HUB_FILES, find_source

WIKI1M = "princeton-nlp/datasets-for-simcse"


def test_a_folder_is_read_by_name_without_what_is_not_known(tmp_path):
    for name, text in [("b.txt", "two\n"), ("a.csv", "text\none\n"), (".hidden.txt", "no\n"), ("README.md", "no\n")]:
        (tmp_path / name).write_text(text)
    (tmp_path / "deeper.txt").mkdir()
    (tmp_path / "deeper.txt" / "c.txt").write_text("no\n")
    data = load_sentences(tmp_path, cache_dir=tmp_path / "cache")
    assert data.dataset["sentence"][:] == ["one", "two"]
    assert data.source == tmp_path.name


def test_duplicates_are_dropped_across_files(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(f"both\nonly {name}\n")
    data = load_sentences(tmp_path, cache_dir=tmp_path / "cache")
    assert data.dataset["sentence"][:] == ["both", "only a", "only b"]
    assert (data.read, data.duplicates) == (4, 1)


def test_a_fault_in_a_folder_names_the_file(tmp_path):
    (tmp_path / "a.txt").write_text("fine\n")
    (tmp_path / "b.jsonl").write_text("wrong\n")
    with pytest.raises(InputError, match=r"b\.jsonl:1: not valid JSON"):
        load_sentences(tmp_path, cache_dir=tmp_path / "cache")


def test_a_folder_without_known_files_is_refused(tmp_path):
    (tmp_path / "a.md").write_text("text")
    with pytest.raises(InputError, match="no file in this folder can be read"):
        find_source(tmp_path)


@pytest.mark.parametrize("missing", ["missing.txt", "some/missing.jsonl.gz", "./owner/name", "/owner/name", "a/b/c"])
def test_a_missing_path_is_not_sought_on_the_hub(missing, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("distilface_st.datasets.sources.download", lambda hub_id: pytest.fail(f"sought {hub_id}"))
    with pytest.raises(InputError, match="no such file or folder"):
        find_source(missing)


def test_a_dataset_is_read_from_the_hub(monkeypatch, tmp_path):
    (tmp_path / "hub.jsonl").write_text('{"id": 1, "text": "one"}\n{"id": 2, "text": null}\n{"id": 3, "text": "two"}\n')
    on_the_hub = datasets.Dataset.from_json(str(tmp_path / "hub.jsonl"), cache_dir=str(tmp_path / "hub"))
    asked = []

    def load_dataset(path, **options):
        asked.append((path, options["split"]))
        return on_the_hub

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = load_sentences("owner/name", cache_dir=tmp_path / "cache")
    assert data.dataset["sentence"][:] == ["one", "two"]
    assert (data.read, data.blank, data.source) == (3, 1, "owner/name")
    assert asked == [("owner/name", "train")]
    with pytest.raises(InputError, match="column 'id' must hold strings"):
        load_pairs("owner/name", cache_dir=tmp_path / "cache")


def test_wiki1m_is_its_one_file_at_a_pinned_revision(monkeypatch, tmp_path):
    folder = tmp_path / "datasets--princeton-nlp--datasets-for-simcse" / "snapshots" / _HUB_FILES[WIKI1M].revision
    folder.mkdir(parents=True)
    (folder / "wiki1m_for_simcse.txt").write_text("one\ntwo\none\n")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    data = load_sentences(WIKI1M, cache_dir=tmp_path / "cache")
    assert data.dataset["sentence"][:] == ["one", "two"]
    assert (data.duplicates, data.source) == (1, WIKI1M)


@pytest.mark.parametrize("hub_id", [WIKI1M, "no-such-owner/no-such-dataset", "nosuchdataset"])
def test_what_the_hub_cannot_give_is_a_users_error(hub_id, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=f"{hub_id}: no such file or folder, and not to be had as a dataset"):
        find_source(hub_id)

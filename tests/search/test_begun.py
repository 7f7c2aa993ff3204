"""A run that was killed before there was a manifest is repeated; what is not the index's own is never touched."""

from __future__ import annotations

import pytest

from distilface_st import InputError
from distilface_st.search import IndexSettings, SearchIndex
from distilface_st.search import indexing as indexing_module
from distilface_st.search.stores.faiss import FaissStore

from .conftest import index_words, needs_milvus

MINE = ("vectors-of-mine.txt", "vectors-0.f32", "lexical", "structure-1.faiss", "ray-tracing", ".manifest.notes")


def put_mine(folder):
    """Files and a folder of the user's, named as an index's might be."""
    folder.mkdir(exist_ok=True)
    for name in MINE:
        (folder / name).write_text(name, encoding="utf-8")
    (folder / "ray-of-light").mkdir()
    (folder / "ray-of-light" / "a.txt").write_text("a", encoding="utf-8")


def mine_is_whole(folder):
    files = all((folder / name).read_text(encoding="utf-8") == name for name in MINE)
    return files and (folder / "ray-of-light" / "a.txt").read_text(encoding="utf-8") == "a"


@pytest.fixture
def die(corpus, encoder):
    """Index, and die in a function."""

    def run(folder, store, home, name):
        def killed(*_, **__):
            raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(home, name, killed)
            with pytest.raises(KeyboardInterrupt):
                index_words(corpus, folder, encoder, IndexSettings(store))

    return run


def test_a_folder_that_is_no_index_is_refused_and_nothing_is_deleted(tmp_path, corpus, encoder):
    put_mine(tmp_path / "mine")
    with pytest.raises(InputError, match="is there already and is no index: name another folder"):
        index_words(corpus, tmp_path / "mine", encoder)
    assert mine_is_whole(tmp_path / "mine")
    assert len(list((tmp_path / "mine").iterdir())) == len(MINE) + 1


@pytest.mark.parametrize(
    ("store", "home", "name"),
    [
        ("faiss", indexing_module, "write_manifest"),
        ("faiss", FaissStore, "set_position"),
        pytest.param("milvus", indexing_module, "write_manifest", marks=needs_milvus),
    ],
)
def test_a_run_killed_before_there_was_a_manifest_is_repeated(tmp_path, corpus, encoder, die, store, home, name):
    folder = tmp_path / "index"
    die(folder, store, home, name)
    (folder / ".manifest.4711.tmp.json").write_text("{", encoding="utf-8")
    assert index_words(corpus, folder, encoder, IndexSettings(store))["total"] == 5
    assert not list(folder.glob(".*"))
    with SearchIndex.open(folder, encoder) as index:
        index.verify()


def test_a_run_killed_before_it_said_with_which_store_is_repeated(tmp_path, corpus, encoder):
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / ".index-begun").touch()
    assert index_words(corpus, tmp_path / "index", encoder)["total"] == 5


def test_what_others_put_into_a_begun_index_stays(tmp_path, corpus, encoder, die):
    folder = tmp_path / "index"
    die(folder, "faiss", indexing_module, "write_manifest")
    put_mine(folder)
    settings = IndexSettings(options={"index": "hnsw"})
    assert index_words(corpus, folder, encoder, settings)["total"] == 5
    with SearchIndex.open(folder, encoder) as index:
        index.store.delete(["cats", "dogs"], index.store.position())
        index.store.finish()
        assert index.search(["shares rose"], 1)[0][0].id == "banks"
        with pytest.raises(InputError, match="lexical is not of this index: move it"):
            index.search(["shares rose"], hybrid=True)
        index.verify()
    assert mine_is_whole(folder)

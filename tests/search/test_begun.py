"""A run that was killed before there was a manifest is repeated; what is not the index's own is never touched."""

from __future__ import annotations

import shutil

import pytest

from distilface_st import InputError
from distilface_st.search import IndexSettings, SearchIndex
from distilface_st.search import indexing as indexing_module
from distilface_st.search.stores.faiss import FaissStore

from .conftest import index_words, needs_milvus, write_jsonl

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
    (folder / "lexical").rename(tmp_path / "lexical")  # as the message advises
    with SearchIndex.open(folder, encoder) as index:
        assert index.search(["shares rose"], 1, hybrid=True)[0][0].id == "banks"


@pytest.fixture(params=["faiss", pytest.param("milvus", marks=needs_milvus)])
def settings(request):
    return IndexSettings(request.param, tokens=16, overlap=4)


TWICE = [{"id": "a", "text": "A cat sleeps."}, {"id": "b", "text": "A dog."}, {"id": "b", "text": "Rain."}]
RIGHT = [*TWICE[:2], {"id": "c", "text": "Rain."}]


def found(folder, encoder, query, **options):
    with SearchIndex.open(folder, encoder) as index:
        index.verify()
        return [hit.id for hit in index.search([query], 9, **options)[0]]


def test_an_index_that_failed_at_once_leaves_nothing_behind(tmp_path, encoder, settings):
    folder = tmp_path / "index"
    for records in (TWICE, [{"id": "a", "text": "x"}, {"id": None, "text": "y"}]):
        with pytest.raises(InputError, match=r"c\.jsonl:[23]"):
            index_words(write_jsonl(tmp_path / "c.jsonl", records), folder, encoder, settings)
        assert not folder.exists()
    assert index_words(write_jsonl(tmp_path / "c.jsonl", RIGHT), folder, encoder, settings)["total"] == 3
    assert found(folder, encoder, "rain")[0] == "c"


def test_an_index_that_failed_later_is_made_anew_from_the_corrected_file(tmp_path, encoder, settings, monkeypatch):
    monkeypatch.setattr(indexing_module, "CHUNK", 2)
    folder, corpus, more = tmp_path / "index", tmp_path / "c.jsonl", tmp_path / "more.jsonl"
    write_jsonl(more, [{"id": "z", "text": "Snow."}])
    with pytest.raises(InputError, match=r"c\.jsonl:3: the index has a document 'b' already"):
        index_words(write_jsonl(corpus, TWICE), folder, encoder, settings)
    with SearchIndex.open(folder, encoder) as index:  # words of the half index must not be those of the whole one
        assert index.search(["dog"], hybrid=True)[0][0].id == "b"
    with pytest.raises(InputError, match=r"never finished \(create c.jsonl\): make it again first, without --add"):
        index_words(more, folder, encoder, mode="add")
    assert index_words(write_jsonl(corpus, RIGHT), folder, encoder, settings)["total"] == 3
    assert sorted(found(folder, encoder, "rain", hybrid=True)) == ["a", "b", "c"]
    assert index_words(more, folder, encoder, mode="add")["total"] == 4
    assert [path.name for path in folder.glob(".*")] in (
        [],
        [".lexical.lock"],
    )  # which is left for whoever waits for it


@pytest.mark.parametrize("how", ["killed", "failed"])
def test_work_that_cannot_be_gone_on_with_holds_nothing_up(tmp_path, encoder, settings, monkeypatch, how):
    def die(done):
        if done == 2 and how == "killed":
            raise KeyboardInterrupt

    folder, source = tmp_path / "index", tmp_path / "more.jsonl"
    index_words(write_jsonl(tmp_path / "c.jsonl", [{"id": "z", "text": "Snow."}]), folder, encoder, settings)
    monkeypatch.setattr(indexing_module, "CHUNK", 2)
    with pytest.raises((InputError, KeyboardInterrupt)):
        index_words(write_jsonl(source, TWICE), folder, encoder, mode="add", progress=die)
    write_jsonl(source, RIGHT)
    with pytest.raises(InputError, match=r"the index has a document 'a' already \(see --update\)"):
        index_words(source, folder, encoder, mode="add")
    assert index_words(source, folder, encoder, mode="update")["total"] == 4
    assert sorted(found(folder, encoder, "rain")) == ["a", "b", "c", "z"]


def test_what_the_messages_of_a_killed_run_advise_can_be_done(tmp_path, corpus, encoder, settings):
    def die(done):
        raise KeyboardInterrupt

    folder, other = tmp_path / "index", write_jsonl(tmp_path / "other.jsonl", RIGHT)
    with pytest.raises(KeyboardInterrupt):
        index_words(corpus, folder, encoder, settings, progress=die)
    advice = rf"unfinished work \(create corpus.jsonl\): run that again first, or delete {folder} and begin anew"
    for mode in ("create", "add"):
        with pytest.raises(InputError, match=advice):
            index_words(other, folder, encoder, settings, mode=mode)
    assert index_words(corpus, folder, encoder, settings)["total"] == 5
    shutil.rmtree(folder)
    assert index_words(other, folder, encoder, settings)["total"] == 3
    with pytest.raises(InputError, match="There is an index already: --add or --update changes it; or name another"):
        index_words(corpus, folder, encoder, settings)
    assert index_words(corpus, folder, encoder, mode="add")["total"] == 8
    assert index_words(corpus, folder, encoder, mode="update")["total"] == 8


def test_a_half_made_index_of_another_kind_is_made_anew(tmp_path, corpus, encoder):
    def die(done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index_words(corpus, tmp_path / "i", encoder, IndexSettings(options={"index": "ivf-pq"}), progress=die)
    index_words(corpus, tmp_path / "i", encoder, IndexSettings(options={"index": "hnsw"}))
    with SearchIndex.open(tmp_path / "i", encoder) as index:
        assert index.manifest["settings"] == {"index": "hnsw"}
    assert len(list((tmp_path / "i").glob("structure-*"))) == 1


@pytest.mark.slow
@needs_milvus
def test_a_collection_that_is_taken_is_left_alone_and_another_name_will_do(tmp_path, corpus, encoder, milvus_server):
    def index(name, collection):
        settings = IndexSettings("milvus", {"uri": milvus_server, "collection": collection})
        return index_words(corpus, tmp_path / name, encoder, settings)

    index("one", "taken")
    with pytest.raises(InputError, match="Milvus has a collection taken already: name another"):
        index("two", "taken")
    assert not (tmp_path / "two").exists()
    assert index("two", "free")["total"] == 5
    assert found(tmp_path / "one", encoder, "rain")[0] == "rain"

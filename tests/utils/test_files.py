from __future__ import annotations

import json

import pytest

from distilface_st.errors import InputError, MissingExtraError
from distilface_st.utils.extras import require
from distilface_st.utils.files import atomic_file, atomic_folder, read_json, write_json
from distilface_st.utils.provenance import provenance, text_fingerprint


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    with atomic_file(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"

    def fail():
        with atomic_file(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        fail()
    assert path.read_text() == "new"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "folder"
    for text in ("one", "two"):
        with atomic_folder(path) as temporary:
            (temporary / text).write_text(text)
        assert [p.name for p in path.iterdir()] == [text]

    def fail():
        with atomic_folder(path) as temporary:
            (temporary / "half").write_text("half")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        fail()
    assert [p.name for p in path.iterdir()] == ["two"]
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_json_refuses_what_json_cannot_say(tmp_path):
    path = tmp_path / "result.json"
    write_json(path, {"score": 1.5, "name": "é"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"score": 1.5, "name": "é"}
    write_json(path, {"score": 1.5, "file": "caf\udce9"})
    assert read_json(path)["file"] == "caf\udce9"
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"score": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8"))["score"] == 1.5


def test_fingerprints_tell_texts_apart():
    assert text_fingerprint(["ab", "c"]) != text_fingerprint(["a", "bc"])


def test_damaged_json_is_named(tmp_path):
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InputError, match=r"bad\.json is damaged"):
        read_json(tmp_path / "bad.json")
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(InputError, match=r"list\.json is damaged: not an object"):
        read_json(tmp_path / "list.json")


def test_a_missing_extra_names_the_pip_command():
    assert require("json", "Reading", "plots") is json
    with pytest.raises(MissingExtraError, match=r'Drawing needs .*pip install "distilface-st\[plots\]"'):
        require("no_such_library_anywhere", "Drawing", "plots")


def test_provenance_names_the_versions_that_decide_a_number():
    found = provenance(seed=3)
    assert found["seed"] == 3
    assert {"python", "torch", "sentence-transformers", "distilface-st"} <= found["versions"].keys()

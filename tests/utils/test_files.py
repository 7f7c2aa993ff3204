from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from distilface_st.errors import InputError, MissingExtraError
from distilface_st.utils.extras import require
from distilface_st.utils.files import (
    FolderKind,
    atomic_file,
    atomic_folder,
    check_output,
    only_one,
    read_json,
    write_json,
)
from distilface_st.utils.provenance import provenance, text_fingerprint

KIND = FolderKind("a thing of ours", "mark", r"mark|one|two|half", early=frozenset({"lock"}))


def write_folder(path, *names):
    with atomic_folder(path, KIND) as temporary:
        for name in ("mark", *names):
            (temporary / name).write_text(name)


def names_in(path):
    return sorted(entry.name for entry in path.iterdir())


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
    for name in ("one", "two"):
        write_folder(path, name)
        assert names_in(path) == ["mark", name]

    def fail():
        with atomic_folder(path, KIND) as temporary:
            (temporary / "half").write_text("half")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        fail()
    assert names_in(path) == ["mark", "two"]
    assert names_in(tmp_path) == ["folder"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (["thesis.tex"], "is not empty and not a thing of ours"),
        (["mark", "thesis.tex"], r"thesis\.tex in it be lost"),
        (["mark", ".git"], r"\.git in it be lost"),
        (["one", "two"], "has no mark"),
    ],
)
def test_a_folder_with_something_of_somebodys_own_is_refused_before_anything_is_written(tmp_path, content, message):
    for name in content:
        (tmp_path / name).write_text(name)
    with pytest.raises(InputError, match=message), atomic_folder(tmp_path, KIND):
        pytest.fail("the work has begun")
    assert names_in(tmp_path) == sorted(content)


def test_what_was_put_there_meanwhile_is_not_replaced(tmp_path):
    path = tmp_path / "folder"

    def write():
        with atomic_folder(path, KIND) as temporary:
            (temporary / "mark").touch()
            path.mkdir()
            (path / "thesis.tex").touch()

    with pytest.raises(InputError, match="not empty"):
        write()
    assert names_in(path) == ["thesis.tex"]
    assert names_in(tmp_path) == ["folder"]


@pytest.mark.parametrize("content", [[], ["lock"], ["mark", "one"], [".one.4711.tmp", ".one.4711.tmp.json"]])
def test_an_empty_folder_one_of_ours_and_what_a_kill_left_are_replaced(tmp_path, content):
    path = tmp_path / "folder"
    path.mkdir()
    for name in content:
        (path / name).write_text("old")
    write_folder(path, "two")
    assert names_in(path) == ["mark", "two"]


def test_no_folder_can_be_where_a_file_is(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(InputError, match="file is a file"):
            check_output(path, KIND)


@pytest.mark.parametrize("content", [[], ["mark", "one"]])
def test_the_current_folder_stays_the_same_folder(tmp_path, monkeypatch, content):
    for name in content:
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    inode = tmp_path.stat().st_ino
    write_folder(".", "two")
    assert names_in(tmp_path) == ["mark", "two"]
    assert tmp_path.stat().st_ino == Path.cwd().stat().st_ino == inode
    assert sorted(os.listdir()) == ["mark", "two"]


def test_a_folder_that_cannot_be_renamed_is_as_it_was_after_an_error(tmp_path, monkeypatch):
    write_folder(tmp_path / "volume", "one")
    monkeypatch.setattr(os.path, "ismount", lambda path: True)
    rename = Path.rename

    def failing(self, target):
        if self.name == "two":
            raise OSError("disk full")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="disk full"):
        write_folder(tmp_path / "volume", "two")
    assert names_in(tmp_path / "volume") == ["mark", "one"]


def test_links_stay_and_what_they_lead_to_is_written(tmp_path):
    for name in ("new", "old"):
        (tmp_path / f"{name}-link").symlink_to(tmp_path / name, target_is_directory=True)
    write_folder(tmp_path / "old", "one")
    for name in ("new", "old"):
        write_folder(tmp_path / f"{name}-link", "two")
        assert names_in(tmp_path / name) == ["mark", "two"]
    (tmp_path / "latest.json").symlink_to(tmp_path / "result.json")
    write_json(tmp_path / "latest.json", {"score": 1})
    assert (tmp_path / "latest.json").is_symlink()
    assert read_json(tmp_path / "result.json") == {"score": 1}
    assert not [name for name in names_in(tmp_path) if name.startswith(".")]


def test_a_device_is_written_to_and_not_replaced(tmp_path):
    os.mkfifo(pipe := tmp_path / "pipe")
    with ThreadPoolExecutor(1) as reader:
        found = reader.submit(pipe.read_text)
        write_json(pipe, {"score": 1})
        assert json.loads(found.result(10)) == {"score": 1}
    assert pipe.is_fifo()


def test_no_file_can_be_where_a_folder_is(tmp_path):
    with pytest.raises(InputError, match="is a folder: name a file"):
        write_json(tmp_path, {})


def test_many_writers_of_one_folder_or_file_leave_it_whole(tmp_path):
    together = Barrier(8, timeout=20)

    def write(number):
        for _ in range(15):
            together.wait()
            write_folder(tmp_path / "folder", "one")
            write_json(tmp_path / "file.json", {"by": number})

    with ThreadPoolExecutor(8) as writers:
        list(writers.map(write, range(8)))
    assert names_in(tmp_path) == ["file.json", "folder"]
    assert names_in(tmp_path / "folder") == ["mark", "one"]
    assert read_json(tmp_path / "file.json")["by"] in range(8)


def test_work_that_only_one_may_do_is_done_by_one_at_a_time(tmp_path):
    together, made = Barrier(4, timeout=20), []

    def make(number):
        together.wait()
        with only_one(tmp_path / "thing"):
            if not (tmp_path / "thing").exists():
                made.append(number)
                time.sleep(0.05)
                (tmp_path / "thing").touch()

    with ThreadPoolExecutor(4) as makers:
        list(makers.map(make, range(4)))
    assert len(made) == 1


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

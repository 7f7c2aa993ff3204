"""Graphs that OpenVINO compiled are kept, and nothing that is wrong with what was kept does harm."""

from __future__ import annotations

import os

import numpy as np
import pytest

from distilface_st import EdgeEncoder
from distilface_st.inference import compiled
from distilface_st.inference.engines import openvino_core

pytest.importorskip("openvino")
SENTENCES = ["A man is playing a guitar.", "It rains."]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(compiled.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def compilations(monkeypatch):
    """The devices for which something was compiled."""
    core, seen = openvino_core(), []

    class Core:
        def __getattr__(self, name):
            return getattr(core, name)

        def compile_model(self, graph, device, settings):
            seen.append(device)
            return core.compile_model(graph, device, settings)

    monkeypatch.setattr("distilface_st.inference.engines.openvino_core", Core)
    return seen


def test_a_graph_is_compiled_once(exported, cache, compilations):
    first, second = (EdgeEncoder(exported, "openvino").encode(SENTENCES) for _ in range(2))
    assert compilations == ["CPU"]
    np.testing.assert_array_equal(first, second)
    assert [path.suffix for path in cache.iterdir()] == [".compiled"]
    assert cache.stat().st_mode & 0o077 == 0


def test_other_settings_are_another_entry(exported, cache, compilations):
    for threads in (1, 2):
        EdgeEncoder(exported, "openvino", threads=threads)
    EdgeEncoder(exported, "openvino", threads=1, options={"INFERENCE_PRECISION_HINT": "f32"})
    assert len(compilations) == 3 == len(list(cache.iterdir()))


@pytest.mark.parametrize("damage", [lambda content: content[:-100], lambda content: b"", lambda content: b"x" * 1000])
def test_a_damaged_entry_is_made_anew(exported, cache, compilations, damage):
    expected = EdgeEncoder(exported, "openvino").encode(SENTENCES)
    (entry,) = cache.iterdir()
    whole = entry.read_bytes()
    entry.write_bytes(damage(whole))
    np.testing.assert_array_equal(EdgeEncoder(exported, "openvino").encode(SENTENCES), expected)
    assert len(compilations) == 2
    assert len(entry.read_bytes()) == len(whole)


def test_a_cache_that_cannot_be_written_or_is_turned_off_is_done_without(exported, cache, compilations, monkeypatch):
    cache.write_text("a file")
    EdgeEncoder(exported, "openvino")
    monkeypatch.setenv(compiled.CACHE_VARIABLE, "")
    EdgeEncoder(exported, "openvino")
    assert len(compilations) == 2
    assert cache.read_text() == "a file"


def test_a_folder_into_which_others_can_write_is_not_used(exported, cache, compilations):
    cache.mkdir()
    cache.chmod(0o777)
    EdgeEncoder(exported, "openvino")
    assert list(cache.iterdir()) == []


def test_a_folder_that_can_be_read_alone_is_used_and_large_graphs_are_not_kept(
    exported, cache, compilations, monkeypatch
):
    monkeypatch.setattr(compiled, "_LARGEST", 1000)
    EdgeEncoder(exported, "openvino")
    assert not cache.exists()
    monkeypatch.undo()
    monkeypatch.setenv(compiled.CACHE_VARIABLE, str(cache))
    EdgeEncoder(exported, "openvino")

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(compiled.os, "utime", refuse)
    monkeypatch.setattr(compiled, "_read", lambda *_: pytest.fail("compiled again"))
    EdgeEncoder(exported, "openvino")


def test_what_was_not_used_for_longest_goes(tmp_path):
    for number in range(11):
        entry = tmp_path / f"{number}.compiled"
        compiled._keep(entry, b"graph")
        os.utime(entry, (number, number))
    assert len(list(tmp_path.iterdir())) == compiled._MOST
    assert not (tmp_path / "0.compiled").exists()


def test_the_folder_is_the_users_own(monkeypatch, tmp_path):
    monkeypatch.delenv(compiled.CACHE_VARIABLE)
    monkeypatch.setattr(compiled.platform, "system", lambda: "Linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compiled.cache_folder() == tmp_path / "distilface"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert compiled.cache_folder() == compiled.Path.home() / ".cache" / "distilface"

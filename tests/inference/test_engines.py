from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from distilface_st.inference import engines
from distilface_st.inference.manifest import read_manifest


class Clock:
    """Time that passes only while a fake engine runs."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class FakeEngine:
    def __init__(self, clock: Clock, one: float, many: float) -> None:
        self.clock, self.one, self.many = clock, one, many

    def run(self, feeds):
        self.clock.now += self.one if len(feeds["input_ids"]) == 1 else self.many


@pytest.mark.parametrize(
    ("costs", "fastest"),
    [([(1, 8), (1, 9)], 0), ([(1, 9), (1, 8)], 1), ([(1, 8), (4, 4)], 0), ([(2, 8), (1, 12)], 1)],
)
def test_the_fastest_engine_counts_single_rows_and_batches_alike(exported, monkeypatch, costs, fastest):
    clock = Clock()
    monkeypatch.setattr(engines, "time", clock)
    candidates = [FakeEngine(clock, one, many) for one, many in costs]
    assert engines._fastest(candidates, read_manifest(exported)) is candidates[fastest]


@pytest.mark.parametrize(
    ("machine", "precision", "vnni", "expected"),
    [
        ("x86_64", "fp32", False, "openvino"),
        ("AMD64", "int8", True, "openvino"),
        ("x86_64", "int8", False, "onnxruntime"),
        ("arm64", "fp32", True, "onnxruntime"),
    ],
)
def test_the_default_runtime_depends_on_the_machine(exported, monkeypatch, machine, precision, vnni, expected):
    monkeypatch.setattr(engines.platform, "machine", lambda: machine)
    monkeypatch.setattr(engines, "find_spec", lambda name: object())
    monkeypatch.setattr(engines, "has_vnni", lambda: vnni)
    assert engines.default_runtime(replace(read_manifest(exported), precision=precision)) == expected


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({"device": "GPU"}, "openvino"), ({"providers": ["CUDAExecutionProvider"]}, "onnxruntime"), ({}, None)],
)
def test_settings_of_one_runtime_choose_it(exported, settings, expected):
    both = replace(read_manifest(exported), graphs=dict.fromkeys(engines.RUNTIMES, None))
    assert engines._meant_by(settings.get("providers"), settings.get("device"), both) == expected
    others = [name for name in engines.RUNTIMES if name != expected]
    without = replace(both, graphs=dict.fromkeys(others, None))
    assert engines._meant_by(settings.get("providers"), settings.get("device"), without) is None


@pytest.mark.parametrize(("flags", "expected"), [("avx2 avx512_vnni", True), ("avx2 avx_vnni", True), ("avx2", False)])
def test_vnni_is_read_from_the_flags(tmp_path, flags, expected):
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : fpu {flags}\n")
    assert engines.has_vnni(tmp_path / "cpuinfo") is expected
    assert engines.has_vnni(tmp_path / "none") is False


def test_signals_can_be_handled_after_openvino_engines_are_gone(exported):
    """A stack for signal handlers, left by a plugin that is gone, would end the process without a word."""
    program = f"""
import gc, signal
from distilface_st import EdgeEncoder
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
first = EdgeEncoder({str(exported)!r}, "openvino")
second = EdgeEncoder({str(exported)!r}, "openvino")
del first
gc.collect()
del second
gc.collect()
signal.raise_signal(signal.SIGTERM)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr

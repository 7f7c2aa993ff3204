from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib import import_module, metadata
from pathlib import Path

import pytest

import distilface_st

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "sentence_transformers", "datasets", "scipy", "numpy", "matplotlib")

LIGHT = f"""
import sys
import distilface_st
import distilface_st.recipes.app
print(",".join(name for name in {HEAVY!r} if name in sys.modules))
"""


def test_importing_the_package_and_its_commands_imports_nothing_heavy():
    result = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""


@pytest.mark.parametrize("name", distilface_st.__all__)
def test_every_public_name_is_there_and_documented(name):
    assert getattr(distilface_st, name).__doc__


def test_names_of_the_first_releases_still_work_and_warn():
    for name, home in distilface_st._MOVED.items():
        with pytest.warns(DeprecationWarning, match=f"Import {name} from distilface_st.{home}"):
            found = getattr(distilface_st, name)
        assert found is getattr(import_module(f"distilface_st.{home}"), name)
    sys.modules.pop("distilface_st.edge", None)
    with pytest.warns(DeprecationWarning, match="Import EdgeEncoder from distilface_st"):
        assert import_module("distilface_st.edge").EdgeEncoder is distilface_st.EdgeEncoder


def test_unknown_names_are_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = distilface_st.nothing
    assert set(distilface_st.__all__) <= set(dir(distilface_st))


def test_the_version_is_the_installed_one():
    assert distilface_st.__version__ == metadata.version("distilface-st")
    assert f"## [{distilface_st.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_extra_all_brings_every_extra_that_installs_together_on_a_cpu():
    tomllib = pytest.importorskip("tomllib")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    (everything,) = extras["all"]
    named = set(everything.removeprefix("distilface-st[").removesuffix("]").split(","))
    assert named == set(extras) - {"all", "docs", "test", "dev"}


def test_the_wheel_holds_the_package_its_commands_and_nothing_else(tmp_path):
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        bytes_of = {
            kind: sum(
                e.compress_size for e in archive.infolist() if e.filename.startswith(f"distilface_st/assets/{kind}/")
            )
            for kind in ("mini", "micro")
        }
        entry_points = archive.read(next(n for n in names if n.endswith("entry_points.txt"))).decode()
        description = archive.read(next(n for n in names if n.endswith("METADATA"))).decode()
    tracked = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    expected = {n for n in tracked.split() if n.startswith("distilface_st/")}
    expected |= {f"distilface_st/{n}" for n in tracked.split() if n.startswith("recipes/")}
    assert expected <= names
    assert "distilface_st/py.typed" in names
    assert {str(p.relative_to(ROOT)) for p in (ROOT / "distilface_st/assets").rglob("*") if p.is_file()} <= names
    assert 0 < bytes_of["micro"] <= 4_000_000
    assert 0 < bytes_of["mini"] <= 12_000_000
    outside = {n for n in names if not n.startswith(("distilface_st/", "distilface_st-"))}
    assert outside == set()
    assert any(n.endswith("licenses/LICENSE") for n in names)
    assert "distilface = distilface_st.recipes.app:main" in entry_points
    assert "License-Expression: Apache-2.0" in description


def test_modules_that_saved_models_name_stay_where_they_are():
    assert (
        import_module("distilface_st.modules.multi_layer_pooling").MultiLayerPooling is distilface_st.MultiLayerPooling
    )

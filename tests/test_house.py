"""The rooms of the package and the imports allowed between them, those inside functions and for types included."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "distilface_st"

EVERYWHERE = {"errors", "utils"}
ALLOWED = {
    "adaptation": {
        *("distillation", "training", "evaluation", "models", "modules", "losses", "datasets", "pretrained"),
    },
    "benchmark": {"export", "evaluation", "models", "inference", "datasets", "pretrained"},
    "serving": {"search", "models"},
    "sweep": {"training", "evaluation", "models", "modules", "losses", "datasets"},
    "distillation": {"training", "evaluation", "models", "losses", "datasets"},
    "export": {"evaluation", "models", "modules", "inference", "datasets"},
    "search": {"models", "inference", "datasets"},
    "training": {"evaluation", "models", "modules", "losses", "datasets"},
    "evaluation": {"models", "modules", "datasets"},
    "models": {"modules", "inference", "datasets", "pretrained"},
    "modules": {"inference"},
    "inference": {"pretrained"},
    "datasets": set(),
    "losses": set(),
    "pretrained": set(),
    "edge": {"inference"},
    "utils": set(),
    "errors": set(),
}
LONE = {"losses"}
"""Rooms that import nothing of ours at all."""


def room(module: str) -> str:
    """The room of a module of this package, given by its full name."""
    return module.split(".")[1] if "." in module else "__init__"


def imported_modules(file: Path, package: str) -> list[tuple[int, str]]:
    """Line and full name of every module of this package that a file of ``package`` imports."""
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{origin}.{alias.name}" for alias in node.names]
            found += [(node.lineno, name) for name in (names if origin == "distilface_st" else [origin])]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):  # import_module("distilface_st.x")
            text = node.value
            if text.startswith("distilface_st.") and text.replace(".", "").isidentifier():
                found.append((node.lineno, text))
    return [(line, name) for line, name in found if name.split(".")[0] == "distilface_st" and "." in name]


def forbidden(file: Path, package: str, own: str) -> list[str]:
    """The imports of a file that go against the arrows."""
    allowed = {own} | ALLOWED[own] | (set() if own in LONE else EVERYWHERE)
    return [
        f"{file.name}:{line}: {own} -> {room(name)}"
        for line, name in imported_modules(file, package)
        if room(name) not in allowed
    ]


FILES = sorted(file for file in PACKAGE.rglob("*.py") if file != PACKAGE / "__init__.py")


def test_rooms_import_each_other_along_the_arrows_only():
    found = []
    for file in FILES:
        parts = file.relative_to(ROOT).with_suffix("").parts
        found += forbidden(file, ".".join(parts[:-1]), parts[1])
    assert found == []


def test_the_arrows_make_no_circle():
    TopologicalSorter({name: targets - {name} for name, targets in ALLOWED.items()}).prepare()


def test_every_room_has_its_arrows_and_the_hall_stays_empty():
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir()} - {"assets", "__pycache__"}
    assert rooms | {"errors", "pretrained", "edge"} == set(ALLOWED)
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "errors.py", "pretrained.py", "edge.py"}


def test_inference_imports_no_torch():
    heavy = {"torch", "transformers", "sentence_transformers"}
    for file in (PACKAGE / "inference").glob("*.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not heavy & {name.split(".")[0] for name in names}, file


@pytest.mark.parametrize(
    "line",
    [
        "from ..recipes import app",
        "def late():\n    from ..training.config import TrainingConfig",
        "from ..export import card",
        "import distilface_st.search.index",
        "from importlib import import_module\nimport_module('distilface_st.benchmark.run')",
        "from .. import sweep",
    ],
)
def test_an_import_against_the_arrows_is_found(line, tmp_path):
    file = tmp_path / "added.py"
    file.write_text(line, encoding="utf-8")
    assert len(forbidden(file, "distilface_st.models", "models")) == 1


def test_tests_mirror_the_package():
    loose = {path.name for path in (ROOT / "tests").glob("test_*.py")}
    assert loose == {"test_package.py", "test_pretrained.py", "test_house.py"}
    rooms = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()} - {"__pycache__", "fixtures"}
    assert rooms <= {path.name for path in PACKAGE.iterdir() if path.is_dir()} | {"recipes", "docs"}

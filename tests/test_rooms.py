"""The house: which room may import which, and what each may touch."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import iir_sdk

PACKAGE = Path(iir_sdk.__file__).parent
FLOORS = (
    ("errors",),
    ("torchvision_import", "process", "files", "records"),
    ("checkpoints",),
    ("pictures", "model"),
    ("formats",),
    ("results", "weights"),
    ("supports", "demo"),
    ("engines",),
    ("segmenter",),
    ("data",),
    ("segmenting", "evaluation"),
    ("video", "training", "ray"),
    ("web",),
    ("serving",),
    ("cli",),
)
"""From the ground up: a room imports only from floors below its own."""
HEIGHT = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}


def module_of(file: Path) -> str:
    return ".".join(("iir_sdk", *file.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


def room_of(module: str) -> str:
    return module.split(".")[1]


def imports_of(tree: ast.Module) -> Iterator[str]:
    """Modules of the package that a file imports, anywhere in it, but for type checkers alone."""
    skipped = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("iir_sdk"):
            yield from ([node.module] if "." in node.module else [f"iir_sdk.{name.name}" for name in node.names])
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.startswith("iir_sdk."))


FILES = sorted(f for f in PACKAGE.rglob("*.py") if f.parent != PACKAGE or not f.stem.startswith("__"))


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_a_room_imports_from_the_floors_below_it_only(file):
    home = room_of(module_of(file))
    for module in imports_of(ast.parse(file.read_text(encoding="utf-8"))):
        room = room_of(module)
        if room != home and room in HEIGHT:
            assert HEIGHT[room] < HEIGHT[home], f"{module_of(file)} imports {module}, which lies no lower"


def test_every_room_has_its_floor_and_few_modules_lie_at_the_door():
    rooms = {f.parent.name for f in PACKAGE.glob("*/__init__.py")}
    loose = {f.stem for f in PACKAGE.glob("*.py")}
    assert rooms | loose - {"__init__", "__main__"} == set(HEIGHT)
    assert len(loose) <= 8

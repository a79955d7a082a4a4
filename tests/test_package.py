"""The package as such: lazy import, rooms that import only from rooms above them."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import iir_sdk
from iir_sdk import errors

ROOT = Path(iir_sdk.__file__).parent
FILES = sorted(p for p in ROOT.rglob("*.py"))


def modules_of(path: Path) -> set[str]:
    """Modules imported anywhere in a file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_importing_the_package_imports_no_torch():
    heavy = "('torch', 'timm', 'PIL', 'numpy')"
    code = f"import sys, iir_sdk, iir_sdk.cli.main; sys.exit(any(m in sys.modules for m in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_inference_never_imports_training():
    for path in FILES:
        if not {"training", "cli"} & set(path.relative_to(ROOT).parts):
            assert not any(m.startswith("iir_sdk.training") for m in modules_of(path)), path
    scoring = "('iir_sdk.training', 'iir_sdk.evaluation', 'iir_sdk.data')"
    code = f"import sys; from iir_sdk import FewShotSegmenter; sys.exit(any(m in sys.modules for m in {scoring}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_model_knows_no_files_no_network_and_no_pictures():
    allowed = ("iir_sdk.errors", "iir_sdk.records", "iir_sdk.model", "iir_sdk.torchvision_import")
    for path in (ROOT / "model").glob("*.py"):
        modules = modules_of(path)
        assert not {"PIL", "os", "pathlib", "io", "json", "safetensors", "huggingface_hub"} & modules, path
        assert all(m.startswith(allowed) for m in modules if m.startswith("iir_sdk")), path


def test_rooms_are_small():
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") < 400, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                # Of what is done; arguments and docstrings of public functions may be long.
                steps = node.body[1:] if ast.get_docstring(node) else node.body
                assert not steps or steps[-1].end_lineno - steps[0].lineno < 48, f"{path}: {node.name}"


def test_no_import_goes_in_a_circle():
    names = {".".join(("iir_sdk", *p.relative_to(ROOT).with_suffix("").parts)): p for p in FILES}
    names = {n.removesuffix(".__init__"): p for n, p in names.items()}
    edges = {n: modules_of(p) & set(names) - {n, "iir_sdk"} for n, p in names.items()}
    edges["iir_sdk"] = set()
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path, name))
        if name not in done:
            for other in edges[name]:
                visit(other, (*path, name))
            done.add(name)

    for name in names:
        visit(name, ())


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_public_functions_are_documented_and_annotated(path):
    if path.name == "manifest_in_wheel.py":
        pytest.importorskip("setuptools", reason="runs at build time only")
    name = ".".join(("iir_sdk", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    module = importlib.import_module(name)
    for public, value in vars(module).items():
        if public.startswith("_") or getattr(value, "__module__", None) != name:
            continue
        assert value.__doc__, f"{name}.{public}"
        if inspect.isfunction(value):
            missing = [p for p in inspect.signature(value).parameters if p not in value.__annotations__]
            assert not missing, f"{name}.{public}: {missing}"
            assert "return" in value.__annotations__, f"{name}.{public}"


def test_every_error_is_an_iir_error_and_a_built_in():
    kinds = [k for _, k in inspect.getmembers(errors, inspect.isclass) if k is not errors.IirError]
    for kind in (k for k in kinds if not issubclass(k, Warning)):
        assert issubclass(kind, errors.IirError)
        assert any(b.__module__ == "builtins" and b not in (Exception, BaseException, object) for b in kind.__mro__)
    assert str(errors.LabelError("no label 'x'")) == "no label 'x'"

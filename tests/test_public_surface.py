"""What users build on changes on purpose only: the public names, and the signatures of their public methods.

Where it changed on purpose, renew the list: ``python -m tests.test_public_surface``.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import iir_sdk

LIST = Path(__file__).with_name("public_surface.txt")
FORMATS = ("ModelConfig", "WeightsEntry")
"""Records of files: what is in them changes with the files' formats, which have numbers of their own."""


def lines_of(name: str, value: Any) -> Iterator[str]:
    """A function with its signature; a class with its constructor's, its public methods', properties and fields."""
    if name in FORMATS or not callable(value):
        yield name
    elif not inspect.isclass(value):
        yield f"{name}{inspect.signature(value)}"
    elif issubclass(value, Exception):
        yield f"{name}({value.__base__.__name__})"
    else:
        yield f"{name}{inspect.signature(value)}"
        fields = {field for base in value.__mro__ for field in vars(base).get("__annotations__", ())}
        for member in sorted(m for m in {*dir(value), *fields} if not m.startswith("_")):
            stored = inspect.getattr_static(value, member, None)
            method = inspect.isfunction(stored) or isinstance(stored, classmethod | staticmethod)
            yield f"{name}.{member}{inspect.signature(getattr(value, member)) if method else ''}"


def surface() -> str:
    return "".join(f"{line}\n" for name in sorted(iir_sdk.__all__) for line in lines_of(name, getattr(iir_sdk, name)))


def test_the_public_surface_is_as_listed():
    assert surface() == LIST.read_text(encoding="utf-8")


def test_every_public_name_is_there_and_no_other():
    for name in iir_sdk.__all__:
        assert getattr(iir_sdk, name) is not None
        assert name in dir(iir_sdk)
    with pytest.raises(AttributeError, match="no_such"):
        _ = iir_sdk.no_such


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(iir_sdk.__file__).read_text(encoding="utf-8"))
    (checked,) = (n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    names = {a.asname: n.module for n in checked.body for a in n.names}
    assert names == iir_sdk._HOMES


if __name__ == "__main__":
    LIST.write_text(surface(), encoding="utf-8")

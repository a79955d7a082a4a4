"""Makes ``import torchvision`` work beside a torch build that it was not compiled for.

A CUDA torchvision next to a CPU torch stops at import with "operator torchvision::nms does not exist",
because its compiled operators are absent and their fake kernels have nothing to attach to. Declaring the
two schemas first lets everything that needs no compiled operator (transforms, timm's imports) work.
"""

from __future__ import annotations

import importlib
import sys
from threading import RLock
from types import ModuleType
from typing import Any

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
# Schemas live as long as the Library object that declared them.
_declared: list[Any] = []
_IMPORTING = RLock()


def ensure_torchvision() -> None:
    """Import torchvision, declaring its missing operator schemas first where the import fails for them."""
    # Another thread would find the package that a failed import leaves half made, and lose it while it is forgotten.
    with _IMPORTING:
        try:
            importlib.import_module("torchvision")
        except RuntimeError as error:
            if "torchvision::" not in str(error):
                raise
            _forget_partial_import()
            _declare_schemas()
            importlib.import_module("torchvision")


def imported_timm() -> ModuleType:
    """The ``timm`` package, which imports torchvision; by one thread at a time, for its modules import one another."""
    with _IMPORTING:
        ensure_torchvision()
        return importlib.import_module("timm")


def _forget_partial_import() -> None:
    for name in [n for n in sys.modules if n == "torchvision" or n.startswith("torchvision.")]:
        del sys.modules[name]


def _declare_schemas() -> None:
    from torch import library

    declared = library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        declared.define(schema)
    _declared.append(declared)

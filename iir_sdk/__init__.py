"""Few-shot segmentation by IIR: one picture with a mask, and every other picture gets that thing masked."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from iir_sdk.errors import IirError
    from iir_sdk.model.config import ModelConfig
    from iir_sdk.results.segmentation import Segmentation
    from iir_sdk.segmenter import FewShotSegmenter
    from iir_sdk.supports.bank import Support, SupportBank
    from iir_sdk.weights.entry import WeightsEntry
    from iir_sdk.weights.manifest import list_weights, weights_info

__version__ = "0.1.0"
__all__ = [
    "FewShotSegmenter",
    "IirError",
    "ModelConfig",
    "Segmentation",
    "Support",
    "SupportBank",
    "WeightsEntry",
    "__version__",
    "list_weights",
    "weights_info",
]

# Imported when first asked for, so that ``import iir_sdk`` does not wait for torch.
_HOMES = {
    "FewShotSegmenter": "iir_sdk.segmenter",
    "IirError": "iir_sdk.errors",
    "ModelConfig": "iir_sdk.model.config",
    "Segmentation": "iir_sdk.results.segmentation",
    "Support": "iir_sdk.supports.bank",
    "SupportBank": "iir_sdk.supports.bank",
    "WeightsEntry": "iir_sdk.weights.entry",
    "list_weights": "iir_sdk.weights.manifest",
    "weights_info": "iir_sdk.weights.manifest",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'iir_sdk' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

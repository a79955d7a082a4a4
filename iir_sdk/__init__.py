"""Few-shot segmentation by IIR: one picture with a mask, and every other picture gets that thing masked."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from iir_sdk.errors import IirError as IirError
    from iir_sdk.model.config import ModelConfig as ModelConfig
    from iir_sdk.results.rehearsal import Rehearsal as Rehearsal
    from iir_sdk.results.segmentation import Segmentation as Segmentation
    from iir_sdk.segmenter import FewShotSegmenter as FewShotSegmenter
    from iir_sdk.segmenting.folder import segment_folder as segment_folder
    from iir_sdk.segmenting.large import LargeReport as LargeReport
    from iir_sdk.segmenting.large import segment_large as segment_large
    from iir_sdk.segmenting.run import FolderReport as FolderReport
    from iir_sdk.supports.bank import Counterexample as Counterexample
    from iir_sdk.supports.bank import Support as Support
    from iir_sdk.supports.bank import SupportBank as SupportBank
    from iir_sdk.video.frames import FrameMask as FrameMask
    from iir_sdk.video.frames import VideoFrame as VideoFrame
    from iir_sdk.video.frames import segment_frames as segment_frames
    from iir_sdk.video.segment import VideoReport as VideoReport
    from iir_sdk.video.segment import segment_video as segment_video
    from iir_sdk.weights.entry import WeightsEntry as WeightsEntry
    from iir_sdk.weights.manifest import list_weights as list_weights
    from iir_sdk.weights.manifest import weights_info as weights_info

__version__ = "0.1.0"

# The public names. Imported when first asked for, so that ``import iir_sdk`` does not wait for torch.
_HOMES = {
    "Counterexample": "iir_sdk.supports.bank",
    "FewShotSegmenter": "iir_sdk.segmenter",
    "FrameMask": "iir_sdk.video.frames",
    "FolderReport": "iir_sdk.segmenting.run",
    "IirError": "iir_sdk.errors",
    "LargeReport": "iir_sdk.segmenting.large",
    "ModelConfig": "iir_sdk.model.config",
    "Rehearsal": "iir_sdk.results.rehearsal",
    "Segmentation": "iir_sdk.results.segmentation",
    "Support": "iir_sdk.supports.bank",
    "SupportBank": "iir_sdk.supports.bank",
    "VideoFrame": "iir_sdk.video.frames",
    "VideoReport": "iir_sdk.video.segment",
    "WeightsEntry": "iir_sdk.weights.entry",
    "list_weights": "iir_sdk.weights.manifest",
    "segment_folder": "iir_sdk.segmenting.folder",
    "segment_frames": "iir_sdk.video.frames",
    "segment_large": "iir_sdk.segmenting.large",
    "segment_video": "iir_sdk.video.segment",
    "weights_info": "iir_sdk.weights.manifest",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'iir_sdk' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

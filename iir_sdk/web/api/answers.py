"""Results as answers."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from iir_sdk.errors import RequestError
from iir_sdk.formats.instances import box_of
from iir_sdk.formats.rle import encode
from iir_sdk.results.painting import COLOURS
from iir_sdk.results.segmentation import Segmentation
from iir_sdk.web.api.messages import LabelCounts, LabelOut, PredictOut, RunLengths, SetOut
from iir_sdk.web.api.support_sets import Outline

LABELS_HEADER = "IIR-Labels"
_MOST_LABELS = 255


@dataclass(frozen=True)
class Answer:
    """What a request is answered with, status 200."""

    content: bytes = field(repr=False)
    media_type: str
    headers: Mapping[str, str] = field(default_factory=dict)


def set_out(of: Outline, warnings: Sequence[str] = ()) -> SetOut:
    """A set of supports."""
    supports, others = of.supports, of.counterexamples
    counts = [
        LabelCounts(label=label, supports=supports[label], counterexamples=others[label])
        for label in dict.fromkeys((*supports, *others))
    ]
    return SetOut(id=of.name, labels=counts, bytes=of.nbytes, preloaded=of.preloaded, warnings=list(warnings))


def predict_out(result: Segmentation, masks: str, warnings: Sequence[str] = ()) -> PredictOut:
    """A prediction, with masks as ``rle``, ``png`` or ``none``."""
    height, width = result.image.shape[:2]
    labels = [_label_out(result, i, masks) for i in range(len(result.labels))]
    milliseconds = {stage: round(float(ms), 1) for stage, ms in result.timings.items()}
    return PredictOut(
        width=width, height=height, labels=labels, milliseconds=milliseconds, warnings=list(dict.fromkeys(warnings))
    )


def _label_out(result: Segmentation, i: int, masks: str) -> LabelOut:
    mask = result.masks[i]
    out = LabelOut(
        label=result.labels[i],
        score=float(result.scores[i]),
        confidence=float(result.confidences[i]),
        area=int(np.count_nonzero(mask)),
        box=box_of(mask) if mask.any() else None,
    )
    if masks == "rle":
        out.rle = RunLengths(**encode(mask))
    elif masks == "png":
        out.png = base64.b64encode(_png(Image.fromarray(mask.astype(np.uint8) * 255))).decode("ascii")
    return out


def label_map_png(result: Segmentation) -> bytes:
    """A palette PNG of ``(H, W)``: 0 for background, ``i + 1`` for the i-th label, also where there is one alone.

    Raises:
        RequestError: more labels than a palette has room for.
    """
    if len(result.labels) > _MOST_LABELS:
        raise RequestError(
            f"image/png holds {_MOST_LABELS} labels, and there are {len(result.labels)}: ask for fewer by labels, or "
            "for application/json."
        )
    image = Image.fromarray(result.label_map.astype(np.uint8)).convert("P")
    image.putpalette([0, 0, 0, *(c for i in range(len(result.labels)) for c in COLOURS[i % len(COLOURS)])])
    return _png(image)


def labels_header(result: Segmentation) -> dict[str, str]:
    """Which labels the numbers of a label map stand for: a JSON list, in ASCII."""
    return {LABELS_HEADER: json.dumps(list(result.labels))}


def _png(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()
